"""Output for programs: every command that reports something can print it as JSON, and prints nothing else then."""

import json

import click
import pytest
from click.testing import CliRunner

from featray.cli import main
from featray.schema import ALL_TABLES
from tests.fixtures.handmade import write_output

_FOR_PEOPLE = {"demo", "run", "query"}
"""Commands without `--json`; `run` has `--log-line` instead, and `query` has `--format json`."""


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "out"
    write_output(folder)
    return str(folder)


def told(*arguments):
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def commands(group=main, path=()):
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def test_every_command_that_finds_something_out_has_json():
    without = {" ".join(path) for path, one in commands() if "--json" not in {o for p in one.params for o in p.opts}}
    assert without == _FOR_PEOPLE


def test_the_list_of_commands_is_not_cut():
    listed = CliRunner().invoke(main, ["--help"]).output.split("Commands:")[1]
    assert "..." not in listed and all(name in listed for name in main.commands)


def test_the_schema_as_json():
    found = told("schema", "--json")
    assert [table["table"] for table in found] == list(ALL_TABLES)
    (faces,) = told("schema", "faces", "--json")
    assert [column["name"] for column in faces["columns"]] == [column.name for column in ALL_TABLES["faces"]]
    assert set(faces["columns"][0]) == {"name", "type", "unit", "range", "meaning"}


def test_what_was_written(out, tmp_path):
    page, table = tmp_path / "r.html", tmp_path / "summary.csv"
    found = told("report", out, "--dataset", "one", "--out", page, "--no-thumbnails", "--json")
    assert found["path"] == str(page) and found["size_bytes"] == page.stat().st_size
    found = told("export", out, "--summary", "csv", "--out", table, "--json")
    assert found == {"path": str(table), "kind": "summary csv", "rows": len(table.read_text().splitlines()) - 1}
    refused = CliRunner().invoke(main, ["export", out, "--summary", "csv", "--json"])
    assert refused.exit_code == 2 and "--json: needs --out" in refused.output


def test_a_checkpoint(tmp_path):
    path = tmp_path / "atto.safetensors"
    made = told("models", "synth", path, "--variant", "atto", "--json")
    found = told("models", "inspect", path, "--json")
    assert made["path"] == found["path"] == str(path) and made["sha256"] == found["sha256"]
    assert found["parameters"] == made["parameters"] > 0 and found["trained"] is False
    assert isinstance(found["config"], dict) and found["head"][0].startswith("action units: ")
