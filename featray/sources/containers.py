"""Sources. Files that contain or name videos: tar shards, Parquet tables, CSV and JSONL manifests.

Nothing is ever extracted to disk, and a member's name is never used as a path: a member is a
byte range of its tar, a value in a Parquet column, or a URI. A file that cannot be read becomes
one entry with a problem, so that it is accounted for.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from typing import IO, Any, Final

import pyarrow as pa

from featray.errors import ErrorCode
from featray.redaction import readable_name
from featray.sources.entry import Entry, suffix
from featray.sources.manifests import read_csv, read_jsonl
from featray.sources.tables import read_table, read_value
from featray.sources.tars import read_tar
from featray.store.failures import transport_errors, unreadable_code
from featray.store.location import Location
from featray.store.storage import open_ranges

_NOT_READ: Final = {
    ".json": "a JSON file; write one object per line and name the file .jsonl",
    ".txt": "a text file; make its first line `path` and name the file .csv",
    ".xlsx": "a spreadsheet; save it as CSV UTF-8",
}
"""Formats that people use for lists of videos but that are not supported, with the fix."""

_KINDS: Final = frozenset((".tar", ".parquet", ".csv", ".tsv", ".jsonl", ".ndjson", *_NOT_READ))


def is_container(location: Location) -> bool:
    """Return whether a file contains or names videos rather than being one, by its suffix."""
    return suffix(location.uri) in _KINDS  # not of the path, which may end with a link's signature


def read_entries(location: Location, column: str | None, *, pictures: bool = False) -> Iterator[Entry]:
    """Yield the entries of a tar, Parquet, CSV or JSONL file, one by one.

    Args:
        location: the file.
        column: the column of a table with the bytes or URIs; None looks for the usual names.
        pictures: whether to yield the pictures of a tar too.
    """
    kind = suffix(location.uri)
    if kind in _NOT_READ:
        yield Entry(problem=(ErrorCode.UNSUPPORTED_CONTAINER, _NOT_READ[kind]))
        return
    try:
        with open_ranges(location) as file:
            yield from _entries(file, kind, column, pictures)
    except tarfile.TarError as error:
        yield Entry(problem=(ErrorCode.BAD_SHARD, readable_name(f"damaged shard file: {error}")))
    except (ValueError, OverflowError, pa.ArrowException, EOFError) as error:  # bad bytes, schemas
        yield Entry(problem=(ErrorCode.BAD_SHARD, f"damaged shard file ({type(error).__name__})"))
    except transport_errors() as error:
        yield Entry(problem=(unreadable_code(error), f"the shard file cannot be read ({type(error).__name__})"))


def read_member(location: Location, place: dict[str, Any], max_bytes: int) -> io.BufferedIOBase | io.RawIOBase:
    """Open a member's bytes as a seekable file.

    Args:
        location: the file that contains it.
        place: as in `Entry.place`.
        max_bytes: a larger Parquet column chunk is refused before it is read.

    Raises:
        MemoryError: the column chunk is larger than `max_bytes`.
    """
    if "offset" in place:
        return io.BufferedReader(_ByteRange(open_ranges(location), place["offset"], place["size"]), 1 << 20)
    with open_ranges(location) as file:
        return io.BytesIO(read_value(file, place, max_bytes))


def _entries(file: IO[bytes], kind: str, column: str | None, pictures: bool) -> Iterator[Entry]:
    if kind == ".tar":
        return read_tar(file, pictures=pictures)
    if kind == ".parquet":
        return read_table(file, column)
    return read_jsonl(file, column) if kind in (".jsonl", ".ndjson") else read_csv(file, kind, column)


class _ByteRange(io.RawIOBase):
    """Part of a seekable file, as a file; closing it closes the source."""

    def __init__(self, file: Any, offset: int, size: int) -> None:
        self.source = file
        self._offset, self._size, self._position = offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + position)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), max(0, self._size - self._position))
        if not count:
            return 0  # a position beyond the end may be beyond that of any file, where no file can seek
        self.source.seek(self._offset + self._position)
        data = self.source.read(count)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self.source.close()
        super().close()
