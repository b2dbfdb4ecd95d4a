"""Compaction changes only files, and later steps work on its result."""

import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from featray.schema import TABLES
from featray.tables.commits import ManifestVideo, ShardManifest, close_shard, read_commits, write_manifest
from featray.tables.layout import list_partitions, open_output
from featray.upkeep import compact as compact_module
from featray.upkeep.compact import compact_partition
from featray.upkeep.erase import erase
from featray.upkeep.verify import verify
from tests.fixtures.outputs import ids, rows
from tests.fixtures.published import SPARSE
from tests.fixtures.runs import run_here, small_config

pytestmark = pytest.mark.slow


def contents(out):
    return {table: rows(out.root.path, table) for table in TABLES}


def test_rows_are_the_same_in_fewer_files(out, partition):
    before, videos = contents(out), {v for c in read_commits(partition) for v in c.videos}
    done = compact_partition(partition)
    assert (done.files_before, done.files, done.commits) == (17, 9, 2)
    assert contents(out) == before
    assert {v for c in read_commits(partition) for v in c.videos} == videos
    report = verify(out)
    assert ([p.line() for p in report.problems], report.unfinished, report.files) == ([], [], 9)
    assert len(list(Path(out.root.path).rglob("*.parquet"))) == 9
    (faces,) = Path(out.root.path, "faces").rglob("*.parquet")
    found = pq.read_table(faces, columns=["video_id", "pts_us"]).to_pylist()
    assert found == sorted(found, key=lambda row: (row["video_id"], row["pts_us"]))
    assert compact_partition(partition).files == 9, "twice is once"


def test_rows_stream_in_small_batches(out, partition, monkeypatch):
    before = contents(out)
    monkeypatch.setattr(compact_module, "_BATCH_BYTES", 1)
    compact_partition(partition)
    assert contents(out) == before
    assert verify(out).problems == []


def test_large_files_are_taken_over_as_they_are(out, partition, monkeypatch):
    before = contents(out)
    meshes = {p.name for p in Path(partition.folder("mesh").path).iterdir()}
    monkeypatch.setattr(compact_module, "LARGE_BYTES", 50_000)
    compact_partition(partition)
    assert {p.name for p in Path(partition.folder("mesh").path).iterdir()} == meshes
    assert len(list(Path(partition.folder("frames").path).iterdir())) == 1
    assert contents(out) == before
    assert verify(out).problems == []


def test_groups_are_bounded(out, partition, monkeypatch):
    monkeypatch.setattr(compact_module, "VIDEOS_A_COMMIT", 4)
    assert compact_partition(partition).files == 16, "only the runs were merged"
    assert verify(out).problems == []


def test_a_compacted_video_is_replaced_erased_and_not_done_again(inputs, small_network, tmp_path):
    mine = shutil.copytree(inputs, tmp_path / "in")
    config = small_config([f"{mine}/*.mp4"], tmp_path / "out", small_network, decode=SPARSE)
    run_here(small_config([mine / "anna.mp4"], tmp_path / "out", small_network, decode=SPARSE))
    run_here(config)
    out = open_output(str(tmp_path / "out"))
    (partition,) = list_partitions(out)
    compact_partition(partition)
    assert run_here(config).status == "nothing_to_do"
    shutil.copy(mine / "anna.mp4", mine / "notes.mp4")
    os.utime(mine / "notes.mp4")
    assert run_here(config).videos["ok"] == 1
    assert len([row for row in rows(out.root.path, "videos") if row["uri"].endswith("notes.mp4")]) == 1
    assert verify(out).problems == []
    erase(out, ids(out)["anna"])
    compact_partition(partition)
    report = verify(out)
    assert (report.problems, report.videos) == ([], 4)


def test_path_fields_stay_in_their_folders(inputs, small_network, tmp_path):
    for day in ("day one", "day two"):
        (tmp_path / day).mkdir()
    for name in ("day one/a.mp4", "day one/b.mp4", "day two/c.mp4"):
        shutil.copy(inputs / "empty.mp4", tmp_path / name)
        fields = {"uris": [str(tmp_path / name)], "path_fields": "{day}/{name}"}
        run_here(small_config([], tmp_path / "out", small_network, input=fields, decode=SPARSE))
    out = open_output(str(tmp_path / "out"))
    (partition,) = list_partitions(out)
    before = contents(out)
    compact_partition(partition)
    assert contents(out) == before
    assert verify(out).problems == []
    videos = sorted(str(p.parent.name) for p in Path(out.root.path, "videos").rglob("*.parquet"))
    assert videos == ["day=day one", "day=day two"]


def test_not_while_a_shard_is_open(out, partition):
    write_manifest(partition, ShardManifest("abc", "run", {}, [ManifestVideo("0" * 16, "u", "f" * 64)]))
    done = compact_partition(partition)
    assert done.refused and done.files == 17
    close_shard(partition, "abc")
    assert compact_partition(partition).refused is None
