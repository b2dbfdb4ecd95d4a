"""Extract. What parent and child say to each other: JSON and bare bytes, checked; the parent unpickles nothing.

The child has met hostile bytes, so all that comes from it is taken for hostile: of bounded size, of the fields that
are known, with counts that fit each other. It has no network either: the parent reads the video for it, range by range.
"""

from __future__ import annotations

import base64
import json
import os
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from featray.errors import ErrorCode, StorageError, VideoError
from featray.extract.chunks import Chunk
from featray.extract.plan import Outcome, VideoPlan, check_failures, parse_plan
from featray.names import CHIP_PX
from featray.records import dump, load
from featray.schema import DETECTED_SCHEMA, FRAMES_SCHEMA
from featray.store.storage import Location, explain, open_ranges, transport_errors, unreadable_code

VIDEO: Final = "video"
"""What the child calls the file of the video that it was asked about."""

MAX_MESSAGE_BYTES: Final = 256 << 20
"""Of a plan, a chunk's rows, or a range of a file."""

READ: Final = b"R"
"""Begins a message of the child that asks for a range of a file; any other begins with ANSWER."""
ANSWER: Final = b"A"

_DONE, _FAILED = b"D", b"F"
_RANGE: Final = struct.Struct("<QQ")
_SIZE: Final = struct.Struct("<Q")
_OPTIONS: Final = ("block_size", "cache_type", "size")


class Nonsense(Exception):
    """The child sent what is no answer."""


@dataclass(frozen=True)
class _ChunkHead:
    part: int
    last: bool
    chips: int
    outcome: Outcome


def send_plan(connection: Connection, plan: VideoPlan) -> None:
    """Send a plan to the parent."""
    connection.send_bytes(ANSWER + dump(plan))


def read_plan(data: bytes) -> VideoPlan:
    """The plan that `send_plan` sent. Nonsense if it is none."""
    try:
        return parse_plan(data)
    except ValueError as error:
        raise Nonsense("no plan") from error


def send_chunk(connection: Connection, chunk: Chunk) -> None:
    """Send a chunk to the parent; chips as they lie in memory, without a length, which the head tells."""
    connection.send_bytes(ANSWER + dump(_ChunkHead(chunk.part, chunk.last, len(chunk.chips), chunk.outcome)))
    connection.send_bytes(ANSWER + _rows(chunk.faces))
    connection.send_bytes(ANSWER + _rows(chunk.frames))
    left = chunk.chips.data.cast("B") if len(chunk.chips) else memoryview(b"")
    while left:
        left = left[os.write(connection.fileno(), left) :]


def receive_into(connection: Connection, memory: memoryview) -> None:
    """Fill memory with bare bytes: from the socket straight to where they stay, so that chips are copied once.

    Raises:
        EOFError: the socket closed before that.
    """
    while memory:
        count = os.readv(connection.fileno(), [memory])
        if not count:
            raise EOFError
        memory = memory[count:]


def read_chunk(receive: Callable[[], bytes], receive_into: Callable[[memoryview], None], max_chips: int) -> Chunk:
    """The chunk that `send_chunk` sent. Nonsense if it is none.

    Args:
        receive: gives the next message.
        receive_into: fills memory with the bare bytes that follow.
        max_chips: of a chunk, and its faces.
    """
    try:
        head = load(_ChunkHead, receive())
        check_failures(head.outcome.failures)
    except ValueError as error:
        raise Nonsense("no head of a chunk") from error
    faces, frames = _table(receive(), DETECTED_SCHEMA), _table(receive(), FRAMES_SCHEMA)
    if not 0 <= head.chips <= faces.num_rows <= max_chips:
        raise Nonsense("a number of chips that cannot be")
    if set(faces["chip"].to_pylist()) != set(range(head.chips)):
        raise Nonsense("chips that are not those of its faces")
    chips = np.empty((head.chips, CHIP_PX, CHIP_PX, 3), np.uint8)
    if head.chips:
        receive_into(chips.data.cast("B"))
    return Chunk(head.part, head.last, chips, faces, frames, head.outcome)


def _rows(table: pa.Table) -> bytes:
    """A table as JSON: unlike Arrow's own format it holds no offsets, and no compression that could be a bomb."""
    rows = table.to_pylist()
    for name in _binary(table.schema):
        for row in rows:
            row[name] = None if row[name] is None else base64.b64encode(row[name]).decode()
    return json.dumps(rows).encode()


def _table(data: bytes, schema: pa.Schema) -> pa.Table:
    try:
        rows = json.loads(data)
        if any(list(row) != schema.names for row in rows):
            raise ValueError("other columns")
        for name in _binary(schema):
            for row in rows:
                row[name] = None if row[name] is None else base64.b64decode(row[name])
        return pa.Table.from_pylist(rows, schema=schema)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:  # pyarrow's own are of these kinds
        raise Nonsense("rows that are none") from error


def _binary(schema: pa.Schema) -> list[str]:
    return [field.name for field in schema if pa.types.is_binary(field.type)]


class Pictures(Protocol):
    """The pictures of a unit, read in their order."""

    def read(self, name: str) -> bytes | None:
        """Return a picture's bytes, or None if there is none of this name; VideoError if they cannot be read."""
        ...

    def close(self) -> None:
        """Let go of what is not read yet."""
        ...


class FilesForChild:
    """The parent's side of the child's reads: of the files that it was given, and no other."""

    def __init__(self) -> None:
        self._given: dict[str, tuple[Callable[[], Location], int | None]] = {}
        self._open: dict[str, Any] = {}
        self._pictures: tuple[str, Pictures] | None = None

    def give_pictures(self, name: str, pictures: Pictures) -> None:
        """Let the child read pictures, as files below `name`, in place of the ones or the file that had this name."""
        self._close(name)
        self._given.pop(name, None)
        self._pictures = name, pictures

    def give(self, name: str, locate: Callable[[], Location], size_bytes: int | None = None) -> None:
        """Let the child read a file, in place of the one that had this name."""
        self._close(name)
        self._given[name] = locate, size_bytes

    def close(self) -> None:
        """Close what is open."""
        for name in [*self._open, *([self._pictures[0]] if self._pictures else [])]:
            self._close(name)

    def _close(self, name: str) -> None:
        if self._pictures is not None and self._pictures[0] == name:
            self._pictures[1].close()
            self._pictures = None
        if (file := self._open.pop(name, None)) is not None:
            file.close()

    def answer(self, message: bytes) -> bytes:
        """The answer to a child's read. Nonsense if it may not read that."""
        try:
            start, end = _RANGE.unpack(message[: _RANGE.size])
            name = message[_RANGE.size :].decode()
        except (struct.error, UnicodeDecodeError) as error:
            raise Nonsense("no range") from error
        folder, _, picture = name.partition("/")
        is_picture = self._pictures is not None and self._pictures[0] == folder and picture != ""
        if not (is_picture or name in self._given) or not 0 <= end - start <= MAX_MESSAGE_BYTES:
            raise Nonsense("a file or range that it was not given")
        try:
            return _DONE + (self._read_picture if is_picture else self._read)(picture or name, start, end)
        except VideoError as error:
            return _failure(error.code, str(error))
        except StorageError as error:
            return _failure(unreadable_code(error), str(error))
        except transport_errors() as error:
            return _failure(unreadable_code(error), explain(error), name)
        except ValueError:  # fsspec's, of a server that gives no ranges
            return _failure(ErrorCode.FETCH_FAILED, "its server gives no part of it alone", name)

    def _read_picture(self, name: str, start: int, end: int) -> bytes:
        assert self._pictures is not None
        data = self._pictures[1].read(name)
        if data is None:
            raise Nonsense("a picture that it was not given")
        return _SIZE.pack(len(data)) if start == end else data[start:end]

    def _read(self, name: str, start: int, end: int) -> bytes:
        file = self._open.get(name)
        if file is None:
            locate, size_bytes = self._given[name]
            file = self._open[name] = open_ranges(locate(), size_bytes=size_bytes, cached=False)
        if start == end:  # the child asks for the size
            return _SIZE.pack(file.seek(0, 2))
        file.seek(start)
        return bytes(file.read(end - start))


def _failure(code: ErrorCode, text: str, name: str | None = None) -> bytes:
    return _FAILED + json.dumps({"code": code, "text": text, "name": name}).encode()


class ServedFiles(AbstractFileSystem):  # type: ignore[misc]
    """The child's side: a filesystem of the files that the parent reads for it."""

    protocol = "served"
    cachable = False

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection, self._lock = connection, threading.Lock()  # pyarrow reads in threads of its own
        self._uris: dict[str, str] = {}

    def location(self, name: str, uri: str) -> Location:
        """A file that the parent has given; `uri` is safe to print."""
        self._uris[name] = uri
        return Location(self, name, uri)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Name, size and type of a file."""
        return {"name": path, "size": _SIZE.unpack(self.ask(path, 0, 0))[0], "type": "file"}

    def _open(self, path: str, mode: str = "rb", **options: Any) -> AbstractBufferedFile:
        return _ServedFile(self, path, mode, **{name: options[name] for name in _OPTIONS if name in options})

    def ask(self, path: str, start: int, end: int) -> bytes:
        """Bytes of a file; of an empty range, the packed size. VideoError if the parent cannot read it."""
        with self._lock:
            self._connection.send_bytes(READ + _RANGE.pack(start, end) + path.encode())
            answer = self._connection.recv_bytes()
        if answer[:1] == _DONE:
            return answer[1:]
        failure = json.loads(answer[1:])
        of = f"{self._uris.get(failure['name'], failure['name'])}: " if failure["name"] else ""
        raise VideoError(of + failure["text"], code=ErrorCode(failure["code"]))


class _ServedFile(AbstractBufferedFile):  # type: ignore[misc]
    def _fetch_range(self, start: int, end: int) -> bytes:
        data: bytes = self.fs.ask(self.path, start, end)
        return data
