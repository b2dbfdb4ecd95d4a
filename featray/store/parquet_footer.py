"""Store. What a Parquet footer says of its column chunks, from untrusted files.

Arrow tells it too, but ends the process, without a word, where the statistics of a damaged footer do not fit its schema
(`RowGroupMetaData.column` and its `statistics`; pyarrow 26). Reading rows with Arrow is not affected.

The footer is one value in Thrift's compact protocol: https://github.com/apache/thrift/blob/master/doc/specs/
thrift-compact-protocol.md and https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq


class ColumnChunk(NamedTuple):
    """One column of one row group, as the footer describes it.

    Attributes:
        path: names from the root of the schema to the leaf.
        values: number of values, nulls included.
        uncompressed_bytes: size of its pages before compression.
        encodings: numbers of the encodings.
        nulls: number of nulls; None if not stated.
        low: bound below all values, as its physical type is stored; None if not stated.
        high: bound above all values.
    """

    path: tuple[str, ...]
    values: int
    uncompressed_bytes: int
    encodings: tuple[int, ...]
    nulls: int | None
    low: bytes | None
    high: bytes | None


DELTA_BYTE_ARRAY: Final = 7
"""Number of the encoding of texts that begin like the one before."""


def read_chunks(metadata: pq.FileMetaData) -> Iterator[list[ColumnChunk]]:
    """Yield the column chunks of one row group after another.

    Raises:
        ValueError: the footer is damaged.
    """
    sink = pa.BufferOutputStream()
    metadata.write_metadata_file(sink)
    footer = sink.getvalue().to_pybytes()
    reader = _Reader(footer[len(_MAGIC) : -len(_MAGIC) - _LENGTH_BYTES])
    for field, kind in reader.fields():
        if (field, kind) != (_ROW_GROUPS, _LIST):
            reader.value(kind)
            continue
        for _ in range(reader.list_of(_STRUCT)):
            yield list(_row_group(reader))


_MAGIC: Final = b"PAR1"
_LENGTH_BYTES: Final = 4
_ROW_GROUPS: Final = 4
_COLUMNS: Final = 1
_COLUMN_META_DATA: Final = 3


def _row_group(reader: _Reader) -> Iterator[ColumnChunk]:
    for field, kind in reader.fields():
        if (field, kind) != (_COLUMNS, _LIST):
            reader.value(kind)
            continue
        for _ in range(reader.list_of(_STRUCT)):
            try:
                yield _column_chunk(reader.value(_STRUCT)[_COLUMN_META_DATA])
            except (KeyError, TypeError, AttributeError) as error:
                raise ValueError("a column chunk without its path or sizes") from error


def _column_chunk(found: dict[int, Any]) -> ColumnChunk:
    told = found.get(12, {})
    return ColumnChunk(
        tuple(name.decode() for name in found[3]),
        int(found[5]),
        int(found[6]),
        tuple(found[2]),
        told.get(3),
        told.get(6, told.get(2)),  # written by newer software, by older
        told.get(5, told.get(1)),
    )


_BOOLEANS: Final = (1, 2)  # true, false
_BYTE: Final = 3
_INTEGERS: Final = (4, 5, 6)
_BINARY: Final = 8
_LIST: Final = 9
_SET: Final = 10
_STRUCT: Final = 12
_MOST_DEPTH: Final = 16
_FIXED_BYTES: Final = {_BYTE: 1, 7: 8, 13: 16}
"""Sizes of a byte, a double and a UUID."""


class _Reader:
    """A reader of values in the compact protocol. All raise ValueError where the bytes are none."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def fields(self) -> Iterator[tuple[int, int]]:
        """Yield number and kind of each field of a struct; the caller reads its value before the next one."""
        number = 0
        while head := self._byte():
            step, kind = head >> 4, head & 15
            number = number + step if step else self._number()
            yield number, kind

    def list_of(self, kind: int) -> int:
        """Read the head of a list of this kind; return its length, with each element longer than nothing."""
        head = self._byte()
        length = head >> 4 if head >> 4 < 15 else self._varint()
        if head & 15 != kind or length > len(self._data) - self._at:
            raise ValueError("a list of another kind, or longer than the footer")
        return length

    def value(self, kind: int, depth: int = 0) -> Any:
        """Read a value: structs as dicts by field number, lists as lists, texts as bytes."""
        if depth > _MOST_DEPTH:
            raise ValueError("structs in structs without end")
        if kind in _BOOLEANS:
            return kind == _BOOLEANS[0]
        if kind in _INTEGERS:
            return self._number()
        if kind in _FIXED_BYTES:
            return self._bytes(_FIXED_BYTES[kind])
        if kind == _BINARY:
            return self._bytes(self._varint())
        if kind in (_LIST, _SET):
            element = self._data[self._at : self._at + 1]
            inner = element[0] & 15 if element else 0
            # In a list, unlike in a struct, a boolean is a byte.
            return [self.value(_BYTE if inner in _BOOLEANS else inner, depth + 1) for _ in range(self.list_of(inner))]
        if kind == _STRUCT:
            return {number: self.value(inner, depth + 1) for number, inner in self.fields()}
        raise ValueError(f"a value of kind {kind}, which no footer has")

    def _number(self) -> int:
        folded = self._varint()
        return (folded >> 1) ^ -(folded & 1)

    def _varint(self) -> int:
        found = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            found |= (byte & 127) << shift
            if byte < 128:
                return found
        raise ValueError("a number without end")

    def _byte(self) -> int:
        return self._bytes(1)[0]

    def _bytes(self, count: int) -> bytes:
        found = self._data[self._at : self._at + count]
        if len(found) < count:
            raise ValueError("ends too early")
        self._at += count
        return found
