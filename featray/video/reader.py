"""Video. The file that FFmpeg reads from: one object, read-only, without a name.

If a file's content is ambiguous, FFmpeg guesses the format from its name. Without a name it
uses only the content.
"""

from __future__ import annotations

import io
import os
from typing import IO


class Reader:
    """A nameless, seekable view of a binary file.

    Set `hollow` to return zeros instead of the file's bytes, which are then not fetched. Use it to
    list the packets of a file whose index has been read: FFmpeg reads every packet's payload on
    the way, which over a network means downloading the whole file.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._position = file.seek(0)
        self.size_bytes = file.seek(0, os.SEEK_END)
        self.hollow = False

    def read(self, size: int = -1) -> bytes:
        """Return bytes from the current position; fewer at the end."""
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
        """Return bytes from any position without moving; fewer at the end."""
        if not 0 <= position < self.size_bytes:
            return b""
        self._file.seek(position)
        return self._file.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position; raise `io.UnsupportedOperation` for one before the start."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size_bytes}[whence]
        if base + offset < 0:
            raise io.UnsupportedOperation("a position before the start of the file")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """Return the current position."""
        return self._position
