"""A run whose lease was taken over without its knowledge: in every case, a video is published once."""

from dataclasses import replace

import pytest

from featray.errors import LeaseError, RunError
from featray.extract.plan import UnitTask, VideoPlan
from featray.sources.listing import Video
from featray.store.storage import list_files
from featray.tables import publish
from featray.tables.commits import (
    Commit,
    CommittedVideo,
    ManifestVideo,
    ShardManifest,
    close_shard,
    create_commit,
    read_commit,
    read_commits,
    write_manifest,
)
from featray.tables.landing import write_plan
from featray.tables.layout import Partition, open_output
from featray.tables.lease import hold
from featray.tables.ledger import land_unit_part
from featray.tables.publish import PublishSettings, publish_shard
from featray.tables.tombstones import Erasure, note_erasure
from featray.upkeep.recover import recover
from featray.video.units import Unit
from tests.fixtures.dying_driver import MadeUp


@pytest.fixture
def partition(tmp_path):
    return Partition(open_output(str(tmp_path / "out"), create=True), "d", "r")


@pytest.fixture
def shard(partition):
    """Return a function that lands a video, opens its shard under a name, and returns the manifest."""
    video = Video("0" * 16, "file:///v.mp4", "/v.mp4", 1, "c")
    task = UnitTask(video, "f" * 64, "s", Unit(0), 1, 1)
    write_plan(partition.landing(video.video_id, task.work_key), VideoPlan(None, (Unit(0),)))
    faces, frames, outcome = MadeUp().result(task)

    def opened(name):
        land_unit_part(partition, task, "run", 0, faces, frames, outcome)
        entry = ManifestVideo(video.video_id, video.uri, task.work_key)
        manifest = ShardManifest(name, "run", {}, [entry])
        write_manifest(partition, manifest)
        return manifest

    return opened


SETTINGS = PublishSettings("run", ("faces",), ())


def taken_over(partition, lease):
    """Take the lease for a second run although the first is alive, as after a long pause, and recover the partition."""
    with lease:
        pass
    second = hold(partition, "second")
    recover(second.partition, "second")
    return second


def files(partition):
    return [path for path in list_files(partition.output.root) if path.endswith(".parquet")]


def test_it_is_stopped_before_it_writes_anything(partition, shard):
    late, manifest = hold(partition, "first"), shard("s1")
    taken_over(partition, late)
    with pytest.raises(LeaseError, match="cancelled by run second"):
        publish_shard(late.partition, manifest, SETTINGS)
    assert files(partition) == []


@pytest.mark.parametrize("step", ["_rewrites", "create_commit"])
def test_it_is_stopped_when_it_is_taken_over_on_its_way(partition, shard, monkeypatch, step):
    """The takeover happens before the last check of the lease, or immediately after it."""
    late, manifest = hold(partition, "first"), shard("s1")
    real = getattr(publish, step)

    def paused(*args):
        taken_over(partition, late)
        return real(*args)

    monkeypatch.setattr(publish, step, paused)
    with pytest.raises(LeaseError):
        publish_shard(late.partition, manifest, SETTINGS)
    assert read_commit(partition, "s1").cancelled
    monkeypatch.undo()
    second = hold_again(partition)
    publish_shard(second.partition, shard("s2"), SETTINGS)
    assert [len(commit.videos) for commit in read_commits(partition)] == [0, 1]
    named = {file.path for commit in read_commits(partition) for file in commit.files}
    recover(second.partition, "third")
    root = partition.output.root
    assert set(files(partition)) == {root.child(path).path for path in named}


def hold_again(partition):
    partition.output.root.fs.rm(partition.lease().path, recursive=True)
    return hold(partition, "second")


def test_one_that_committed_before_is_respected(partition, shard, monkeypatch):
    late, manifest = hold(partition, "first"), shard("s1")
    monkeypatch.setattr(publish, "carry_out", lambda partition, commit: taken_over(partition, late) and commit)
    with pytest.raises(LeaseError, match="was taken over"):
        publish_shard(late.partition, manifest, SETTINGS)  # the remaining cleanup belongs to the other run by now
    assert [len(commit.videos) for commit in read_commits(partition)] == [1]
    assert list_files(partition.landing()) == []


def older(partition, names):
    """Write commits of an older run that contain the video, one under each name."""
    for name in names:
        create_commit(partition, Commit(name, "run", 1, [], [CommittedVideo("0" * 16, "u", "e" * 64, "ok", 1, 1)]))


def replacing(manifest, name):
    return replace(manifest, videos=[replace(video, replaces=name) for video in manifest.videos])


def test_what_is_to_be_replaced_and_stands_elsewhere_is_not_published_twice(partition, shard):
    lease = hold(partition, "run")
    older(partition, ["moved"])
    manifest = replacing(shard("s1"), "gone")
    with pytest.raises(RunError, match="commit gone no longer has the videos"):
        publish_shard(lease.partition, manifest, SETTINGS)
    assert [commit.name for commit in read_commits(partition) if commit.videos] == ["moved"]
    done = recover(take_again(lease).partition, "next")
    assert done.shard(done.find("0" * 16)) == "moved"
    assert len(list_files(partition.landing())) == 2, "what has landed is used by the next run"


@pytest.mark.parametrize("step", ["merge_video", "_rewrites", "create_commit"])
def test_another_try_of_the_same_task_that_is_faster(partition, shard, monkeypatch, step):
    """The other attempt has published the shard, deleted the replaced commit, and deleted the landed parts."""
    lease = hold(partition, "run")
    older(partition, ["old"])
    manifest = replacing(shard("s1"), "old")
    real, once = getattr(publish, step), replace(SETTINGS, published_at_us=1)

    def overtaken(*args, **kwargs):
        monkeypatch.undo()
        publish_shard(lease.partition, manifest, once)
        return real(*args, **kwargs)

    monkeypatch.setattr(publish, step, overtaken)
    commit = publish_shard(lease.partition, manifest, once)
    assert [(commit.name, len(commit.videos)) for commit in read_commits(partition)] == [("s1", 1)]
    assert commit == read_commit(partition, "s1")
    assert set(files(partition)) == {partition.output.root.child(file.path).path for file in commit.files}
    assert list_files(partition.landing()) == list_files(partition.shard()) == []


def take_again(lease):
    with lease:
        pass
    return hold(lease.partition, "next")


def test_a_part_that_lands_after_its_shard_was_published_is_cleared_by_the_next_run(partition, shard):
    """It is cleared whether or not its video is still listed; parts of unpublished work are kept."""
    lease = hold(partition, "run")
    publish_shard(lease.partition, shard("s1"), SETTINGS)
    assert list_files(partition.landing()) == []
    shard("late")
    close_shard(partition, "late")
    other = partition.landing("0" * 16, "e" * 64), partition.landing("1" * 16, "f" * 64)
    for folder in other:
        write_plan(folder, VideoPlan(None, (Unit(0),)))
    assert len(list_files(partition.landing())) == 3
    recover(take_again(lease).partition, "next")
    assert list_files(partition.landing()) == [folder.child("plan.json").path for folder in other]


def test_what_lands_of_an_erased_video_is_cleared_by_the_next_run(partition, shard):
    lease = hold(partition, "run")
    note_erasure(partition.output, Erasure("e", "0" * 16, None, None, 1, done=True))
    shard("late")
    close_shard(partition, "late")
    recover(lease.partition, "next")
    assert list_files(partition.landing()) == []


@pytest.mark.parametrize("status", ["partial", "failed"])
def test_a_second_try_at_what_failed_keeps_what_it_has_landed(partition, shard, status):
    lease = hold(partition, "run")
    create_commit(partition, Commit("s0", "run", 1, [], [CommittedVideo("0" * 16, "u", "f" * 64, status, 1, 1)]))
    shard("s1")
    recover(lease.partition, "next")
    assert len(list_files(partition.landing())) == 2
