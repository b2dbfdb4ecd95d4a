"""Footers of Parquet files, also damaged ones."""

import io
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featray.store.parquet_footer import DELTA_BYTE_ARRAY, read_chunks

ROWS = 1000
COLUMNS = {
    "text": pa.array([f"name-{i}" if i % 3 else None for i in range(ROWS)]),
    "number": pa.array(np.arange(ROWS) - 500, pa.int64()),
    "real": pa.array(np.linspace(-1, 1, ROWS), pa.float32()),
    "flag": pa.array([i % 2 == 0 for i in range(ROWS)]),
    "at": pa.array(np.arange(ROWS), pa.timestamp("us", "UTC")),
    "list": pa.array([[1.0] * (i % 4) for i in range(ROWS)]),
    "struct": pa.array([{"bytes": b"x" * (i % 5), "path": None} for i in range(ROWS)]),
    "nothing": pa.nulls(ROWS, pa.string()),
    "größe": pa.array([b"\xff"] * ROWS),
}


def written(columns=COLUMNS, **options) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, **options)
    return sink.getvalue()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"row_group_size": 300},
        {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}},
        {"write_statistics": False},
        {"compression": "zstd", "write_page_index": True, "version": "1.0"},
    ],
)
def test_it_is_what_arrow_reads(options):
    metadata = pq.read_metadata(io.BytesIO(written(**options)))
    groups = list(read_chunks(metadata))
    assert len(groups) == metadata.num_row_groups
    for group, chunks in enumerate(groups):
        assert len(chunks) == metadata.num_columns
        for number, chunk in enumerate(chunks):
            theirs = metadata.row_group(group).column(number)
            assert ".".join(chunk.path) == theirs.path_in_schema
            assert (chunk.values, chunk.uncompressed_bytes) == (theirs.num_values, theirs.total_uncompressed_size)
            assert (DELTA_BYTE_ARRAY in chunk.encodings) == ("DELTA_BYTE_ARRAY" in theirs.encodings)
            told = theirs.statistics
            assert chunk.nulls == (told and told.null_count)
            assert (chunk.low is not None) == (chunk.high is not None) == bool(told and told.has_min_max)
            if chunk.low is not None and theirs.physical_type == "INT64":
                bounds = (int.from_bytes(bound, "little", signed=True) for bound in (chunk.low, chunk.high))
                assert tuple(bounds) == (told.min_raw, told.max_raw)
            elif chunk.low is not None and theirs.physical_type == "BYTE_ARRAY":
                assert (chunk.low, chunk.high) == (told.min_raw, told.max_raw)


FLIPPING = """
import io, sys
import pyarrow as pa, pyarrow.parquet as pq
from featray.sources.tables import read_table
from featray.store.parquet_footer import read_chunks
from featray.upkeep.footers import wrong_statistics

whole = open(sys.argv[1], "rb").read()
schema = pq.read_schema(sys.argv[1])
footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
read = 0
for at in range(footer, len(whole) - 8):
    for bit in range(int(sys.argv[2]), 8, 3):
        data = bytearray(whole)
        data[at] ^= 1 << bit
        try:
            list(read_chunks(pq.read_metadata(io.BytesIO(data))))
            read += 1
            list(read_table(io.BytesIO(data), None))
            wrong_statistics(pq.ParquetFile(io.BytesIO(data)), schema)
        except (pa.ArrowException, ValueError, OSError):
            pass
print(read)
"""


@pytest.mark.parametrize("bit", range(3))
def test_a_changed_bit_is_an_error_or_nothing_at_all(tmp_path, bit):
    """Arrow ends the process at some bits, so that this is another one."""
    place = tmp_path / "a.parquet"
    place.write_bytes(written({name: COLUMNS[name][:20] for name in ("text", "number", "list")} | {"uri": ["a"] * 20}))
    done = subprocess.run(
        [sys.executable, "-c", FLIPPING, str(place), str(bit)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 100
