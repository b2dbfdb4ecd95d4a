"""Frames of a video may have equal times, from the stream or by jitter: their faces stay in the declared order."""

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featray.extract.plan import UnitTask, VideoPlan
from featray.schema import FACE_TABLES
from featray.sources.listing import Video
from featray.tables.commits import ManifestVideo, ShardManifest, read_commits
from featray.tables.landing import write_plan
from featray.tables.layout import Partition, open_output
from featray.tables.lease import UnheldPartition
from featray.tables.ledger import land_unit_part
from featray.tables.publish import PublishSettings, publish_shard
from featray.upkeep.accounting import order_rule
from featray.upkeep.compact import compact_partition
from featray.video.units import Unit
from tests.fixtures.dying_driver import MadeUp

TIMES = [0, 0, 1000]
"""Times of the three made-up frames."""


def with_column(table, name, values):
    place = table.schema.get_field_index(name)
    return table.set_column(place, name, pa.array(values, table.schema.field(name).type))


@pytest.fixture
def partition(tmp_path):
    """Return a partition with two shards of one video each, with two faces on every frame."""
    partition = UnheldPartition(Partition(open_output(str(tmp_path / "out"), create=True), "d", "r"))
    for number in (1, 2):
        video = Video(f"{number:016x}", f"file:///{number}.mp4", f"/{number}.mp4", 1, "c")
        task = UnitTask(video, "f" * 64, "s", Unit(0), 1, 1)
        faces, frames, outcome = MadeUp().result(task)
        faces = with_column(faces.take([0, 0, 1, 1, 2, 2]), "face_index", [0, 1] * 3)
        faces = with_column(faces, "pts_us", [time for time in TIMES for _ in range(2)])
        frames = with_column(with_column(frames, "pts_us", TIMES), "faces", [2] * 3)
        write_plan(partition.landing(video.video_id, task.work_key), VideoPlan(None, (Unit(0),)))
        land_unit_part(partition, task, "run", 0, faces, frames, outcome)
        entry = ManifestVideo(video.video_id, video.uri, task.work_key)
        manifest = ShardManifest(f"s{number}", "run", {}, [entry])
        publish_shard(partition, manifest, PublishSettings("run", FACE_TABLES, ()))
    return partition


@pytest.mark.parametrize("compacted", [False, True])
def test_rows_are_in_the_order_that_their_file_declares_and_verify_asks_for(partition, compacted):
    if compacted:
        compact_partition(partition)
    found = [file for commit in read_commits(partition) for file in commit.files if file.table in FACE_TABLES]
    assert len(found) == (3 if compacted else 6)
    for file in found:
        path = partition.output.root.child(file.path).path
        metadata, rows = pq.read_metadata(path), pq.read_table(path).to_pylist()
        keys = [metadata.schema.names[column.column_index] for column in metadata.row_group(0).sorting_columns]
        assert rows == sorted(rows, key=lambda row: [row[key] for key in keys])
        assert [row["frame_index"] for row in rows] == [0, 0, 1, 1, 2, 2] * (2 if compacted else 1)
        database = duckdb.connect()
        database.execute(f"CREATE VIEW one_file AS SELECT * FROM read_parquet('{path}', file_row_number=true)")
        assert database.execute(order_rule(file.table)).fetchall() == []
        assert {"video_id", "pts_us", "face_index"} <= set(keys)
