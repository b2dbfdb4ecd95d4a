"""A run whose terminal is closed ends in order; under nohup or disown, or if a pipe's reader ends, it goes on."""

import json
import os
import pty
import shlex
import shutil
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner

from featray.cli import main
from tests.fixtures.outputs import tables_of


def on_a_terminal(words, handler):
    """Run featray on a terminal, close that once work has begun, and return the exit status."""
    pid, terminal = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGHUP, handler)
        os.execv(sys.executable, [sys.executable, "-m", "featray", *words])
    shown = b""
    while b"workers:" not in shown:
        shown += os.read(terminal, 4096)
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def last(out, what):
    return json.loads(max((out / "_featray" / what).rglob("*.json")).read_text())


@pytest.mark.timeout(300)
@pytest.mark.parametrize("executor", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_a_run_whose_terminal_is_closed(clips, small_network, tmp_path, executor):
    many = tmp_path / "clips"
    many.mkdir()
    for number in range(4):
        shutil.copy(clips / "face.mp4", many / f"{number}.mp4")
    out, calm = tmp_path / "out", tmp_path / "calm"
    settings = ["--set", f"model.checkpoint={small_network}", "--set", "decode.sample={every: 16}"]

    def words(out, executor=executor):
        return ["run", str(many), "--out", str(out), "--executor", executor, *settings]

    assert on_a_terminal(words(out), signal.SIG_DFL) == 128 + signal.SIGHUP
    assert last(out, "leases")["released"]
    again = CliRunner().invoke(main, words(out, "local"))
    assert again.exit_code == 0, again.output
    rows = CliRunner().invoke(
        main, ["query", str(out), "SELECT status FROM runs ORDER BY started_at", "--format", "csv"]
    )
    assert rows.stdout.split() == ["status", "interrupted", "done"]
    if executor == "local":
        assert on_a_terminal(words(calm), signal.SIG_IGN) == 0
        rows = CliRunner().invoke(main, ["query", str(calm), "SELECT status FROM runs", "--format", "csv"])
        assert rows.stdout.split() == ["status", "done"]
        assert tables_of(out) == tables_of(calm)


@pytest.mark.parametrize("pipe", ["|", "|&"])
def test_a_run_whose_reader_has_ended(clips, small_network, tmp_path, pipe):
    """`|&` passes on the log too."""
    (tmp_path / "no.mp4").write_bytes(b"nothing that is a video")
    words = [
        "run",
        f"{clips}/face.mp4",
        str(tmp_path / "no.mp4"),
        "--out",
        str(tmp_path / "out"),
        "--executor",
        "local",
    ]
    settings = ["--set", f"model.checkpoint={small_network}", "--set", "decode.sample={every: 60}"]
    featray = shlex.join([sys.executable, "-m", "featray", *words, *settings])
    script = f"{featray} {pipe} true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout == "3\n" and "Broken pipe" not in done.stderr and "Traceback" not in done.stderr
    rows = CliRunner().invoke(main, ["query", str(tmp_path / "out"), "SELECT status FROM runs", "--format", "csv"])
    assert rows.stdout.split() == ["status", "done_with_failures"]
