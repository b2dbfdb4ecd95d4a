"""Extract. The protocol between parent and child: validated JSON and raw bytes. The parent never unpickles.

The child has read hostile bytes, so the parent treats its messages as hostile: it checks sizes, field names and the
consistency of counts. The child has no network: the parent reads the video for it, range by range.
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
from featray.store.failures import explain, transport_errors, unreadable_code
from featray.store.location import Location
from featray.store.storage import open_ranges

VIDEO: Final = "video"
"""The child's name for the file of the requested video."""

MAX_MESSAGE_BYTES: Final = 256 << 20
"""Size limit for a plan, for a chunk's rows and for a range of a file."""

READ: Final = b"R"
"""First byte of the child's message that asks for a range of a file; all others start with ANSWER."""
ANSWER: Final = b"A"

_DONE, _FAILED = b"D", b"F"
_RANGE: Final = struct.Struct("<QQ")
_SIZE: Final = struct.Struct("<Q")
_OPTIONS: Final = ("block_size", "cache_type", "size")


class Nonsense(Exception):
    """The child sent an invalid message."""


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
    """Parse a plan sent by `send_plan`; raise Nonsense if it is invalid."""
    try:
        return parse_plan(data)
    except ValueError as error:
        raise Nonsense("an invalid plan") from error


def send_chunk(connection: Connection, chunk: Chunk) -> None:
    """Send a chunk to the parent. Chips are sent as raw bytes; the head gives their number."""
    connection.send_bytes(ANSWER + dump(_ChunkHead(chunk.part, chunk.last, len(chunk.chips), chunk.outcome)))
    connection.send_bytes(ANSWER + _rows(chunk.faces))
    connection.send_bytes(ANSWER + _rows(chunk.frames))
    left = chunk.chips.data.cast("B") if len(chunk.chips) else memoryview(b"")
    while left:
        left = left[os.write(connection.fileno(), left) :]


def receive_into(connection: Connection, memory: memoryview) -> None:
    """Read raw bytes from the socket straight into their final memory, so that chips are copied only once.

    Raises:
        EOFError: the socket closed before the memory was full.
    """
    while memory:
        count = os.readv(connection.fileno(), [memory])
        if not count:
            raise EOFError
        memory = memory[count:]


def read_chunk(receive: Callable[[], bytes], receive_into: Callable[[memoryview], None], max_chips: int) -> Chunk:
    """Read a chunk sent by `send_chunk`; raise Nonsense if it is invalid.

    Args:
        receive: returns the next message.
        receive_into: fills memory with the raw bytes that follow.
        max_chips: limit on the chips and on the faces of a chunk.
    """
    try:
        head = load(_ChunkHead, receive())
        check_failures(head.outcome.failures)
    except ValueError as error:
        raise Nonsense("an invalid head of a chunk") from error
    faces, frames = _table(receive(), DETECTED_SCHEMA), _table(receive(), FRAMES_SCHEMA)
    if not 0 <= head.chips <= faces.num_rows <= max_chips:
        raise Nonsense("an impossible number of chips")
    if set(faces["chip"].to_pylist()) != set(range(head.chips)):
        raise Nonsense("chips that do not match its faces")
    chips = np.empty((head.chips, CHIP_PX, CHIP_PX, 3), np.uint8)
    if head.chips:
        receive_into(chips.data.cast("B"))
    return Chunk(head.part, head.last, chips, faces, frames, head.outcome)


def _rows(table: pa.Table) -> bytes:
    """Return a table as JSON, which unlike Arrow's format has no offsets to forge and no compression bombs."""
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
    except (ValueError, TypeError, OverflowError, RecursionError) as error:  # pyarrow's errors derive from these
        raise Nonsense("invalid rows") from error


def _binary(schema: pa.Schema) -> list[str]:
    return [field.name for field in schema if pa.types.is_binary(field.type)]


class Pictures(Protocol):
    """The pictures of a unit, read in order."""

    def read(self, name: str) -> bytes | None:
        """Return a picture's bytes, or None if there is no such picture; VideoError if it cannot be read."""
        ...

    def close(self) -> None:
        """Cancel the reads that have not started."""
        ...


class FilesForChild:
    """The parent's side of the child's reads, limited to the files that the child was given."""

    def __init__(self) -> None:
        self._given: dict[str, tuple[Callable[[], Location], int | None]] = {}
        self._open: dict[str, Any] = {}
        self._pictures: tuple[str, Pictures] | None = None

    def give_pictures(self, name: str, pictures: Pictures) -> None:
        """Let the child read pictures as files below `name`; they replace what had this name before."""
        self._close(name)
        self._given.pop(name, None)
        self._pictures = name, pictures

    def give(self, name: str, locate: Callable[[], Location], size_bytes: int | None = None) -> None:
        """Let the child read a file; it replaces the file that had this name before."""
        self._close(name)
        self._given[name] = locate, size_bytes

    def close(self) -> None:
        """Close all open files."""
        for name in [*self._open, *([self._pictures[0]] if self._pictures else [])]:
            self._close(name)

    def _close(self, name: str) -> None:
        if self._pictures is not None and self._pictures[0] == name:
            self._pictures[1].close()
            self._pictures = None
        if (file := self._open.pop(name, None)) is not None:
            file.close()

    def answer(self, message: bytes) -> bytes:
        """Answer a read of the child; raise Nonsense if it may not read that."""
        try:
            start, end = _RANGE.unpack(message[: _RANGE.size])
            name = message[_RANGE.size :].decode()
        except (struct.error, UnicodeDecodeError) as error:
            raise Nonsense("an invalid range") from error
        folder, _, picture = name.partition("/")
        is_picture = self._pictures is not None and self._pictures[0] == folder and picture != ""
        if not (is_picture or name in self._given) or not 0 <= end - start <= MAX_MESSAGE_BYTES:
            raise Nonsense("a read of a file or range that it was not given")
        try:
            return _DONE + (self._read_picture if is_picture else self._read)(picture or name, start, end)
        except VideoError as error:
            return _failure(error.code, str(error))
        except StorageError as error:
            return _failure(unreadable_code(error), str(error))
        except transport_errors() as error:
            return _failure(unreadable_code(error), explain(error), name)
        except ValueError:  # fsspec's error for a server without range requests
            return _failure(ErrorCode.FETCH_FAILED, "its server does not support range requests", name)

    def _read_picture(self, name: str, start: int, end: int) -> bytes:
        assert self._pictures is not None
        data = self._pictures[1].read(name)
        if data is None:
            raise Nonsense("a read of a picture that it was not given")
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
    """The child's side: a filesystem with the files that the parent reads for it."""

    protocol = "served"
    cachable = False

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection, self._lock = connection, threading.Lock()  # pyarrow reads in its own threads
        self._uris: dict[str, str] = {}

    def location(self, name: str, uri: str) -> Location:
        """Return the location of a file that the parent serves; `uri` must be safe to print."""
        self._uris[name] = uri
        return Location(self, name, uri)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return name, size and type of a file."""
        return {"name": path, "size": _SIZE.unpack(self.ask(path, 0, 0))[0], "type": "file"}

    def _open(self, path: str, mode: str = "rb", **options: Any) -> AbstractBufferedFile:
        return _ServedFile(self, path, mode, **{name: options[name] for name in _OPTIONS if name in options})

    def ask(self, path: str, start: int, end: int) -> bytes:
        """Return bytes of a file, or its packed size for an empty range; VideoError if the parent cannot read it."""
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
