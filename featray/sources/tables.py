"""Sources. Parquet tables of videos: with a column of bytes, of URIs, or of Hugging Face's structs of both.

A file of a few kilobytes can expand to gigabytes: a million rows that refer to one text in a dictionary, or a million
empty rows. Therefore dictionaries are kept as dictionaries, a row's size is computed before the row is built, and the
number of rows is limited by the size of the file.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from itertools import islice, repeat
from typing import IO, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from featray.errors import ErrorCode, counted, shown
from featray.sources.entry import MAX_ENTRIES, Entry
from featray.sources.manifests import (
    BYTES_COLUMNS,
    MAX_ROW_CHARS,
    bad_row,
    choose_column,
    held,
    named,
    no_column,
)
from featray.store.parquet_footer import DELTA_BYTE_ARRAY, ColumnChunk, read_chunks

_BATCH_ROWS: Final = 1024
_BUFFER_BYTES: Final = 1 << 20
_MAX_ROWS_PER_BYTE: Final = 8
"""Limit on rows per byte of the file. Distinct names take more than an eighth of a byte each, however well they
compress."""

_MAX_CHUNK_BYTES: Final = 256 << 20
"""Uncompressed size limit of one column in one row group; a million URIs are about 100 MB."""

_MAX_REPEATED: Final = 10_000_000
"""Limit on the values of a list column in one row group."""

_BATCH_BYTES: Final = 16 << 20
"""Largest batch to convert to Python objects at once; larger batches are converted row by row."""


def read_table(file: IO[bytes], column: str | None) -> Iterator[Entry]:
    """Yield the videos that a Parquet file contains or names.

    Args:
        file: a seekable file.
        column: the column with the bytes or URIs; None looks for the usual names, those for bytes first.
    """
    size = file.seek(0, io.SEEK_END)
    table = _opened(file)
    kinds = dict(zip(table.schema_arrow.names, table.schema_arrow.types, strict=True))
    holders = [name for name, kind in kinds.items() if _is_bytes(kind) or _is_media(kind)]
    chosen = column or _choose(list(kinds), holders)
    rows = table.metadata.num_rows
    if chosen is None or chosen not in kinds:
        yield no_column(list(kinds), "videos")
    elif rows > _MAX_ROWS_PER_BYTE * size:
        yield Entry(problem=(ErrorCode.BAD_SHARD, f"a file of {size:,} bytes that claims {counted(rows, 'row')}"))
    elif chosen not in holders:
        yield from _uris(table, chosen, [name for name, kind in kinds.items() if not _is_bytes(kind)])
    elif _is_media(kinds[chosen]) and _has_only_paths(table.metadata, chosen):
        yield from _uris(table, chosen, [chosen])
    else:
        others = [name for name in kinds if name != chosen and name not in holders]
        yield from _values(table, chosen, others, {"field": "bytes"} if _is_media(kinds[chosen]) else {})


def read_value(file: IO[bytes], place: dict[str, Any], max_bytes: int) -> bytes:
    """Return the bytes in one row.

    Args:
        file: a seekable file.
        place: as in `Entry.place`.
        max_bytes: a larger column chunk is refused before it is read.

    Raises:
        MemoryError: the column chunk of the row group is larger than `max_bytes`.
    """
    column, group = place["column"], place["row_group"]
    path = f"{column}.{place['field']}" if "field" in place else column
    table = _opened(file)
    for chunk in _below([path], next(islice(read_chunks(table.metadata), group, None), [])):
        if chunk.uncompressed_bytes > max_bytes:
            raise MemoryError(f"its row group has {chunk.uncompressed_bytes} bytes; the limit is {max_bytes}")
    value = table.read_row_group(group, columns=[path])[column][place["row"]].as_py()
    if isinstance(value, dict):
        value = value.get(place["field"])
    return value or b""


def _opened(file: IO[bytes]) -> Any:
    metadata = pq.read_metadata(file)
    schema = metadata.schema
    leaves = [schema.column(i) for i in range(metadata.num_columns)]
    texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY" and leaf.logical_type.type in _TEXTS]
    return pq.ParquetFile(file, metadata=metadata, read_dictionary=texts, buffer_size=_BUFFER_BYTES)


_TEXTS: Final = ("STRING", "NONE", "ENUM", "JSON")


def _is_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_media(kind: pa.DataType) -> bool:
    """Return whether a column has the form of videos in the datasets library: a struct of bytes and path."""
    if not pa.types.is_struct(kind):
        return False
    fields: dict[str, pa.DataType] = {field.name: field.type for field in kind}
    return set(fields) == {"bytes", "path"} and _is_bytes(fields["bytes"])


def _choose(names: list[str], holders: list[str]) -> str | None:
    for name in BYTES_COLUMNS:
        if name in holders:
            return name
    return choose_column([name for name in names if name not in holders]) or (holders[0] if len(holders) == 1 else None)


def _below(columns: list[str], chunks: list[ColumnChunk]) -> Iterator[ColumnChunk]:
    """Yield the chunks of these columns, or of columns in them."""
    for chunk in chunks:
        path = ".".join(chunk.path)
        if any(path == name or path.startswith(f"{name}.") for name in columns):
            yield chunk


def _has_only_paths(metadata: Any, column: str) -> bool:
    """Return whether a column of structs has no bytes at all; its paths then name the files."""
    for group, chunks in enumerate(read_chunks(metadata)):
        for chunk in _below([f"{column}.bytes"], chunks):
            if chunk.nulls != metadata.row_group(group).num_rows:
                return False
    return bool(metadata.num_rows)


def _values(table: Any, column: str, others: list[str], field: dict[str, str]) -> Iterator[Entry]:
    """Yield one entry per row, with its other columns; the decoding process reads the values themselves."""
    number = 0
    for group, chunks in enumerate(read_chunks(table.metadata)):
        rows_in_it = table.metadata.row_group(group).num_rows
        chunks = list(_below(others, chunks))
        problem = _unfolds(chunks, rows_in_it)
        if problem:
            yield bad_row(f"row group {group}: its videos are used without their other columns: {problem}")
        rows: Iterable[dict[str, Any] | str] = repeat({}, rows_in_it)
        if others and not problem:
            rows = _each_row(table, group, others, chunks)
        for row, values in enumerate(rows):
            if number >= MAX_ENTRIES:
                text = f"more than {MAX_ENTRIES} rows; the rest is left out"
                yield Entry(problem=(ErrorCode.BAD_SHARD, text))
                return
            place = {"row_group": group, "row": row, "column": column, **field}
            yield held(values, _name(number), place)
            number += 1


def _each_row(table: Any, group: int, columns: list[str], chunks: list[ColumnChunk]) -> Iterator[dict[str, Any] | str]:
    for batch in table.iter_batches(_batch_rows(chunks), [group], columns):
        yield from _rows(batch)


def _uris(table: Any, column: str, columns: list[str]) -> Iterator[Entry]:
    number = 0
    for group, chunks in enumerate(read_chunks(table.metadata)):
        rows_in_it = table.metadata.row_group(group).num_rows
        chunks = list(_below(columns, chunks))
        problem = _unfolds(chunks, rows_in_it)
        if problem:
            yield bad_row(f"row group {group} is skipped: {problem}")
            number += rows_in_it
            continue
        for row in _each_row(table, group, columns, chunks):
            if isinstance(row, dict):
                if isinstance(row.get(column), dict):
                    row = {**row, column: row[column]["path"]}
                yield named(row, column, _name(number))
            else:
                yield bad_row(f"{_name(number)} {row}")
            number += 1


def _name(number: int) -> str:
    return f"row {number}"


def _unfolds(chunks: list[ColumnChunk], rows: int) -> str | None:
    """Return why the chunks of a row group would take too much memory; None if they would not."""
    for chunk in chunks:
        name = shown(".".join(chunk.path), 40)
        if chunk.uncompressed_bytes > _MAX_CHUNK_BYTES:
            return f"column {name} has {chunk.uncompressed_bytes} bytes in it; the limit is {_MAX_CHUNK_BYTES}"
        if chunk.values > max(_MAX_REPEATED, rows):
            return f"column {name} has {chunk.values} values in it; the limit is {_MAX_REPEATED}"
    return None


def _batch_rows(chunks: list[ColumnChunk]) -> int:
    """Return the batch size; small for DELTA_BYTE_ARRAY, where each text may repeat all of the one before it."""
    rows = _BATCH_ROWS
    for chunk in chunks:
        if DELTA_BYTE_ARRAY in chunk.encodings:
            rows = max(1, min(rows, _MAX_CHUNK_BYTES // max(chunk.uncompressed_bytes, 1)))
    return rows


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | str]:
    """Yield rows as Python objects, or a text that says why a row cannot be converted."""
    weights = sum((_row_bytes(array) for array in batch.columns), np.zeros(len(batch), np.int64))
    if weights.sum() <= _BATCH_BYTES:
        try:
            yield from batch.to_pylist()
            return
        except _UNMADE:
            pass  # continue row by row to find the bad one
    for i in range(len(batch)):
        if weights[i] > MAX_ROW_CHARS:
            yield f"has {weights[i]} bytes; the limit is {MAX_ROW_CHARS}"
            continue
        try:
            yield batch.slice(i, 1).to_pylist()[0]
        except _UNMADE as error:
            yield f"has a value that Python cannot represent ({type(error).__name__})"


_UNMADE: Final = (ValueError, OverflowError, LookupError, pa.ArrowException)
"""Raised for dates outside Python's range, texts that are not UTF-8, and unknown time zones (LookupError from pytz)."""


def _row_bytes(array: pa.Array) -> NDArray[np.int64]:
    """Return the approximate size in bytes of each row of a column as Python objects."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        sizes = _row_bytes(array.dictionary)
        indices = pc.fill_null(array.indices, 0).to_numpy(zero_copy_only=False)
        return sizes[indices] if len(sizes) else np.zeros(len(array), np.int64)
    if pa.types.is_struct(kind):
        return sum((_row_bytes(child) for child in array.flatten()), np.full(len(array), 64, np.int64))
    if pa.types.is_map(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        inner = [array.keys, array.items] if pa.types.is_map(kind) else [array.values]
        ends = np.cumsum(np.concatenate([[0], sum(_row_bytes(child) for child in inner)]))
        offsets = array.offsets.to_numpy()
        return np.asarray(ends[offsets[1:]] - ends[offsets[:-1]] + 64, np.int64)
    if pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_string(kind) or _is_bytes(kind):
        return np.asarray(pc.fill_null(pc.binary_length(array), 0).to_numpy(zero_copy_only=False), np.int64) + 8
    return np.full(len(array), 32, np.int64)
