"""A text in a few kilobytes that stands for gigabytes, once per row: no command unfolds it, and verify tells of it."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from featray.cli import main
from featray.store.location import locate
from featray.tables.layout import list_partitions
from featray.tables.rewrite import open_parquet, unfolded
from featray.upkeep.verify import verify
from tests.fixtures.crowd import Crowd, video_of
from tests.fixtures.tampering import file_of, path_of, sign

ROWS, TEXT_BYTES = 4_000, 1 << 20


def fold(partition, table, column):
    """Repeat the last row of a table's file, with one large text in a column, as a dictionary."""
    file = file_of(partition, table)
    path = path_of(partition, file)
    old = pq.read_table(path)
    rows = pa.concat_tables([old, *[old.slice(old.num_rows - 1)] * ROWS])
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * rows.num_rows, pa.int32()), pa.array(["A" * TEXT_BYTES]))
    rows = rows.set_column(rows.column_names.index(column), column, texts)
    kept = {key: value for key, value in (old.schema.metadata or {}).items() if key != b"ARROW:schema"}
    pq.write_table(
        rows.replace_schema_metadata(kept), path, compression="zstd", store_schema=False, write_statistics=False,
        dictionary_pagesize_limit=1 << 31,
    )  # fmt: skip
    assert path.stat().st_size < 100_000
    sign(partition, file, rows=rows.num_rows)
    return path


@pytest.fixture
def crowd(tmp_path):
    made = Crowd(tmp_path / "out")
    made.publish({"0.mp4": [0], "1.mp4": [1]})
    made.publish({"2.mp4": [0], "3.mp4": [1]})
    return made


def test_it_is_refused_before_it_is_unfolded(crowd):
    path = fold(crowd.partition, "videos", "codec")
    with open_parquet(locate(str(path)), folded=True) as file, pytest.raises(ValueError, match="texts of 4,"):
        unfolded(pa.Table.from_batches(file.iter_batches(ROWS + 10)))


@pytest.mark.parametrize("words", ["erase OUT --video VIDEO", "compact OUT"])
def test_commands_say_so_in_one_line(crowd, words):
    root = crowd.output.root.path
    fold(crowd.partition, "videos", "codec")
    done = CliRunner().invoke(main, words.replace("OUT", root).replace("VIDEO", video_of("0.mp4")).split())
    assert done.exit_code == 1 and "damaged (texts of 4," in done.stderr and done.stderr.count("\n") == 1
    assert [line for line in map(str, verify(crowd.output).problems) if "texts of 4," in line]


@pytest.mark.slow
def test_verify_tells_of_one_in_runs(out, partition):
    """The runs are read before all other files."""
    fold(partition, "runs", "config")
    assert [line for line in map(str, verify(out).problems) if "texts of 4," in line]


def test_texts_as_featray_writes_them_are_read_whole(crowd):
    (partition,) = list_partitions(crowd.output)
    path = path_of(partition, file_of(partition, "faces"))
    with open_parquet(locate(str(path)), folded=True) as file:
        rows = unfolded(pa.Table.from_batches(file.iter_batches()))
    assert rows.equals(pq.read_table(path, partitioning=None)) and rows.schema.equals(pq.read_schema(path))
