"""Video. The file that FFmpeg reads from: one object, read only, without a name.

FFmpeg guesses a format from a file's name where its content does not decide; a file without
a name is judged by its content alone.
"""

from __future__ import annotations

import io
import os
from typing import IO


class Reader:
    """A nameless, seekable view of a binary file.

    Set `hollow` to give zeros instead of the file's bytes, which then are not fetched. It is
    meant for listing the packets of a file whose index has been read already: FFmpeg reads
    every packet's payload on the way, and over a network that is the whole file.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._position = file.seek(0)
        self.size_bytes = file.seek(0, os.SEEK_END)
        self.hollow = False

    def read(self, size: int = -1) -> bytes:
        """Bytes from the current position; fewer at the end."""
        left = max(0, self.size_bytes - self._position)
        size = left if size < 0 else min(size, left)
        if not size:
            return b""
        if self.hollow:
            data = bytes(size)
        else:
            self._file.seek(self._position)
            data = self._file.read(size)
        self._position += len(data)
        return data

    def read_at(self, position: int, size: int) -> bytes:
        """Bytes from anywhere, without moving; fewer at the end."""
        if not 0 <= position < self.size_bytes:
            return b""
        self._file.seek(position)
        return self._file.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move; positions before the start are refused."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size_bytes}[whence]
        if base + offset < 0:
            raise io.UnsupportedOperation("a position before the start of the file")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """The current position."""
        return self._position
