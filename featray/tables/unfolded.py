"""Tables. Measure the memory that an Arrow stream will need, before it is read.

A few kilobytes of zstd can expand to gigabytes, and a column of nulls to any number of rows. Arrow allocates what the
stream declares, in the flatbuffers of its messages; pyarrow exposes only their bytes. Their layout is in
https://github.com/apache/arrow/blob/main/format/Message.fbs
"""

from __future__ import annotations

import struct
from typing import Final

import pyarrow as pa

_DICTIONARY: Final = 2
_RECORDS: Final = 3
"""Members of the union MessageHeader."""


def unfolded(source: pa.BufferReader) -> tuple[int, int]:
    """Return the rows, and the bytes of all buffers in memory, of the stream at the current position of `source`.

    Raises:
        ValueError: it is not an Arrow stream.
    """
    rows = size_bytes = 0
    reader = pa.ipc.MessageReader.open_stream(source)
    while True:
        try:
            message = reader.read_next_message()
        except StopIteration:
            return rows, size_bytes
        try:
            of_message = _of_message(message.metadata.to_pybytes(), memoryview(message.body or b""))
        except (struct.error, IndexError):
            raise ValueError("is not an Arrow message") from None
        rows, size_bytes = rows + of_message[0], size_bytes + of_message[1]


def _of_message(metadata: bytes, body: memoryview) -> tuple[int, int]:
    root = _follow(metadata, 0)
    kind, batch = metadata[_field(metadata, root, 1)], _field(metadata, root, 2)
    if kind not in (_DICTIONARY, _RECORDS):
        return 0, 0
    if kind == _DICTIONARY:  # its field 1 is a batch
        batch = _field(metadata, _follow(metadata, batch), 1)
    batch = _follow(metadata, batch)
    rows = _field(metadata, batch, 0)
    compressed = bool(_field(metadata, batch, 3))
    size_bytes = 0
    if vector := _field(metadata, batch, 2):
        vector = _follow(metadata, vector)
        for number in range(struct.unpack_from("<I", metadata, vector)[0]):
            offset, length = struct.unpack_from("<qq", metadata, vector + 4 + 16 * number)
            if compressed and length:
                (told,) = struct.unpack_from("<q", body, offset)
                size_bytes += length if told == -1 else abs(told)
            else:
                size_bytes += abs(length)
    return abs(struct.unpack_from("<q", metadata, rows)[0]) if rows else 0, size_bytes


def _follow(data: bytes, at: int) -> int:
    """Return the position that the offset at a position points to."""
    return at + int(struct.unpack_from("<I", data, at)[0])


def _field(data: bytes, table: int, number: int) -> int:
    """Return the position of a table's field; 0 if the field is absent."""
    places = table - struct.unpack_from("<i", data, table)[0]
    if places < 0 or 4 + 2 * number >= struct.unpack_from("<H", data, places)[0]:
        return 0
    offset = int(struct.unpack_from("<H", data, places + 4 + 2 * number)[0])
    return table + offset if offset else 0
