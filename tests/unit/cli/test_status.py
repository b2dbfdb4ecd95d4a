"""`featray status` while a run is on, and after one that was killed."""

import contextlib
import json
import os
import pty
import socket
import subprocess
import sys
import time

from click.testing import CliRunner

from featray.cli import main
from featray.tables.layout import Partition, open_output
from featray.tables.lease import hold
from featray.tables.status import read_status
from tests.fixtures.runs import run_killed, small_config
from tests.fixtures.runs import small_network as small_network

_OFTEN = """
import sys
from featray.cli import main
from featray.tables import lease

lease.RENEW_SECONDS = 0.05  # a run of the test is over before it would renew once
main(sys.argv[1:])
"""


def test_a_run_that_is_on_is_shown_until_it_ends(clips, small_network, tmp_path):
    out, began, seen, words = tmp_path / "out", time.time(), [], ""
    settings = ("--set", f"model.checkpoint={small_network}", "--set", "decode={sample: {every: 24}, unit_frames: 16}")
    command = [sys.executable, "-c", _OFTEN, "run", str(clips), "--out", str(out), "--quiet", *settings]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as run:
        while run.poll() is None:
            time.sleep(0.05)
            live = read_status(open_output(str(out)))["live"] if (out / "_featray" / "output.json").exists() else []
            seen += live
            if live and live[0]["landed"] and live[0]["landed"]["frames"] and not words:
                words = CliRunner().invoke(main, ["status", str(out)]).output
    assert run.returncode == 0
    assert {(one["host"], one["pid"], one["dataset"]) for one in seen} == {
        (socket.gethostname(), run.pid, "demo_clips")
    }
    landed = [one["landed"]["frames"] for one in seen if one["landed"]]
    assert landed == sorted(landed) and 0 < landed[-1] <= 24
    assert seen[-1]["frames_per_s"] > 0 and seen[0]["since"] >= time.strftime("%FT%T", time.gmtime(began - 1))
    assert f"host {socket.gethostname()}, pid {run.pid}" in words and " frames/s" in words
    after = read_status(open_output(str(out)))
    assert after["live"] == [] and after["videos"]["ok"] == 2
    watched = CliRunner().invoke(main, ["status", str(out), "--watch", "--json"])
    assert json.loads(watched.output) == after, "with no run on, --watch prints once"


def test_a_terminal_is_kept_up_to_date_until_ctrl_c(clips, small_network, tmp_path):
    run_killed(small_config([f"{clips}/no_face.mp4"], tmp_path / "out", small_network))
    (folder,) = (tmp_path / "out" / "_featray" / "leases").glob("*/*")
    with hold(Partition(open_output(str(tmp_path / "out")), folder.parent.name, folder.name), "run-1"):
        child, terminal = pty.fork()
        if child == 0:
            os.execv(sys.executable, [sys.executable, "-m", "featray", "status", str(tmp_path / "out"), "--watch"])
        printed = b""
        while b"published  0 videos" not in printed:
            printed += os.read(terminal, 65536)
        os.write(terminal, b"\x03")
        with contextlib.suppress(OSError):  # how Linux says that the other side is closed
            while some := os.read(terminal, 65536):
                printed += some
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert printed.startswith(b"\x1b[2J") and b"host " in printed, "the screen is cleared first"
    assert b"stopped" not in printed and b"Traceback" not in printed, "the run has not"


def test_a_run_that_was_killed_is_not_shown_as_running(clips, small_network, tmp_path):
    run_killed(small_config([f"{clips}/no_face.mp4"], tmp_path / "out", small_network))
    found = read_status(open_output(str(tmp_path / "out")))
    assert (found["live"], [run["status"] for run in found["runs"]]) == ([], ["running"])
    assert "killed; the same command goes on" in CliRunner().invoke(main, ["status", str(tmp_path / "out")]).output
