"""SIGTERM, which schedulers and container runtimes send, and Ctrl-C, to commands that change or read an output."""

import json
import shutil
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from featray.cli import main

STOPPED = """
import os, signal, sys, time
import featray.upkeep.compact as compact

def told_to_stop(*_):
    with compact.scratch_folder("compact"):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

compact._merge_group = told_to_stop
from featray.cli import main
sys.argv = ["featray", "compact", sys.argv[1]]
main()
"""


def test_a_compaction_gives_its_lease_back_and_leaves_no_temporary_files(published, tmp_path, monkeypatch):
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    shutil.copytree(published, out)
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    told = subprocess.run([sys.executable, "-c", STOPPED, str(out)], capture_output=True, text=True, timeout=120)
    assert told.returncode == 128 + signal.SIGTERM
    assert told.stderr == "featray: stopped; run the same command again to resume\n"
    (lease,) = (out / "_featray").glob("leases/**/*.json")
    assert json.loads(lease.read_text())["released"]
    assert list(scratch.iterdir()) == []


BEGUN = """
import signal, sys
import featray.tables.query as query

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with it ignored
real = query.interruptible

def told(connection, work):
    print("begun", flush=True)
    return real(connection, work)

query.interruptible = told
from featray.cli import main
sys.argv = ["featray", "query", *sys.argv[1:]]
main()
"""


COUNT = "SELECT count(*) FROM range(300000000000) t(i) WHERE i % 7 = 3"
LATE = "SELECT i FROM range(300000000000) t(i) WHERE i % 1000000000000 = 3"


@pytest.mark.parametrize(
    ("sql", "number"),
    [(COUNT, signal.SIGTERM), (LATE, signal.SIGINT), (f"SET threads = 1; {LATE}", signal.SIGINT)],
    ids=["a count", "the first row", "the first row of two statements"],
)
def test_a_query_that_takes_hours_ends(published, sql, number):
    """DuckDB executes it without looking at signals, and then raises an error of its own."""
    command = [sys.executable, "-c", BEGUN, str(published), sql]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as query:
        try:
            assert query.stdout.readline() == "begun\n"
            time.sleep(2)  # into the query; before it, the same ends it
            query.send_signal(number)
            told = query.communicate(timeout=120)[1]
        finally:
            query.kill()
    assert (query.returncode, told) == (128 + number, "featray: stopped; run the same command again to resume\n")


COMPARED = """
import signal, sys
import featray.evaluate.join as join
import featray.report.diff as diff
from featray.tables.database import execute

def told(connection, _):
    print("begun", flush=True)
    execute(connection, "CREATE TABLE long AS SELECT count(*) FROM range(300000000000) t(i) WHERE i % 7 = 3")

signal.signal(signal.SIGINT, signal.default_int_handler)
diff.execute = join.execute = told  # as long as with hundreds of millions of faces
from featray.cli import main
main()
"""


@pytest.mark.parametrize("command", ["diff", "evaluate"])
def test_a_comparison_that_takes_hours_ends(published, tmp_path, command):
    release = next((published / "videos").glob("dataset=*/release=*")).name.partition("=")[2]
    (tmp_path / "labels.csv").write_text("video,frame_index,AU12\nclip.mp4,0,1\n")
    words = {"diff": [release, release], "evaluate": ["--labels", str(tmp_path / "labels.csv")]}[command]
    line = [sys.executable, "-c", COMPARED, command, str(published), *words]
    with subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as compared:
        try:
            assert compared.stdout.readline() == "begun\n"
            time.sleep(1)  # into the statement
            compared.send_signal(signal.SIGINT)
            told = compared.communicate(timeout=120)[1]
        finally:
            compared.kill()
    assert compared.returncode == 128 + signal.SIGINT
    assert told.endswith("featray: stopped; run the same command again to resume\n") and "Traceback" not in told


def test_ctrl_c_while_the_program_is_loaded_prints_nothing():
    code = "import os, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "sys.meta_path.insert(0, type('Finder', (), {'find_spec': staticmethod(lambda name, *_: "
    code += "os.kill(os.getpid(), signal.SIGINT) if name == 'click' else None)})); import featray.cli"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (told.returncode, told.stderr) == (-signal.SIGINT, "")


def test_sql_that_says_so_is_no_stop(published):
    done = CliRunner().invoke(
        main, ["query", str(published), "SELECT 'Query interrupted', 'INTERRUPT Error' FROM nowhere"]
    )
    assert done.exit_code == 2 and "nowhere" in done.stderr


def test_closed_standard_streams(published):
    """Rich and click ask a stream whether it is a terminal, and Python has none where one is closed."""
    for words in (
        "status OUT",
        "export OUT --summary csv",
        "query OUT 'SELECT 1' --format csv",
        "query OUT 'SELECT 1'",
    ):
        command = f"{sys.executable} -m featray {words.replace('OUT', str(published))} >&-"
        told = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, timeout=300)
        assert (told.returncode, "Traceback" in told.stderr) == (0, False), told.stderr
