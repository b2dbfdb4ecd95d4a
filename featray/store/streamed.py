"""Store. Download links of servers without content lengths or range requests into temporary files."""

from __future__ import annotations

import errno
import tempfile
from typing import IO, Any, Final, cast

MAX_STREAMED_BYTES: Final = 4 << 30
"""Size limit of an object that can only be read from its beginning; each unit of a video downloads it again."""

_CHUNK_BYTES: Final = 1 << 20


def takes_ranges(file: Any) -> bool:
    """Return whether a link's file, opened by fsspec, supports range requests; fetch its last byte if it is long."""
    if file.size is None:
        return False
    if file.size <= _CHUNK_BYTES:  # the first block contains the whole file
        return True
    try:
        file._fetch_range(file.size - 1, file.size)  # the method that fsspec's files fetch blocks with
    except ValueError:  # fsspec's error for an answer that ignores the range
        return False
    return True


def kept(stream: Any) -> IO[bytes]:
    """Copy a stream to an unnamed temporary file, which disappears when it is closed.

    Raises:
        OSError: the stream has more than `MAX_STREAMED_BYTES`, or the disk is full.
    """
    file = tempfile.TemporaryFile(prefix="featray-")
    try:
        with stream:
            while data := stream.read(_CHUNK_BYTES):
                if file.tell() + len(data) > MAX_STREAMED_BYTES:
                    raise OSError(errno.EFBIG, "sent without a length or ranges, and too large for a temporary file")
                file.write(data)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return cast(IO[bytes], file)
