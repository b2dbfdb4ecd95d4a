import hashlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featray.schema import SORT_KEYS, TABLES, arrow_schema
from featray.store.location import locate
from featray.tables import writer as writer_module
from featray.tables.layout import Output, Partition
from featray.tables.lease import UnheldPartition
from featray.tables.writer import TableWriter
from tests.fixtures.handmade import frames


@pytest.fixture
def make(tmp_path):
    def build(table, **more):
        root = locate(str(tmp_path / "out"))
        scratch = tmp_path / "scratch"
        scratch.mkdir(exist_ok=True)
        options = {"stem": "part-s", "footer": {"release": "r"}, "path_fields": (), **more}
        partition = UnheldPartition(Partition(Output(root), "d", "r"))
        return TableWriter(table, partition, folder=root.child(table), scratch=str(scratch), **options)

    return build


def test_a_file_is_as_promised(make, tmp_path):
    writer = make("frames")
    writer.write(frames(1000))
    (file,) = writer.close()
    path = tmp_path / "out" / file.path
    assert file.path == "frames/part-s-000.parquet"
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (file.rows, file.size_bytes) == (1000, path.stat().st_size)
    metadata = pq.read_metadata(path)
    group = metadata.row_group(0)
    names = [metadata.schema.column(s.column_index).name for s in group.sorting_columns]
    assert tuple(names) == SORT_KEYS["frames"]
    column = group.column(metadata.schema.names.index("video_id"))
    assert column.compression == "ZSTD" and column.statistics.has_min_max and column.has_column_index
    assert metadata.metadata[b"featray.release"] == b"r"
    comment = pq.read_schema(path).field("pts_us").metadata[b"comment"]
    assert comment.startswith(b"presentation time from the stream, never index / rate") and comment.endswith(
        b" [\xc2\xb5s]"
    )


def test_rows_stream_into_groups_and_files(make, tmp_path, monkeypatch):
    monkeypatch.setitem(writer_module.ROWS_A_GROUP, "frames", 100)
    monkeypatch.setattr(writer_module, "FILE_BYTES", 1)
    writer = make("frames")
    for start in range(0, 1000, 70):
        writer.write(frames(min(70, 1000 - start), start))
    files = writer.close()
    assert [file.rows for file in files] == [100] * 10
    indices = [i for file in files for i in pq.read_table(tmp_path / "out" / file.path)["frame_index"].to_pylist()]
    assert indices == list(range(1000))


def test_row_groups_are_as_long_as_engines_like(make, tmp_path):
    writer = make("frames")
    for start in range(0, 250_000, 50_000):
        writer.write(frames(50_000, start))
    (file,) = writer.close()
    metadata = pq.read_metadata(tmp_path / "out" / file.path)
    assert [metadata.row_group(i).num_rows for i in range(3)] == [122_880, 122_880, 4_240]


def test_no_row_no_file(make, tmp_path):
    writer = make("errors")
    writer.write_rows([])
    assert writer.close() == []
    assert not (tmp_path / "out").exists()


def test_path_fields_are_columns(make, tmp_path):
    writer = make("frames", path_fields=("site",))
    writer.write(frames(3).append_column("site", pa.array(["berlin"] * 3)))
    (file,) = writer.close()
    assert pq.read_table(tmp_path / "out" / file.path, partitioning=None)["site"].to_pylist() == ["berlin"] * 3


def test_an_abandoned_file_is_gone(make, tmp_path):
    writer = make("frames")
    writer.write(frames(200_000))
    writer.abandon()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_schemas_use_only_types_that_duckdb_and_spark_read():
    allowed = {
        pa.string(), pa.bool_(), pa.int32(), pa.int64(), pa.float32(), pa.float64(),
        pa.timestamp("us", tz="UTC"), pa.list_(pa.float32()),
    }  # fmt: skip
    for table, columns in TABLES.items():
        schema = arrow_schema(table, ("site",))
        # Spark scans wider tables row by row; `tracks` has few rows, and statistics packages want them wide.
        assert len(schema) < 100 or table == "tracks"
        assert {field.type for field in schema} <= allowed
        assert all(field.metadata[b"comment"] for field in schema)
        assert len({column.name for column in columns}) == len(columns)
        assert set(SORT_KEYS[table]) <= set(schema.names)
