"""The parts of commits that are read to answer a query, and the parts that are kept."""

import gc
import time

import duckdb
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from featray.errors import OutputError, UsageError
from featray.store.storage import write_bytes
from featray.tables.commits import Commit, CommittedFile, CommittedVideo, create_commit
from featray.tables.layout import Partition, open_output
from featray.tables.published import read_published, shown_release
from featray.tables.query import connect, run_sql, run_user_sql


def part(name, dataset="d", release="new"):
    return f"videos/dataset={dataset}/release={release}/part-{name}.parquet"


def commit(name, at_us, rewrites=(), **where):
    videos = [CommittedVideo(f"{i:016x}", f"file:///{name}/{i}.mp4", "0" * 64, "ok", 1, 1) for i in range(100)]
    files = [CommittedFile("videos", part(name, **where), 1, 1, "0")]
    return Commit(name, "run", at_us, files, videos, list(rewrites))


@pytest.fixture
def output(tmp_path):
    """Return an output: dataset `d` with an old and a new release, `e` with an older one of its own."""
    output = open_output(str(tmp_path / "out"), create=True)
    for dataset, release, times in (("d", "new", (1, 9)), ("d", "old", (5,)), ("e", "old", (2, 3))):
        for at_us in times:
            one = commit(f"{release}{at_us}", at_us, dataset=dataset, release=release)
            create_commit(Partition(output, dataset, release), one)
    return output


def read(output, release=None):
    found = read_published(output, release)
    return {(one.partition.dataset, one.partition.release): (one.newest_us, one.files("videos")) for one in found}


def test_the_latest_release_of_each_dataset_is_read_or_the_one_that_is_named(output):
    new, old = (
        {("d", "new"): (9, [part("new1"), part("new9")])},
        {("d", "old"): (5, [part("old5", release="old")])},
    )
    other = {("e", "old"): (3, [part("old2", "e", "old"), part("old3", "e", "old")])}
    assert read(output) == new | other
    assert read(output, "old") == old | other
    assert read(output, "all") == new | old | other
    with pytest.raises(UsageError, match="--release none: not in this output; it has: new, old"):
        read(output, "none")


def test_a_release_that_was_published_in_the_future_is_named(output, caplog):
    an_hour_ahead_us = time.time_ns() // 1000 + 3_600_000_000
    create_commit(Partition(output, "e", "old"), commit("ahead", an_hour_ahead_us, dataset="e", release="old"))
    read(output)
    assert caplog.text == "", "the only release of its dataset is the latest by any clock"
    create_commit(Partition(output, "d", "old"), commit("ahead", an_hour_ahead_us, release="old"))
    assert ("d", "old") in read(output)
    assert caplog.text.count("release old counts as the latest, published at 2") == 1


def test_commits_of_releases_that_are_not_asked_for_are_not_read(output, caplog):
    write_bytes(Partition(output, "d", "new").commit("new9"), b"{")
    assert read(output, "old").keys() == {("d", "old"), ("e", "old")}
    with pytest.raises(OutputError, match="damaged commit record"):
        connect(output, "new")
    assert read(output).keys() == {("d", "old"), ("e", "old")}
    assert "release new is left out, although it may be newer" in caplog.text


def test_rewrites_that_are_to_be_carried_out_count(output):
    partition = Partition(output, "d", "new")
    rewritten = Commit("new1", "run", 1, [CommittedFile("videos", part("rewritten"), 1, 1, "0")])
    create_commit(partition, commit("new95", 95, [rewritten]))
    assert read(output, "new") == {("d", "new"): (95, [part("rewritten"), part("new9"), part("new95")])}


def held_videos():
    """Return the ids of this process's videos, including those of other tests."""
    return {id(one) for one in gc.get_objects() if type(one) is CommittedVideo}


def test_of_videos_nothing_is_kept(output):
    before = held_videos()
    found = read_published(output, "all")
    assert found
    assert held_videos() <= before


def test_a_release_without_videos_does_not_hide_one_that_has_some(output):
    """Such as that of a run with a mistyped setting, which was stopped before it had published a video."""
    runs = CommittedFile("runs", "runs/dataset=d/release=stopped/part-1.parquet", 1, 1, "0")
    create_commit(Partition(output, "d", "stopped"), Commit("run-1", "run", 20, [runs], []))
    assert read(output)["d", "new"] == (9, [part("new1"), part("new9")])
    assert shown_release(output, "d") == "new"
    assert ("d", "stopped") not in read(output) and ("d", "stopped") in read(output, "all")


class Refusing(MemoryFileSystem):
    """A store that lists a file and refuses to read it, as one whose credentials expire in the middle does.

    It does not show what s3fs raises then, only that DuckDB passes on the traceback of whatever a store raises.
    """

    protocol = "refusing"

    def info(self, path, **_):
        return {"name": path, "size": 100, "type": "file"}

    def glob(self, path, **_):
        return [path]

    def _open(self, *_, **__):
        raise PermissionError("refused\nby the test")


def test_what_a_store_refuses_to_duckdb_is_no_damage_and_no_traceback():
    connection = duckdb.connect()
    connection.register_filesystem(Refusing())
    sql = "SELECT * FROM read_parquet('refusing://x.parquet')"
    with pytest.raises(
        OutputError, match=r"^published files could not be read \(PermissionError: refused by the test\)$"
    ):
        run_sql(connection, sql)
    with pytest.raises(OutputError, match=r"^query: files could not be read \(PermissionError: refused by the test\)$"):
        run_user_sql(connection, sql)
