"""Pages that stand in the repository: held to what they are made from, and their links lead somewhere."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import pytest
from click.testing import CliRunner

from featray.cli import main
from featray.schema import TABLES

ROOT = Path(__file__).parents[3]
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "featray/tables/DICTIONARY.md",
    "featray/tables/MEANING.md",
    "configs/tutorial.md",
    "docs/slurm.md",
    "infra/README.md",
]


def test_the_dictionary_is_that_of_the_schemas():
    printed = CliRunner().invoke(main, ["schema", "--format", "markdown"])
    assert printed.exit_code == 0
    page = (files("featray") / "tables" / "DICTIONARY.md").read_text("utf-8")
    assert page == printed.output, "run: featray schema --format markdown > featray/tables/DICTIONARY.md"
    for table, columns in TABLES.items():
        rows = page.split(f"## {table}\n")[1].split("\n## ")[0]
        # A bar inside a cell would make another cell of what follows it.
        cells = [re.split(r"(?<!\\)\|", line) for line in rows.splitlines() if line.startswith("| `")]
        assert [row[1].strip(" `") for row in cells] == [column.name for column in columns]
        assert {len(row) for row in cells} == {7}


def test_one_table_of_the_dictionary_and_a_wrong_one():
    assert CliRunner().invoke(main, ["schema", "videos", "--format", "markdown"]).output.startswith("## videos\n")
    wrong = CliRunner().invoke(main, ["schema", "nope", "--format", "markdown"])
    assert wrong.exit_code == 2 and "there are: faces" in wrong.output


@pytest.mark.parametrize("page", PAGES)
def test_links_between_pages_lead_somewhere(page):
    path = ROOT / page
    links = re.findall(r"\]\(([^)#]+)", path.read_text("utf-8"))
    broken = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert not broken


def test_the_columns_that_the_meaning_page_names_exist():
    text = (files("featray") / "tables" / "MEANING.md").read_text("utf-8")
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
