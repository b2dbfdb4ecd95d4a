"""The progress of a run in a log and on a terminal."""

import io
import re
import time

import pytest
from rich.console import Console

from featray.graph.workers import Workers
from featray.run import progress as module
from featray.run.progress import Progress, phrases
from featray.run.tally import Tally
from featray.tables.holder import Standing

_WORKERS = Workers(1, 1, 1, 1, 1, 1, 0)


def test_a_log_is_told_now_and_then_also_before_anything_has_landed(monkeypatch):
    monkeypatch.setattr(module, "_PLAIN_EVERY_SECONDS", 0.02)
    told, tally = io.StringIO(), Tally()
    with Progress(Console(file=told, width=300)) as progress:
        progress.start(tally, _WORKERS, gpu=False)
        _until(lambda: told.getvalue().count("waiting for the first faces") >= 2)
        assert " frames/s" not in told.getvalue()
        tally.frames = 1
        _until(lambda: " 1 frame " in told.getvalue())
    after = told.getvalue()
    time.sleep(0.1)
    assert told.getvalue() == after, "nothing is said once it has ended"


def test_waiting_is_told_in_seconds_for_ten_minutes(monkeypatch):
    monkeypatch.setattr(module, "_PLAIN_EVERY_SECONDS", 0.01)
    told = io.StringIO()
    with Progress(Console(file=told, width=300)) as progress:
        progress._entered -= 123
        _until(lambda: "waiting for the first faces, 123 s so far" in told.getvalue())
        progress._entered -= 600
        _until(lambda: "waiting for the first faces, 12 min so far" in told.getvalue())


def test_a_new_release_is_announced_with_the_others():
    told = io.StringIO()
    Progress(Console(file=told, width=300)).announce("local", "asked", weights_trained=True, others=["a-1", "b-2"])
    assert "new release (the output has a-1, b-2): all videos are processed again" in told.getvalue()


def test_what_is_quiet_says_nothing(monkeypatch):
    monkeypatch.setattr(module, "_PLAIN_EVERY_SECONDS", 0.01)
    told = io.StringIO()
    with Progress(Console(file=told), quiet=True) as progress:
        progress.start(Tally(), _WORKERS, gpu=False)
        progress.update()
        time.sleep(0.05)
    assert told.getvalue() == ""


def _until(said):
    end = time.monotonic() + 20
    while not said():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("columns", [40, 60, 80, 119, 120])
def test_a_terminal_is_not_told_more_than_fits(columns):
    told = io.StringIO()
    with Progress(Console(file=told, force_terminal=True, width=columns)) as progress:
        tally = Tally()
        progress.start(tally, _WORKERS, gpu=False)
        tally.frames = tally.faces = 123_456
        tally.videos_expected, tally.videos_done, tally.listed_all = 2, 1, True
        tally.bytes_expected, tally.bytes_done = 100, 50
        progress._start -= 100
        progress.update()
    lines = re.split(r"[\r\n]", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", told.getvalue()))
    (live,) = {line.strip() for line in lines if "1/2 videos" in line}
    assert len(live) <= columns and " left" in live and live.endswith("0:00:00") and "…" not in live
    assert ("━" in live) == (columns >= 120)
    assert ("123,456 frames" in live) == (columns >= 80) and ("frames/s" in live) == (columns >= 60)


def test_what_has_landed_whole_is_being_published():
    done = Standing(10.0, 2, 2, listed_all=True, frames=3, faces=3, share=1.0)
    assert phrases(done)[-1] == "all has landed, publishing"
