"""`featray status` during a run, on a terminal and elsewhere, and after a run that was killed."""

import json
import re
import socket
import subprocess
import sys
import time

from click.testing import CliRunner

from featray.cli import main
from featray.cli.status import _fitted, _lines
from featray.tables.layout import Partition, open_output
from featray.tables.lease import hold
from featray.tables.status import read_status
from featray.upkeep.rederive import chosen_settings
from tests.fixtures.runs import run_killed, small_config
from tests.fixtures.runs import small_network as small_network
from tests.fixtures.terminal import Terminal

_OFTEN = """
import sys
from featray.cli import main, status
from featray.tables import lease

lease.RENEW_SECONDS = 0.05  # a run of the test is over before it would renew once
status._WATCH_SECONDS = 0.1
main(sys.argv[1:])
"""


def test_a_run_that_is_on_is_shown_until_it_ends(clips, small_network, tmp_path):
    out, began, seen = tmp_path / "out", time.time(), []
    settings = ("--set", f"model.checkpoint={small_network}", "--set", "decode={sample: {every: 24}, unit_frames: 16}")
    command = [sys.executable, "-c", _OFTEN, "run", str(clips), "--out", str(out), "--quiet", *settings]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as run:
        while not (out / "_featray" / "output.json").exists():
            assert run.poll() is None
            time.sleep(0.02)
        with Terminal([sys.executable, "-c", _OFTEN, "status", str(out), "--watch"], columns=50) as terminal:
            while run.poll() is None:
                time.sleep(0.05)
                seen += read_status(open_output(str(out)))["live"]
            ended = terminal.end()
    assert run.returncode == ended == 0
    assert {(one["host"], one["pid"], one["dataset"]) for one in seen} == {
        (socket.gethostname(), run.pid, "demo_clips")
    }
    landed = [one["landed"]["frames"] for one in seen if one["landed"]]
    assert landed == sorted(landed) and 0 < landed[-1] <= 24
    assert seen[-1]["frames_per_s"] > 0 and seen[0]["since"] >= time.strftime("%FT%T", time.gmtime(began - 1))
    _check_screens(terminal.words(), run.pid)
    after = read_status(open_output(str(out)), chosen=chosen_settings)
    assert after["live"] == [] and after["videos"]["ok"] == 2
    watched = CliRunner().invoke(main, ["status", str(out), "--watch", "--json"])
    assert json.loads(watched.output) == after, "with no run on, --watch prints once"


def _check_screens(words, pid):
    """Check the screens that a narrow terminal showed, from the beginning of a run to its end."""
    screens = re.split(r"\x1b\[2J\x1b\[1;1H", words)
    assert screens[0] == "" and len(screens) > 2, "the screen is cleared first, and again"
    live = "".join(screens[1:-1])
    assert f"host {socket.gethostname()}, pid {pid}, user " in live and "since 20" in live
    assert re.search(r"landed +\d/2\+? videos", live) and re.search(r"published +\d videos?", live)
    assert " frames/s" in live and " left" in live and "Ctrl-C ends this, not the run" in live
    assert "videos  2 ok, 0 partial, 0 failed" in screens[-1] and "done" in screens[-1]
    assert "now " not in screens[-1] and "Ctrl-C" not in screens[-1]
    assert max(map(len, words.replace("\x1b[2J\x1b[1;1H", "").splitlines())) <= 50


def test_ctrl_c_ends_the_watching_and_not_the_run(clips, small_network, tmp_path):
    run_killed(small_config([f"{clips}/no_face.mp4"], tmp_path / "out", small_network))
    (folder,) = (tmp_path / "out" / "_featray" / "leases").glob("*/*")
    with hold(Partition(open_output(str(tmp_path / "out")), folder.parent.name, folder.name), "run-1"):
        command = [sys.executable, "-m", "featray", "status", str(tmp_path / "out"), "--watch"]
        with Terminal(command) as terminal:
            terminal.until("Ctrl-C ends this, not the run")
            terminal.type(b"\x03")
            assert terminal.end() == 0
    assert terminal.printed.startswith(b"\x1b[2J") and b"host " in terminal.printed
    assert b"stopped" not in terminal.printed and b"Traceback" not in terminal.printed, "the run has not"


def test_of_many_runs_the_latest_are_shown(clips, small_network, tmp_path):
    run_killed(small_config([f"{clips}/no_face.mp4"], tmp_path / "out", small_network))
    found = read_status(open_output(str(tmp_path / "out")))
    found["runs"] = [{**found["runs"][0], "run_id": f"run-{n}"} for n in range(12)]
    text = "\n".join(_fitted(label, parts, None) for label, parts in _lines(found, 10))
    assert (
        "        2 earlier runs: --json has all\nrun     run-2  " in text and "run-11" in text and "run-1 " not in text
    )


def test_a_run_that_was_killed_is_not_shown_as_running(clips, small_network, tmp_path):
    run_killed(small_config([f"{clips}/no_face.mp4"], tmp_path / "out", small_network))
    found = read_status(open_output(str(tmp_path / "out")))
    assert (found["live"], [run["status"] for run in found["runs"]]) == ([], ["running"])
    assert "killed; run it again to resume" in CliRunner().invoke(main, ["status", str(tmp_path / "out")]).output
