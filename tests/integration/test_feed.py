"""The listing feeds a running graph: it keeps a bounded lead, and every error that ends it is reported."""

import gc
import os
import signal
import time

import pytest
from ray.data import DataContext
from ray.data._internal.execution.operators.map_operator import MapOperator

from featray.graph.ray_internals import _Running
from featray.run.runner import run
from featray.run.tally import Tally
from featray.sources.listing import list_videos
from tests.fixtures.faults import processes
from tests.fixtures.runs import make_config, silent

VIDEOS = 36
_PAGE, _AHEAD = 4, 8


@pytest.fixture
def config(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(VIDEOS):
        (folder / f"{number:03d}.mp4").write_bytes(b"no video")
    return make_config([f"{folder}/*.mp4"], tmp_path / "out", cluster={"max_failed_fraction": 1})


@pytest.fixture
def small_pages(monkeypatch):
    """Reduce the number of videos listed, opened and fed at a time, as if there were a hundred times as many videos."""
    monkeypatch.setattr("featray.run.shards._PAGE", _PAGE)
    monkeypatch.setattr("featray.run.shards.SHARD_VIDEOS", _PAGE)
    monkeypatch.setattr("featray.graph.feed._LEAST_AHEAD", _AHEAD)
    monkeypatch.setattr("featray.graph.feed._AHEAD_OF_EACH", 1)


def test_the_listing_keeps_ahead_may_take_its_time_and_ends_the_run_and_its_reader_may_die(
    cluster, config, small_pages, monkeypatch, caplog
):
    """Test four properties in one run, since each run starts a graph, for half a minute of CPU.

    The listing keeps a bounded lead over the work. It pauses, which Ray Data would take for the end of an idle
    stream. The process that reads the feed dies with SIGKILL, when most videos are not listed yet: nothing is lost,
    nothing waits forever, and nothing hangs when Python collects the remains of the first stream. At last the
    listing fails: the videos that it gave are processed, and the run ends with the error.
    """
    listed, leads, done, killed, take = [], [], [], [], Tally.take

    def listing(settings, passed=None):
        for video in list_videos(settings):
            listed.append(video)
            if len(listed) == VIDEOS:
                time.sleep(5)
            yield video
        raise ZeroDivisionError("of the listing")

    def taken(tally, receipt):
        leads.append(len(listed) - tally.videos_done)
        if tally.videos_done == 2 * _PAGE and not killed:
            killed.extend(processes(cluster, b"ray::ReadVideoFeed"))
            os.kill(killed[0], signal.SIGKILL)
        answer = take(tally, receipt)
        done.append(tally.videos_done)
        return answer

    monkeypatch.setattr("featray.run.runner.list_videos", listing)
    monkeypatch.setattr(Tally, "take", taken)
    monkeypatch.setattr(DataContext.get_current(), "execution_no_progress_timeout_s", 1)
    gc.disable()
    try:
        with pytest.raises(ZeroDivisionError, match="of the listing"):
            run(config, silent())
    finally:
        gc.enable()
    assert done[-1] == VIDEOS
    assert len(killed) == 1
    assert "the reader of the list of videos died with its process; restarting the stream" in caplog.text
    operators = [operator for operator in _Running.executor._topology if isinstance(operator, MapOperator)]
    kept = sum(len(operator._output_blocks_stats) for operator in operators)
    assert operators and kept < VIDEOS, "the driver's memory stays flat: each of these videos is a block or more"
    # Besides waiting videos: pages that are listed, opened, fed and planned, and videos that workers process.
    assert max(leads) <= _AHEAD + 6 * _PAGE < VIDEOS, leads


@pytest.mark.long
def test_a_listing_that_ends_at_once_ends_the_run(cluster, config, small_pages, monkeypatch):
    def listing(settings, passed=None):
        yield next(list_videos(settings))
        raise ZeroDivisionError("of the listing")

    monkeypatch.setattr("featray.run.runner.list_videos", listing)
    with pytest.raises(ZeroDivisionError, match="of the listing"):
        run(config, silent())
