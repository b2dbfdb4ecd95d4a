"""The documentation: generated pages match the code, and everything that the other pages name exists."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from featray.cli import main
from featray.errors import ERROR_FIXES, ErrorCode
from featray.schema import TABLES

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGES = sorted(
    str(page.relative_to(ROOT)) for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")]
)


def generator():
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_that_of_the_code():
    written = generator().pages()
    for name, text in written.items():
        # One line, because pytest needs minutes to show a difference of two long pages.
        same = (DOCS / "reference" / name).read_text("utf-8") == text
        assert same, f"docs/reference/{name} is not of this code; run: python docs/generate.py"
    assert set(written) | {"python.md"} == {page.name for page in (DOCS / "reference").iterdir()}


def test_every_table_and_column_is_in_the_reference():
    page = (DOCS / "reference" / "tables.md").read_text("utf-8")
    for table, columns in TABLES.items():
        rows = page.split(f"## {table}\n")[1].split("\n## ")[0]
        # A bar inside a cell would start another cell.
        cells = [re.split(r"(?<!\\)\|", line) for line in rows.splitlines() if line.startswith("| `")]
        assert [row[1].strip(" `") for row in cells] == [column.name for column in columns]
        assert {len(row) for row in cells} == {7}


def test_every_error_code_has_a_fix():
    assert list(ERROR_FIXES) == list(ErrorCode)


def test_one_table_of_the_reference_and_a_wrong_one():
    assert CliRunner().invoke(main, ["schema", "videos", "--format", "markdown"]).output.startswith("## videos\n")
    wrong = CliRunner().invoke(main, ["schema", "nope", "--format", "markdown"])
    assert wrong.exit_code == 2 and "choose one of faces" in wrong.output


@pytest.mark.parametrize("page", PAGES)
def test_links_between_pages_lead_somewhere(page):
    path = ROOT / page
    links = re.findall(r"\]\(([^)#]+)", path.read_text("utf-8"))
    links += [f"{'../' * (len(path.relative_to(ROOT).parts) - 1)}{link}" for link in _in_repository(path)]
    broken = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert not broken


def _in_repository(path: Path) -> list[str]:
    return re.findall(r"https://github\.com/featray/featray/(?:blob|tree)/main/([^)#\s]+)", path.read_text("utf-8"))


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r'"([\w/]+\.md)"', (ROOT / "zensical.toml").read_text("utf-8")))
    assert listed == {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}


def test_the_site_builds_without_a_warning(tmp_path):
    """The target of every link exists, with the heading that it names; the API's docstrings can be read."""
    shutil.copytree(DOCS, tmp_path / "docs")
    (tmp_path / "featray").symlink_to(ROOT / "featray")
    for name in ("zensical.toml", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    api = (tmp_path / "site/reference/python/index.html").read_text("utf-8")
    assert 'id="featray.tables.opened.open_tables"' in api
    loaded = {
        link
        for page in tmp_path.glob("site/**/*.html")
        for found in _LOADED.findall(page.read_text("utf-8"))
        for link in found
    }
    assert not {link for link in loaded if "//" in link}, "pages load nothing from elsewhere"


_LOADED = re.compile(r"<(?:script|img|iframe)[^>]* src=[\"']?([^\"' >]+)|<link rel=\"?stylesheet\"? href=\"([^\"]+)")


def test_the_columns_that_the_page_on_meaning_names_exist():
    text = (DOCS / "explanation" / "numbers.md").read_text("utf-8")
    known = {column.name for columns in TABLES.values() for column in columns}
    named = {name for name in re.findall(r"`([a-z]+_[a-z_0-9]+)`", text) if name.isidentifier()}
    assert named and named <= known | {"no_face", "decode_error"}, named - known


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_is_told_how_to_complete(shell):
    told = CliRunner().invoke(main, env={"_FEATRAY_COMPLETE": f"{shell}_source"}, prog_name="featray").output
    assert "featray" in told and f"_FEATRAY_COMPLETE={shell}_complete" in told


def test_commands_and_options_are_completed():
    def completed(words: str, position: int) -> list[str]:
        env = {"_FEATRAY_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(position)}
        return CliRunner().invoke(main, env=env, prog_name="featray").output.split()

    assert completed("featray re", 1) == ["plain,report"]
    assert "plain,--release" in completed("featray report OUT --re", 3)
