"""The listing feeds a graph that is running: it does not run away from it, and nothing that ends it goes unseen."""

import pytest

from featray.config import ClusterConfig
from featray.errors import RunError
from featray.runner import run
from featray.sources.listing import list_videos
from featray.tally import Tally
from tests.integration.conftest import make_config, silent

VIDEOS = 120
_PAGE, _AHEAD = 8, 16


@pytest.fixture
def config(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(VIDEOS):
        (folder / f"{number:03d}.mp4").write_bytes(b"no video")
    return make_config([f"{folder}/*.mp4"], tmp_path / "out", cluster={"max_failed_fraction": 1})


@pytest.fixture
def small_pages(monkeypatch):
    """What is listed, opened and fed at a time, as if the videos were a hundred times as many."""
    monkeypatch.setattr("featray.shards._PAGE", _PAGE)
    monkeypatch.setattr("featray.shards.SHARD_VIDEOS", _PAGE)
    monkeypatch.setattr("featray.feed._LEAST_AHEAD", _AHEAD)
    monkeypatch.setattr("featray.feed._AHEAD_OF_EACH", 1)


def test_the_listing_keeps_a_bounded_way_ahead_of_the_work(cluster, config, small_pages, monkeypatch):
    listed, leads, take = [], [], Tally.take

    def listing(settings):
        for video in list_videos(settings):
            listed.append(video)
            yield video

    def taken(tally, receipt):
        leads.append(len(listed) - tally.videos_done)
        return take(tally, receipt)

    monkeypatch.setattr("featray.runner.list_videos", listing)
    monkeypatch.setattr(Tally, "take", taken)
    assert run(config, silent()).videos["failed"] == VIDEOS
    # Beside those that wait: pages that are listed, opened, fed and planned, and what workers are at.
    assert max(leads) <= _AHEAD + 6 * _PAGE < VIDEOS, leads


def test_a_run_in_which_all_fails_ends_and_says_with_what(cluster, config):
    strict = config.model_copy(update={"cluster": ClusterConfig()})
    with pytest.raises(
        RunError, match=r"(\d+) of \1 videos failed, more than .* \(0\.05\), most often with not_a_video \("
    ):
        run(strict, silent())


@pytest.mark.parametrize("videos", [1, 3 * _PAGE])
def test_whatever_ends_the_listing_ends_the_run(cluster, config, small_pages, monkeypatch, videos):
    def listing(settings):
        for number, video in enumerate(list_videos(settings)):
            if number == videos:
                raise ZeroDivisionError("of the listing")
            yield video

    monkeypatch.setattr("featray.runner.list_videos", listing)
    with pytest.raises(ZeroDivisionError, match="of the listing"):
        run(config, silent())
