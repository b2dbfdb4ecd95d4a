"""Runs the commands and code of the guides unchanged, page by page, beside a folder of clips and its tables.

If a block needs something that is not available here, a comment before it, `<!-- needs: ... -->`, says so; the page
does not show it. `featray` lines run in this process, because starting Python for each takes longer than most of them.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
import yaml
from click.testing import CliRunner

from featray.cli import main
from featray.config import parse_config
from tests.fixtures.corpus import run_ffmpeg

_DOCS = Path(__file__).parents[2] / "docs"
_BLOCK = re.compile(
    r"(?:<!-- (?P<mark>file|needs): (?P<what>[^>]+?) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)```", re.DOTALL
)
# The tutorial has its own test, which starts in an empty folder.
_PAGES = sorted(
    page for page in [*_DOCS.glob("guides/*.md"), *_DOCS.glob("explanation/*.md")] if _BLOCK.search(page.read_text())
)


@pytest.fixture(scope="module")
def prepared(face_clip, kept_cache, tmp_path_factory) -> Path:
    """Return a folder with `my_clips/`, one clip of a second, and its tables `my_tables`."""
    folder = tmp_path_factory.mktemp("guides")
    (folder / "my_clips").mkdir()
    run_ffmpeg("-i", str(face_clip), "-vf", "fps=12", "-t", "1", "-an", str(folder / "my_clips" / "face.mp4"))
    with contextlib.chdir(folder):
        made = CliRunner().invoke(main, ["run", "my_clips/", "--out", "my_tables"], catch_exceptions=False)
    assert made.exit_code == 0, made.output
    return folder


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.stem)
def test_what_a_page_says_works(page, prepared, tmp_path):
    """Each page gets a copy of the folder, because one of them erases the clip."""
    place = shutil.copytree(prepared, tmp_path / "place")
    with contextlib.chdir(place):
        for block in _BLOCK.finditer(page.read_text("utf-8")):
            if block["mark"] == "needs":
                continue
            if block["mark"] == "file":
                Path(block["what"]).write_text(block["text"])
            if run := _RUN.get(block["language"]):
                run(block["text"])


def _commands(text: str) -> Iterator[str]:
    """Yield commands; a command continues on the next line while a quote is open."""
    command = ""
    for line in text.replace("\\\n", " ").splitlines(keepends=True):
        command += line
        try:
            shlex.split(command, comments=True)
        except ValueError:
            continue
        yield command.rstrip("\n")
        command = ""
    assert not command, f"a quote is not closed: {command}"


def _shell(text: str) -> None:
    for line in _commands(text):
        words = shlex.split(line, comments=True)
        if not words:
            continue
        if words[0] != "featray" or {">", "|", ">>"} & set(words):
            _process(["bash", "-euo", "pipefail", "-c", line.replace("featray ", f"{sys.executable} -m featray ", 1)])
            continue
        done = CliRunner().invoke(main, words[1:])
        assert done.exit_code == 0, f"{line}\n{done.output}"


def _python(text: str) -> None:
    _process([sys.executable, "-W", "ignore", "-c", text])


def _process(command: list[str]) -> None:
    env = {**os.environ, "PYTHONPATH": str(_DOCS.parent)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"


def _yaml(text: str) -> None:
    """Parse a config, or some sections of one."""
    data = yaml.safe_load(text)
    given = {"dataset": "a", "output": {"uri": "b"}} | data | {"input": {"uris": ["c/"]} | data.get("input", {})}
    parse_config(given)


def _sql(text: str) -> None:
    for statement in duckdb.extract_statements(text):
        done = CliRunner().invoke(main, ["query", "my_tables", "--", statement.query])
        assert done.exit_code == 0, f"{statement.query}\n{done.output}"


_RUN = {"sh": _shell, "python": _python, "yaml": _yaml, "sql": _sql}
