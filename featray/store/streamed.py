"""Store. Links to servers that send no length or no ranges: what they send is kept in a temporary file."""

from __future__ import annotations

import errno
import tempfile
from typing import IO, Any, Final, cast

MAX_STREAMED_BYTES: Final = 4 << 30
"""Of one object that can only be read from its beginning; each unit of a video reads it again."""

_CHUNK_BYTES: Final = 1 << 20


def takes_ranges(file: Any) -> bool:
    """Return whether a link's file, as fsspec opened it, can be read anywhere: asks for its last byte if it is long."""
    if file.size is None:
        return False
    if file.size <= _CHUNK_BYTES:  # it comes whole with the first block
        return True
    try:
        file._fetch_range(file.size - 1, file.size)  # what fsspec's files fetch blocks with
    except ValueError:  # fsspec's word for an answer that begins at the beginning
        return False
    return True


def kept(stream: Any) -> IO[bytes]:
    """Return all that a stream sends as a file without a name, which is gone when it is closed.

    Raises:
        OSError: it sends more than `MAX_STREAMED_BYTES`, or the disk is full.
    """
    file = tempfile.TemporaryFile(prefix="featray-")
    try:
        with stream:
            while data := stream.read(_CHUNK_BYTES):
                if file.tell() + len(data) > MAX_STREAMED_BYTES:
                    raise OSError(errno.EFBIG, "sent without a length or ranges, and too large to be kept")
                file.write(data)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return cast(IO[bytes], file)
