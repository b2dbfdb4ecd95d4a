"""Upkeep. Compare the statistics in the footer of a table's file with its values.

DuckDB and other readers skip row groups by them. Where they exclude a value, a query with a WHERE lacks its rows, and
so do the checks of `verify`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

_BATCH_ROWS: Final = 16_384


def wrong_statistics(file: pq.ParquetFile, schema: pa.Schema) -> list[str]:
    """Return the columns whose values, or number of nulls, contradict the statistics of their row group.

    Args:
        file: the file; all its columns without lists are read.
        schema: the columns that it should have; others are not compared.
    """
    found = file.schema_arrow
    flat = [
        column.name
        for column in schema
        if found.get_field_index(column.name) >= 0
        and found.field(column.name).type.equals(column.type)
        and not pa.types.is_nested(column.type)
    ]
    wrong: set[str] = set()
    for group in range(file.num_row_groups if flat else 0):
        footer = file.metadata.row_group(group)
        chunks = [footer.column(number) for number in range(footer.num_columns)]
        told = {chunk.path_in_schema: chunk.statistics for chunk in chunks if chunk.statistics is not None}
        nulls = dict.fromkeys(flat, 0)
        for batch in file.iter_batches(_BATCH_ROWS, [group], flat):
            for name in flat:
                nulls[name] += batch[name].null_count
                if name in told and told[name].has_min_max and any(_outside(batch[name], told[name])):
                    wrong.add(name)
        wrong |= {name for name in flat if name in told and told[name].null_count not in (None, nulls[name])}
    return [name for name in flat if name in wrong]


def _outside(column: pa.Array, told: Any) -> Iterator[bool]:
    """Yield whether the smallest and the largest value are beyond the statistics; as stored, since times may be odd."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    elif pa.types.is_string(column.type):
        column = column.cast(pa.binary())
    limits = pc.min_max(column)
    low, high = limits["min"].as_py(), limits["max"].as_py()
    if low is not None:
        yield low < told.min_raw
        yield high > told.max_raw
