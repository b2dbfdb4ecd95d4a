"""Upkeep. Compare the footer of a table's file with its commit, its run, its table's schema, and its values."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from featray.errors import counted
from featray.schema import SCHEMA_VERSION
from featray.store.parquet_footer import ColumnChunk, read_chunks
from featray.tables.commits import CommittedFile
from featray.tables.rewrite import footer_of

_BATCH_ROWS: Final = 16_384


def wrong_in_footer(
    file: pq.ParquetFile, committed: CommittedFile, schema: pa.Schema, facts: Mapping[str, str]
) -> Iterator[str]:
    """Yield what a footer says otherwise than the commit, the columns of the table, and the facts about the run."""
    if file.metadata.num_rows != committed.rows:
        yield f"has {counted(file.metadata.num_rows, 'row')}, the commit says {committed.rows:,}"
    footer = footer_of(file)
    version = footer.get("schema_version", "")
    if not version.isdigit() or not 1 <= int(version) <= SCHEMA_VERSION:
        yield f"footer: schema_version is {version or 'missing'}"
    for name, value in facts.items():
        if committed.table == "erasures" and name not in ("dataset", "release"):
            continue  # not made by a run
        if footer.get(name) != value:
            yield f"footer: featray.{name} is {footer.get(name)}, the run says {value}"
    found = file.schema_arrow
    for name in sorted({name for name in found.names if found.names.count(name) > 1}):
        yield f"has the column {name} twice"
    for column in schema:
        if found.names.count(column.name) > 1:
            continue
        if column.name not in found.names:
            # Columns are only added, never removed: a file of an older version lacks the newer ones.
            if version == str(SCHEMA_VERSION):
                yield f"has no column {column.name}"
        elif not found.field(column.name).type.equals(column.type):
            yield f"column {column.name} is {found.field(column.name).type}, not {column.type}"
    for name in set(found.names) - set(schema.names):
        yield f"has a column {name} that schema {version} does not know"


def wrong_statistics(file: pq.ParquetFile, schema: pa.Schema) -> list[str]:
    """Return the columns whose values, or number of nulls, contradict the statistics of their row group.

    DuckDB and other readers skip row groups by them. Where they exclude a value, a query with a WHERE lacks its rows,
    and so do the checks of `verify`.

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
    for group, chunks in enumerate(read_chunks(file.metadata) if flat else ()):
        told = {chunk.path[0]: chunk for chunk in chunks if len(chunk.path) == 1}
        nulls = dict.fromkeys(flat, 0)
        for batch in file.iter_batches(_BATCH_ROWS, [group], flat):
            for name in flat:
                nulls[name] += batch[name].null_count
                if name in told and any(_outside(batch[name], told[name])):
                    wrong.add(name)
        wrong |= {name for name in flat if name in told and told[name].nulls not in (None, nulls[name])}
    return [name for name in flat if name in wrong]


def _outside(column: pa.Array, told: ColumnChunk) -> Iterator[bool]:
    """Yield whether the smallest and the largest value are beyond the bounds; as stored, since times may be odd."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    elif pa.types.is_string(column.type):
        column = column.cast(pa.binary())
    limits = pc.min_max(column)
    low, high = limits["min"].as_py(), limits["max"].as_py()
    form = _FORMS.get(column.type)
    try:
        if low is not None and told.low is not None:
            yield low < (struct.unpack(form, told.low)[0] if form else told.low)
        if high is not None and told.high is not None:
            yield high > (struct.unpack(form, told.high)[0] if form else told.high)
    except struct.error:  # of another length
        yield True


_FORMS: Final = {pa.bool_(): "<?", pa.int32(): "<i", pa.int64(): "<q", pa.float32(): "<f", pa.float64(): "<d"}
"""How bounds are stored; those of texts are their bytes."""
