from dataclasses import replace
from itertools import permutations

import pytest

from featray.extract.plan import VideoTask
from featray.graph.rows import Receipt
from featray.run.shards import unfinished_first
from featray.run.tally import Tally
from featray.sources.listing import Video
from featray.tables.commits import ShardManifest

MANIFEST = ShardManifest("s", "run", {}, [])


def task(name):
    video = Video(video_id=name, uri=name, address=name, size_bytes=100, content_id=name)
    return VideoTask(video, "key", "s")


def receipt(video, unit, part, *, last=False, **more):
    return Receipt("s", video, unit, more.pop("units", 2), 1, part, last, **more)


def tally_of(*names):
    tally = Tally()
    tally.expect(MANIFEST, [task(name) for name in names])
    return tally


def test_a_shard_is_complete_when_every_part_has_come_in_any_order():
    parts = [
        receipt("a", 0, 0),
        receipt("a", 0, 1, last=True),
        receipt("a", 1, 0, last=True),
        receipt("b", 0, 0, last=True, units=1),
    ]
    for order in permutations(parts):
        tally = tally_of("a", "b")
        answers = [tally.take(one) for one in order]
        assert answers == [None, None, None, MANIFEST]
        assert tally.missing() == []
        assert (tally.videos_done, tally.bytes_done) == (2, 200.0)


def test_a_missing_part_keeps_the_video_open():
    tally = tally_of("a")
    assert tally.take(receipt("a", 0, 1, last=True, units=1)) is None
    (again,) = tally.missing()
    assert (again.attempt, again.resume) == (2, True)


def test_parts_of_an_open_unit_count_towards_the_bytes_done_once():
    tally = tally_of("a")
    for part, done in ((0, 25), (0, 25), (1, 50), (2, 75), (3, 90)):  # the last part is still missing
        tally.take(receipt("a", 0, part, units=1, frames=128))
        assert tally.bytes_done == pytest.approx(done, abs=0.2)
    tally.take(receipt("a", 0, 4, last=True, units=1))
    assert tally.bytes_done == pytest.approx(100)


def test_a_part_that_comes_twice_changes_nothing():
    tally = tally_of("a")
    whole = receipt("a", 0, 0, last=True, units=1)
    assert tally.take(whole) == MANIFEST
    assert tally.take(whole) is None
    assert tally.videos_done == 1


def test_a_unit_that_is_to_be_tried_again_is_missing():
    tally = tally_of("a")
    assert tally.take(receipt("a", 0, 0, last=True, units=1, retry=True)) is None
    assert len(tally.missing()) == 1


def test_what_landed_before_counts_as_done_but_not_as_work():
    tally = tally_of("a")
    assert tally.take(receipt("a", 0, 2, last=True, units=1, resumed=True, faces=5)) == MANIFEST
    assert tally.faces == 0


def test_failed_videos_are_counted_once():
    tally = tally_of("a")
    tally.take(receipt("a", 0, 0, last=True, failed=True))
    tally.take(receipt("a", 1, 0, last=True, failed=True))
    assert tally.videos_failed == 1


def test_the_failure_that_most_units_have_is_known_in_words():
    tally = tally_of("a", "b", "c")
    assert tally.common_failure()[0] == "lost", "whatever is missing"
    for video, code, message in (("a", "timeout", "slow"), ("b", "not_a_video", "text"), ("c", "not_a_video", "more")):
        tally.take(receipt(video, 0, 0, last=True, units=1, failed=True, error_code=code, problem=message))
    assert tally.common_failure() == ("not_a_video", "text", ["b", "c"])


def test_videos_in_trouble_are_those_that_are_to_be_tried_again_and_are_not_done():
    tally = tally_of("a", "b", "c")
    for unit in (0, 1):
        tally.take(receipt("a", unit, 0, retry=True, error_code="inference_failed", problem="no memory"))
    tally.take(receipt("b", 0, 0, last=True, retry=True, error_code="timeout", problem="slow"))
    assert (tally.videos_troubled, tally.videos_done) == (2, 0)
    assert tally.common_failure() == ("inference_failed", "no memory", ["a"])
    assert tally.problems() == {("a", 0): "no memory", ("a", 1): "no memory"}, "the network's alone"
    tally.take(receipt("b", 0, 0, last=True, units=1))
    assert (tally.videos_troubled, tally.videos_done) == (1, 1)
    tally.again(tally.missing())
    assert tally.videos_troubled == 0


def test_what_is_interrupted_goes_on_in_the_same_attempt():
    tally = tally_of("a", "b")
    tally.take(receipt("a", 0, 0, last=True, units=1))
    tally.take(receipt("b", 0, 0, last=True))
    (rest,) = tally.unfinished()
    assert (rest.video.video_id, rest.attempt, rest.resume) == ("b", 1, True)
    assert tally.take(receipt("b", 1, 0, last=True)) is None, "what had come before is fed, and comes, again"
    assert tally.take(receipt("b", 0, 0, last=True, resumed=True)) == MANIFEST


def test_after_an_interruption_each_video_is_fed_once():
    tally, shard = Tally(), ShardManifest("s", "run", {}, [])
    tasks = [task(f"{i:02d}") for i in range(40)]
    tally.expect(shard, tasks)
    later = [replace(task("later"), shard="t")]
    tally.take(receipt("00", 0, 0, last=True, units=1))
    # 16 were fed before the interruption; the listing continues with the rest of the open shard.
    pages = list(unfinished_first(tally, iter([tasks[16:32], tasks[32:], later])))
    assert [one.video.video_id for page in pages for one in page] == [f"{i:02d}" for i in range(1, 40)] + ["later"]


def test_what_the_network_failed_on_is_known_until_it_is_tried_again():
    tally = tally_of("a")
    tally.take(receipt("a", 1, 0, retry=True, error_code="inference_failed", problem="out of memory"))
    assert tally.problems() == {("a", 1): "out of memory"}
    assert [task.attempt for task in tally.given_up()] == [1]
    tally.again(tally.missing())
    assert tally.problems() == {}
    assert [task.attempt for task in tally.given_up()] == [2]


def take(tally, codes):
    for name, code in codes.items():
        tally.take(receipt(name, 0, 0, last=True, units=1, failed=bool(code), error_code=code))


def test_a_run_ends_when_all_fail_or_many_for_what_is_not_in_them():
    names = [f"{i:03d}" for i in range(100)]
    for codes, ends in (
        (["not_a_video"] * 19, None),
        (["not_a_video"] * 20, (20, 20, "not_a_video")),
        ([""] + ["not_a_video"] * 40, None),
        ([""] + ["bad_manifest_row"] * 40 + ["fetch_failed"] * 5, None),
        ([""] * 17 + ["fetch_failed"] * 3, None),
        (["", "not_a_video", "not_a_video"] + ["fetch_failed"] * 19, (19, 100, "fetch_failed")),
        ([""] * 94 + ["timeout"] * 6, (6, 100, "timeout")),
        ([""] * 95 + ["timeout"] * 5, None),
    ):
        tally = tally_of(*names)
        take(tally, dict(zip(names, codes, strict=False)))
        found = tally.too_many_failed(0.05)
        assert ends == (found and (found.failed, found.of, found.common.code)), codes
    assert tally.too_many_failed(0.05, incomplete=1).failed == 6
    assert tally.too_many_failed(1, incomplete=100) is None
