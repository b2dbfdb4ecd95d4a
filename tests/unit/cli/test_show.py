"""The output of `featray query` in each format, into a pipe and on a terminal."""

import csv
import io
import json
import os
import pty
import re
import subprocess
import sys

import pytest
from click.testing import CliRunner

from featray.cli import main
from featray.tables.provenance import SYNTHETIC_WEIGHTS
from tests.fixtures.handmade import write_output
from tests.fixtures.labelled import Planted
from tests.fixtures.terminal import Terminal


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "out"
    write_output(folder)
    return str(folder)


def query(out, sql, *arguments):
    done = CliRunner().invoke(main, ["query", out, sql, *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("sql", ["", "  "])
def test_no_sql_is_refused(out, sql):
    done = CliRunner().invoke(main, ["query", out, sql])
    assert done.exit_code == 2 and "query: the SQL is empty; write a SELECT" in done.stderr


TWICE = "SELECT 1 AS pts_us, 2 AS pts_us, 3 AS status, 4 AS PTS_US, 5 AS pts_us_1"
NAMES = ["pts_us", "pts_us_1", "status", "PTS_US_2", "pts_us_1_1"]


def test_columns_of_equal_name_keep_their_values(out):
    assert json.loads(query(out, TWICE, "--format", "json")) == [dict(zip(NAMES, (1, 2, 3, 4, 5), strict=True))]
    assert list(csv.reader(io.StringIO(query(out, TWICE, "--format", "csv")))) == [NAMES, list("12345")]
    heading, row, _ = query(out, TWICE).splitlines()
    assert (heading.split(), row.split()) == (NAMES, list("12345"))


def test_lines_of_csv_end_as_the_shell_expects(out):
    assert query(out, "SELECT 1 AS a", "--format", "csv") == "a\n1\n"  # `$(... | tail -1)` would keep a carriage return


def test_names_are_those_that_duckdb_gives_a_table(out):
    """A query and a table made from it therefore have the same columns."""
    made = query(out, f"SELECT column_name FROM (DESCRIBE SELECT * FROM ({TWICE}))", "--format", "csv")
    assert made.splitlines()[1:] == NAMES


def on_a_terminal(out, sql):
    """Return the output of the command on a terminal of 60 columns."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "featray", "query", out, sql]
    environment = {**os.environ, "COLUMNS": "60", "TERM": "xterm"}
    with subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE, env=environment) as process:
        os.close(theirs)
        printed = b""
        try:
            while some := os.read(ours, 65536):
                printed += some
        except OSError:  # on Linux, the other side was closed
            pass
        assert process.wait() == 0, process.stderr.read()
    os.close(ours)
    return printed.decode()


def test_synthetic_weights_are_said_on_a_terminal_only(tmp_path):
    root = Planted({"a.mp4": [(0, 0, "ok", [{}])]}, trained=False).write(tmp_path / "out").root.path
    assert CliRunner().invoke(main, ["query", root, "SELECT 1"]).stderr == ""
    with Terminal([sys.executable, "-m", "featray", "query", root, "SELECT count(*) FROM faces"]) as terminal:
        assert terminal.end() == 0
    assert SYNTHETIC_WEIGHTS in terminal.words()


def test_text_is_printed_as_it_is(out):
    texts = ["[/x]", "[red]a[/red]", ":smile:", r"a\[b]"]
    sql = "SELECT " + ", ".join(f"'{text}' AS \"{text}\"" for text in texts)
    assert [line.split() for line in query(out, sql).splitlines()[:2]] == [texts, texts]
    shown = on_a_terminal(out, sql)
    assert all(shown.count(text) == 2 for text in texts)


def test_a_pipe_gets_whole_cells_and_all_rows(out):
    long = "x" * 300
    printed = query(out, f"SELECT '{long}' AS a, '{long}' AS b, range(9) AS c FROM range(1500)").splitlines()
    assert printed[1] == f"{long}  {long}  [0, 1, 2, 3, 4, 5, 6, 7, 8]"
    assert len(printed) == 1502 and printed[-1] == "(1,500 rows)"
    shown = on_a_terminal(out, f"SELECT '{long}' AS a, range(9) AS c FROM range(1500)")
    assert "…" in shown and "[0, 1, 2, ... 9]" in shown and "(1,000 rows, the first of more)" in shown


def test_of_a_place_too_long_for_the_terminal_the_end_is_shown(out):
    places = [f"file:///a/long/way/to/the/folder/of/all/clips/{name}.mp4" for name in ("anna", "bert")]
    sql = "SELECT * FROM (VALUES " + ", ".join(f"('{place}', 'ok')" for place in places) + ") AS t(uri, status)"
    shown = on_a_terminal(out, sql)
    assert "clips/anna.mp4  ok" in shown and "clips/bert.mp4  ok" in shown
    assert max(len(line) for line in re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()) <= 60
    assert all(place in query(out, sql) for place in places), "in a pipe they are whole"


def test_a_name_cannot_move_the_cursor(out):
    assert query(out, "SELECT 'a' || chr(10) || chr(27) || '[2Jb' AS name").splitlines()[1] == r"a\n\x1b[2Jb"
    assert "\x1b[2J" not in on_a_terminal(out, "SELECT 'a' || chr(27) || '[2Jb' AS name")


@pytest.mark.parametrize(
    ("sql", "suggestion"),
    [
        ("SELECT vide_id FROM faces", 'Candidate bindings: "video_id"'),
        ("SELECT * FROM fces", 'Did you mean "faces"?'),
        ("SELECT sum('a', 'b')", "Candidate functions: sum(arg"),
        ("SELECT 1\nFROM", "syntax error"),
    ],
)
def test_what_duckdb_suggests_is_shown_on_one_line(out, sql, suggestion):
    done = CliRunner().invoke(main, ["query", out, sql])
    assert done.exit_code == 2 and done.stderr.count("\n") == 1
    assert suggestion in done.stderr and "^" not in done.stderr


@pytest.mark.parametrize("style", ["csv", "json"])
def test_a_query_that_fails_at_a_late_row_is_one_line(out, style):
    sql = "SELECT CASE WHEN range = 20000 THEN CAST(range || 'x' AS INT) ELSE 1 END AS n FROM range(20001)"
    done = CliRunner().invoke(main, ["query", out, sql, "--format", style])
    assert done.exit_code == 2 and done.stderr.count("\n") == 1
    assert "featray: query: Conversion Error: Could not convert string '20000x'" in done.stderr
