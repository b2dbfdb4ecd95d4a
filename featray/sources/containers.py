"""Sources. Files that hold videos, or name them: tar shards, Parquet tables, CSV and JSONL manifests.

Nothing is ever extracted to disk, and a member's name is never used as a path: a member is a
byte range of its tar, a value in a Parquet column, or a URI. What cannot be read becomes one
entry with a problem, so that it is accounted for.
"""

from __future__ import annotations

import csv
import io
import json
import math
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from featray.errors import ErrorCode
from featray.redaction import readable_name
from featray.store.storage import Location, open_ranges, transport_errors, unreadable_code

VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .mkv .webm .avi .ts .mts .m2ts .mpg .mpeg .vob .ogv .ogg .flv .wmv .asf .3gp .3g2".split()
)
"""What is taken from a prefix or a tar. A glob or a plain name is taken as written, whatever its suffix."""

URI_COLUMNS: Final = ("uri", "url", "path", "file", "video_uri", "video_path")
BYTES_COLUMNS: Final = ("bytes", "video", "content", "data", "mp4")
"""Column names that are looked for, in order, where `input.column` does not name one."""

MAX_MEMBERS: Final = 1_000_000
"""Of one tar: beyond that it is a mistake or an attack, and the rest is refused with a row."""

_PADDING_BYTES: Final = 1 << 20
"""Of zeros behind the end of a tar: writers fill up a record, of 10 KiB mostly, of a MiB at most."""


@dataclass(frozen=True)
class Entry:
    """A video inside, or named by, a file.

    Attributes:
        member: name inside the file; None if the entry names a video elsewhere.
        uri: of a video elsewhere; None for a member.
        place: where the member's bytes are: `{"offset": n, "size": n}` of a tar, or
            `{"row_group": n, "row": n, "column": name}` of a Parquet file.
        size_bytes: of the member; -1 if not known.
        extra: the other columns of a manifest, as plain JSON data.
        problem: error code and message of what cannot be read.
    """

    member: str | None = None
    uri: str | None = None
    place: dict[str, Any] = field(default_factory=dict)
    size_bytes: int = -1
    extra: dict[str, Any] = field(default_factory=dict)
    problem: tuple[str, str] | None = None


def is_container(location: Location) -> bool:
    """Whether a file holds or names videos rather than being one, by its suffix."""
    return _suffix(location.uri) in _READERS  # not of the path, behind which a link may be signed


def read_entries(location: Location, column: str | None) -> Iterator[Entry]:
    """The entries of a tar, Parquet, CSV or JSONL file, one by one.

    Args:
        location: the file.
        column: of a table: which column holds the bytes or URIs; None looks for the usual names.
    """
    try:
        yield from _READERS[_suffix(location.uri)](location, column)
    except tarfile.TarError as error:
        yield Entry(problem=(ErrorCode.BAD_SHARD, f"damaged shard file: {error}"))
    except (ValueError, OverflowError, pa.ArrowException, csv.Error, EOFError) as error:  # bad bytes, dates, schemas
        yield Entry(problem=(ErrorCode.BAD_SHARD, f"damaged shard file ({type(error).__name__})"))
    except transport_errors() as error:
        yield Entry(problem=(unreadable_code(error), f"the shard file cannot be read ({type(error).__name__})"))


def read_member(location: Location, place: dict[str, Any], max_bytes: int) -> io.BufferedIOBase | io.RawIOBase:
    """Open a member's bytes as a seekable file.

    Args:
        location: the file that holds it.
        place: as in `Entry.place`.
        max_bytes: a Parquet value larger than this is refused before it is read.

    Raises:
        MemoryError: the value is larger than that.
    """
    if "offset" in place:
        return io.BufferedReader(_ByteRange(open_ranges(location), place["offset"], place["size"]), 1 << 20)
    with open_ranges(location) as file:
        table = pq.ParquetFile(file)
        meta = table.metadata.row_group(place["row_group"]).column(table.schema_arrow.names.index(place["column"]))
        if meta.total_uncompressed_size > max_bytes:
            raise MemoryError(f"its row group holds {meta.total_uncompressed_size} bytes")
        values = table.read_row_group(place["row_group"], columns=[place["column"]])[place["column"]]
        return io.BytesIO(values[place["row"]].as_py() or b"")


def _tar(location: Location, _: str | None) -> Iterator[Entry]:
    seen: set[str] = set()
    with open_ranges(location) as file:
        for count, member in enumerate(_tar_members(file)):
            if count >= MAX_MEMBERS:
                text = f"more than {MAX_MEMBERS} members; the rest is left out"
                yield Entry(problem=(ErrorCode.BAD_SHARD, text))
                return
            if not member.isreg() or _suffix(member.name) not in VIDEO_SUFFIXES:
                continue
            name = readable_name(member.name)
            named = name if name not in seen else f"{name}@{member.offset_data}"
            seen.add(name)
            place = {"offset": member.offset_data, "size": member.size}
            yield Entry(member=named, place=place, size_bytes=member.size)


def _tar_members(file: IO[bytes]) -> Iterator[tarfile.TarInfo]:
    """All members of a tar, and of the tars that were joined to it with `cat`.

    Raises:
        TarError: it is damaged or breaks off; its text says where, and behind which member.
    """
    begin: int | None = 0
    at, last = 0, "no member"
    while begin is not None:
        at = begin
        try:
            file.seek(begin)
            tar = tarfile.open(fileobj=file, mode="r:")
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # or tarfile would keep every header it has read
                if member.size < 0:
                    raise tarfile.ReadError("negative size")
                yield member
                at, last = tar.offset, f"member {readable_name(member.name)}"
            begin = _next_archive(file, tar.offset)
        except (tarfile.TarError, ValueError, OverflowError) as error:
            raise tarfile.ReadError(f"{error} at byte {at}, behind {last}") from error


def _next_archive(file: IO[bytes], end: int) -> int | None:
    """Where another tar begins behind the one that ends here; None if nothing does.

    tarfile takes whatever is no header, but at the very beginning, for the end, and says nothing.

    Raises:
        ReadError: this is no end.
    """
    file.seek(end)
    block = file.read(tarfile.BLOCKSIZE)
    if any(block):
        raise tarfile.ReadError("neither a header nor an end")
    # Not a byte behind the last member is an end as well: writers that are not closed leave the end blocks out, and GNU
    # tar and Python read such files without a word. A copy that was cut off exactly there looks the same; one that was
    # cut off anywhere else is told apart.
    padding = file.read(_PADDING_BYTES)
    zeros = len(padding) - len(padding.lstrip(b"\0"))
    return None if zeros == len(padding) else end + len(block) + zeros // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE


def _parquet(location: Location, column: str | None) -> Iterator[Entry]:
    with open_ranges(location) as file:
        table = pq.ParquetFile(file)
        kinds = dict(zip(table.schema_arrow.names, table.schema_arrow.types, strict=True))
        binary = [name for name, kind in kinds.items() if pa.types.is_binary(kind) or pa.types.is_large_binary(kind)]
        chosen = column or _choose(list(kinds), binary)
        if chosen is None or chosen not in kinds:
            known = ", ".join(kinds)
            yield Entry(problem=(ErrorCode.BAD_SHARD, f"no column of videos; name it as input.column; it has: {known}"))
        elif chosen in binary:
            yield from _values(table, chosen)
        else:
            for group in range(table.num_row_groups):
                for row in table.read_row_group(group).to_pylist():
                    yield _named(row, chosen)


def _values(table: Any, column: str) -> Iterator[Entry]:
    """One entry a row; the values themselves are read where they are decoded."""
    number = 0
    for group in range(table.num_row_groups):
        for row in range(table.metadata.row_group(group).num_rows):
            yield Entry(member=f"row {number}", place={"row_group": group, "row": row, "column": column})
            number += 1


def _csv(location: Location, column: str | None) -> Iterator[Entry]:
    with open_ranges(location) as file, io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
        reader = csv.DictReader(text)
        yield from _rows(reader, list(reader.fieldnames or []), column)


def _jsonl(location: Location, column: str | None) -> Iterator[Entry]:
    with open_ranges(location) as file, io.TextIOWrapper(file, "utf-8") as text:
        for number, line in enumerate(text, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                yield Entry(problem=(ErrorCode.BAD_SHARD, f"line {number} is no JSON object"))
                continue
            yield from _rows([row], list(row), column)


def _rows(rows: Any, names: list[str], column: str | None) -> Iterator[Entry]:
    chosen = column or _choose(names, [])
    if chosen not in names:
        known = ", ".join(names)
        yield Entry(problem=(ErrorCode.BAD_SHARD, f"no column of URIs; name it as input.column; it has: {known}"))
        return
    for row in rows:
        yield _named(row, chosen)


def _named(row: dict[str, Any], column: str) -> Entry:
    value = row.get(column)
    if not isinstance(value, str) or not value:
        return Entry(problem=(ErrorCode.BAD_SHARD, f"a row without a URI in column {column}"))
    uri = value.strip() if "://" in value else value  # else spaces may be part of a file's name
    return Entry(uri=uri, extra=_plain({k: v for k, v in row.items() if k != column and k is not None}))


def _plain(value: Any) -> Any:
    """A value as JSON can hold it: without bytes, infinities and NaN as null, dates and decimals as text."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items() if not isinstance(inner, bytes)}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value if not isinstance(inner, bytes)]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def _choose(names: list[str], binary: list[str]) -> str | None:
    for candidates, pool in ((URI_COLUMNS, [n for n in names if n not in binary]), (BYTES_COLUMNS, binary)):
        for name in candidates:
            if name in pool:
                return name
    return binary[0] if len(binary) == 1 else None


def _suffix(path: str) -> str:
    name = path.rsplit("/", 1)[-1]
    return name[name.rfind(".") :].lower() if "." in name else ""


class _ByteRange(io.RawIOBase):
    """Part of a seekable file, as a file; closing it closes that one."""

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
        self.source.seek(self._offset + self._position)
        data = self.source.read(count)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self.source.close()
        super().close()


_READERS = {".tar": _tar, ".parquet": _parquet, ".csv": _csv, ".jsonl": _jsonl, ".ndjson": _jsonl}
