"""Videos to process, videos that are done, and videos that are gone, from real commits and a real listing."""

import io
import os
import tarfile
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featray.config import InputConfig
from featray.identity import work_key, work_keys
from featray.run.backlog import Backlog
from featray.sources import tars
from featray.sources.expand import covers
from featray.sources.keyset import KeySet
from featray.sources.listing import list_videos
from featray.sources.passed import PassedOver
from featray.tables.commits import Commit, CommittedVideo, create_commit
from featray.tables.done import _RECORD, Done, read_done
from featray.tables.layout import Partition, open_output

SETTINGS = {"a": {"b": [1, "ü"]}, "weights": "0"}


@pytest.fixture
def partition(tmp_path):
    return Partition(open_output(str(tmp_path / "out"), create=True), "d", "r")


@pytest.fixture
def videos(tmp_path):
    def make(*names):
        for name in names:
            path = tmp_path / "in" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"v")
            os.utime(path, (1, 1))
        return InputConfig(uris=[f"{tmp_path}/in/"])

    return make


def publish(partition, config, shard="s1", status="ok"):
    videos = [
        CommittedVideo(v.video_id, v.uri, work_key(v.content_id, SETTINGS), status, 1, 1) for v in list_videos(config)
    ]
    create_commit(partition, Commit(shard, "run", 1, [], videos))


def backlog(partition, retry_failed=False):
    return Backlog(partition, read_done(partition), SETTINGS, retry_failed=retry_failed)


def names(tasks):
    return [(task.video.uri.rsplit("/", 1)[-1], task.replaces) for task in tasks]


def test_new_and_changed_videos_are_work_and_the_rest_is_counted(partition, videos, tmp_path):
    config = videos("a.mp4", "b.mp4")
    publish(partition, config)
    videos("c.mp4")
    (tmp_path / "in" / "b.mp4").write_bytes(b"other")
    found = backlog(partition)
    assert names(found.select(list_videos(config))) == [("b.mp4", "s1"), ("c.mp4", None)]
    assert found.published == {"ok": 1}


@pytest.mark.parametrize("status", ["failed", "partial"])
def test_what_failed_is_work_only_when_that_is_asked_for(partition, videos, status):
    config = videos("a.mp4")
    publish(partition, config, status=status)
    assert names(backlog(partition).select(list_videos(config))) == []
    assert names(backlog(partition, retry_failed=True).select(list_videos(config))) == [("a.mp4", "s1")]


def test_a_source_that_is_gone_is_told_apart_from_one_that_is_none_of_this_config(partition, videos, tmp_path):
    publish(partition, videos("a.mp4", "b.mp4"))
    (tmp_path / "in").rename(tmp_path / "elsewhere")
    publish(partition, InputConfig(uris=[f"{tmp_path}/elsewhere/b.mp4"]), shard="s2")
    config = videos("a.mp4")
    found = backlog(partition)
    assert names(found.select(list_videos(config))) == []
    deleted = found.deleted(config)
    assert (deleted.count, list(deleted.videos)) == (1, ["s1"])
    assert deleted.examples == [f"file://{tmp_path}/in/b.mp4"]


def test_what_lies_in_a_folder_that_may_not_be_read_is_not_gone(partition, videos, tmp_path):
    publish(partition, videos("a.mp4", "shut/b.mp4", "gone/c.mp4"))
    for name in ("shut", "gone"):
        (tmp_path / "in" / name).rename(tmp_path / name)
    config = videos("a.mp4")
    found = backlog(partition)
    list(found.select(list_videos(config)))
    passed = PassedOver(folders=[f"file://{tmp_path}/in/shut/"])
    assert found.deleted(config, passed).examples == [f"file://{tmp_path}/in/gone/c.mp4"]


def test_landed_parts_of_work_that_is_not_wanted_any_more_go(partition, videos):
    config = videos("a.mp4", "b.mp4", "c.mp4")
    a, b, _ = list_videos(config)
    key = work_key(b.content_id, SETTINGS)
    publish(partition, InputConfig(uris=[a.address]))
    for video, work in ((a, key), (b, "0" * 64), (b, key)):
        os.makedirs(partition.landing(video.video_id, work).path)
    os.makedirs(partition.landing("f" * 16, key).path)  # of another config
    tasks = list(backlog(partition).select(list_videos(config)))
    assert [task.resume for task in tasks] == [True, False]
    left = sorted(os.listdir(partition.landing().path))
    assert left == sorted([partition.landing_name(b.video_id, key), partition.landing_name("f" * 16, key)])


def test_videos_that_were_not_seen_take_eight_bytes_each():
    draw = np.random.default_rng(1)
    records = np.zeros(100_000, _RECORD)
    records["video"] = np.sort(draw.integers(0, 1 << 64, len(records), np.uint64, endpoint=False))
    done = Done(records, [], set())
    names = [f"{number:016x}" for number in records["video"].tolist()]
    for name in names[::10]:
        done.see(done.find(name))
    tracemalloc.start()
    unseen = done.unseen()
    held_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held_bytes < 10 * len(records)
    assert len(unseen) == 90_000 and [name in unseen for name in names[:11]] == [False, *[True] * 9, False]
    assert "0" * 16 not in unseen and "f" * 16 not in unseen
    for name in names:
        done.see(done.find(name))
    assert not done.unseen()


def test_a_video_in_two_commits_is_found(partition, videos):
    config = videos("a.mp4", "b.mp4")
    publish(partition, config, shard="s1")
    publish(partition, InputConfig(uris=[f"{config.uris[0]}a.mp4"]), shard="s2")
    (video, _) = list_videos(config)
    assert read_done(partition).doubles() == {"s1": {video.video_id}}


@pytest.mark.parametrize(
    ("uri", "covered"),
    [("s3://b/x/a.mp4", True), ("s3://b/x/y/a.mkv", True), ("s3://b/x/a.txt", False), ("s3://b/xy/a.mp4", False),
     ("file:///b/x/a.mp4", False), ("s3://b/z/1.mp4", True), ("s3://b/z/y/1.mp4", False), ("s3://b/one.tar", True)],
)  # fmt: skip
def test_what_an_input_covers(uri, covered):
    config = InputConfig(uris=["s3://b/x/", "s3://b/z/*.mp4", "s3://b/one.tar"], storage_options={"anon": True})
    assert covers(config)(uri) is covered


def test_work_keys_are_what_they_were():
    """Keys of published work; if they change, everything is processed again."""
    settings = {"a": {"b": [1, "ü"]}, "weights": "0"}
    expected = "b21c69e359deb211298318d4a3725a3e09bd8f0b7c857781dda86dcf1e6278d8"
    assert work_keys(settings)('etag:"x":ü') == work_key('etag:"x":ü', settings) == expected


def test_a_set_of_keys_knows_what_it_holds():
    draw = np.random.default_rng(1)
    keys = draw.integers(0, 1 << 64, 300_000, np.uint64, endpoint=False).tolist()
    held = KeySet()
    assert all(held.add(key) for key in keys)
    assert not any(held.add(key) for key in keys[::100])
    assert held.add(0) and not held.add(0) and held.add((1 << 64) - 1) and not held.add((1 << 64) - 1)


def test_rows_of_a_manifests_video_that_cannot_be_reached_any_more_stay(partition, videos, tmp_path, caplog):
    videos("a.mp4", "b.mp4")
    manifest = tmp_path / "m.csv"
    manifest.write_text("uri\nin/a.mp4\nin/b.mp4\n")
    config = InputConfig(uris=[str(manifest)])
    publish(partition, config)
    (tmp_path / "in" / "a.mp4").unlink()
    found = backlog(partition)
    assert names(found.select(list_videos(config))) == []
    assert found.published == {"ok": 2}
    assert "in/a.mp4: " in caplog.text and "its rows stay" in caplog.text


def write_shard(path, members=("a.mp4", "b.mp4", "c.mp4")):
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"video": pa.array([name.encode() for name in members], pa.binary())}), path)
        return
    with tarfile.open(path, "w") as archive:
        for name in members:
            info = tarfile.TarInfo(name)
            info.size = 700
            archive.addfile(info, io.BytesIO(b"x" * 700))


def gone(partition, config):
    found = backlog(partition)
    list(found.select(list_videos(config)))
    return found.deleted(config)


@pytest.mark.parametrize("suffix", [".tar", ".parquet"])
@pytest.mark.parametrize("damage", ["no bytes at all", "cut off", "other bytes"])
def test_members_of_a_shard_file_that_is_damaged_are_not_gone(partition, tmp_path, suffix, damage):
    shard = tmp_path / f"shard{suffix}"
    write_shard(shard)
    config = InputConfig(uris=[str(shard)])
    publish(partition, config)
    data = shard.read_bytes()
    shard.write_bytes({"no bytes at all": b"", "cut off": data[: len(data) // 10], "other bytes": b"?" * 2000}[damage])
    assert gone(partition, config).count == 0


def test_members_behind_the_damage_or_beyond_the_limit_are_not_gone(partition, tmp_path, monkeypatch):
    shard = tmp_path / "shard.tar"
    write_shard(shard)
    config = InputConfig(uris=[str(shard)])
    publish(partition, config)
    with shard.open("r+b") as file:
        file.seek(512 + 1024)
        file.write(b"\xff" * 512)
    assert gone(partition, config).count == 0
    write_shard(shard)
    monkeypatch.setattr(tars, "MAX_ENTRIES", 1)
    assert gone(partition, config).count == 0


def test_members_of_a_shard_file_that_was_read_to_its_end_may_be_gone(partition, tmp_path):
    whole, damaged = tmp_path / "whole.tar", tmp_path / "damaged.tar"
    config = InputConfig(uris=[f"{tmp_path}/*.tar"])
    for shard in (whole, damaged):
        write_shard(shard)
    publish(partition, config)
    write_shard(whole, ["b.mp4"])
    damaged.write_bytes(b"")
    deleted = gone(partition, config)
    assert (deleted.count, set(deleted.examples)) == (2, {f"file://{whole}"})
