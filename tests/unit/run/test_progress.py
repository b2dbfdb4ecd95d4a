"""What a run says while it is on, in a log and on a terminal."""

import io
import time

from rich.console import Console

from featray.graph.workers import Workers
from featray.run import progress as module
from featray.run.progress import Progress
from featray.run.tally import Tally

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
