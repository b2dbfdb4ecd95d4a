from rich.console import Console

from featray.extract.plan import VideoTask
from featray.graph.workers import Workers
from featray.run.progress import Progress
from featray.run.shards import OPEN_SHARDS, SHARD_BYTES, SHARD_VIDEOS, cut_shards, open_shards
from featray.run.tally import Tally
from featray.sources.listing import Video
from featray.tables.layout import Partition, open_output


def tasks(count, *, size_bytes=1, field=lambda i: "x"):
    for i in range(count):
        video = Video(f"{i:016x}", f"s3://b/{i}", f"s3://b/{i}", size_bytes, "c", fields={"site": field(i)})
        yield VideoTask(video, f"key{i}", "")


def test_every_video_is_in_one_shard_and_a_shard_in_one_partition():
    shards = list(cut_shards(tasks(3000, field=lambda i: str(i % 3)), "run"))
    seen = [video.video_id for manifest, _ in shards for video in manifest.videos]
    assert len(seen) == len(set(seen)) == 3000
    for manifest, group in shards:
        assert {video.fields["site"] for video in manifest.videos} == {manifest.fields["site"]}
        assert {task.shard for task in group} == {manifest.shard}
        assert len(group) <= SHARD_VIDEOS


def test_a_shard_ends_when_it_is_large():
    shards = list(cut_shards(tasks(10, size_bytes=SHARD_BYTES // 2), "run"))
    assert [len(group) for _, group in shards] == [2] * 5


def test_work_starts_before_the_listing_ends():
    drawn = []

    def listing():
        for task in tasks(10 * SHARD_VIDEOS):
            drawn.append(task)
            yield task

    next(cut_shards(listing(), "run"))
    assert len(drawn) == SHARD_VIDEOS


def test_interleaved_partitions_do_not_pile_up():
    first, _ = next(cut_shards(tasks(1000, field=str), "run"))
    assert len(first.videos) == 1
    assert len(list(cut_shards(tasks(OPEN_SHARDS, field=str), "run"))) == OPEN_SHARDS


def test_the_name_follows_from_the_videos_their_work_and_the_run():
    def name(count, run="run"):
        return next(cut_shards(tasks(count), run))[0].shard

    assert name(5) == name(5)
    assert name(5) != name(6)
    assert name(5) != name(5, "another run"), "or a run that is late would write over the files of the next"


def test_the_end_of_the_listing_is_known_before_its_last_shard_is_handed_on(tmp_path):
    listed = []

    def listing():
        for task in tasks(SHARD_VIDEOS + 40):
            listed.append(task)
            yield task

    tally = Tally()
    progress = Progress(Console(), quiet=True)
    progress.start(tally, Workers(1, 1, 1, 1, 1, 1, 0), gpu=False)
    pages = open_shards(listing(), Partition(open_output(str(tmp_path), create=True), "d", "r"), "run", tally)
    first = next(pages)
    assert len(listed) == SHARD_VIDEOS
    assert f"0/{SHARD_VIDEOS:,}+ videos" in progress.line() and "time left: unknown" in progress.line()
    seen = [*first, *next(pages)]
    assert len(listed) == SHARD_VIDEOS + 40 and not tally.listed_all
    while len(seen) <= SHARD_VIDEOS:
        seen += next(pages)
    assert tally.listed_all and f"0/{SHARD_VIDEOS + 40:,} videos" in progress.line()
    assert len(seen) + sum(map(len, pages)) == SHARD_VIDEOS + 40


def test_how_much_there_is_in_a_short_list_is_known_at_once(tmp_path):
    tally = Tally()
    next(open_shards(tasks(4), Partition(open_output(str(tmp_path), create=True), "d", "r"), "run", tally))
    assert tally.listed_all and tally.videos_expected == 4
