"""Statistics in the footers of tables' files, by which readers skip row groups, are compared with the values."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featray.tables.query import connect, run_sql
from featray.upkeep.footers import wrong_statistics
from featray.upkeep.verify import verify
from tests.fixtures.tampering import file_of, path_of, sign

SCHEMA = pa.schema([("video_id", pa.string()), ("AU12", pa.float32()), ("at", pa.timestamp("us", "UTC"))])


def rows(names, values, times):
    return pa.table([pa.array(names), pa.array(values, pa.float32()), pa.array(times, SCHEMA.field("at").type)], SCHEMA)


def disguise(path, told: pa.Table, true: pa.Table) -> None:
    """Write `true`, with the footer of `told`, whose pages have the same sizes."""
    plain = {"use_dictionary": False, "compression": "none", "data_page_version": "1.0"}
    pq.write_table(told, path, **plain)
    footer = path.read_bytes()
    pq.write_table(true, path, **plain)
    data = path.read_bytes()
    start = [len(whole) - 8 - int.from_bytes(whole[-8:-4], "little") for whole in (footer, data)]
    assert start[0] == start[1], "the pages differ in size"
    path.write_bytes(data[: start[1]] + footer[start[0] :])


TRUE = (["a", "b"], [0.1, 0.9], [1, 2**62])


@pytest.mark.parametrize(
    ("told", "wrong"),
    [
        (TRUE, []),
        ((["a", "b"], [0.1, 0.8], [1, 2**62]), ["AU12"]),
        ((["b", "b"], [0.1, 0.9], [1, 2**62]), ["video_id"]),
        ((["a", "b"], [0.1, 0.9], [1, 2]), ["at"]),
    ],
)
def test_values_beyond_the_statistics_are_found(tmp_path, told, wrong):
    disguise(tmp_path / "a.parquet", rows(*told), rows(*TRUE))
    with pq.ParquetFile(tmp_path / "a.parquet") as file:
        assert wrong_statistics(file, SCHEMA) == wrong


def test_odd_values_contradict_nothing(tmp_path):
    """NaN is in no statistics, and a column of nulls has none."""
    table = rows(["a", None], [float("nan"), 1.0], [None, None])
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=1)
    with pq.ParquetFile(tmp_path / "a.parquet") as file:
        assert wrong_statistics(file, SCHEMA) == []


def test_rows_that_a_query_misses_are_a_problem(out, partition):
    file = file_of(partition, "faces")
    path = path_of(partition, file)
    true = pq.read_table(path, partitioning=None)
    zeros = pa.array([0.0] * true.num_rows, pa.float32())
    told = true.set_column(true.column_names.index("AU12"), true.schema.field("AU12"), zeros)
    disguise(path, told, true)
    sign(partition, file)
    missed = run_sql(connect(out), "SELECT count(*) AS n FROM faces WHERE AU12 > 0.01").read_all()
    assert missed["n"].to_pylist() != [sum(value > 0.01 for value in true["AU12"].to_pylist())]
    (problem,) = [one for one in verify(out).problems if "statistics" in one.text]
    assert problem.file == file.path and problem.text.endswith(": AU12")
