"""Sources. Tar shards: find the byte range of each video in a tar, in bounded memory.

A tar's headers may ask for gigabytes (a long name, a sparse map) and nest endlessly; this module limits each.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import IO, Any, Final

from featray.errors import ErrorCode
from featray.identity import video_id
from featray.redaction import readable_name
from featray.sources.entry import (
    MAX_BYTES,
    MAX_ENTRIES,
    PICTURE_SUFFIXES,
    VIDEO_SUFFIXES,
    Entry,
    is_apple_double,
    suffix,
)
from featray.sources.keyset import KeySet

MAX_HEADER_BYTES: Final = 1 << 15
"""Size limit of a long name or a pax header. tarfile reads them whole; before CPython 3.11.10 the time grew with the
square of the size."""

MAX_NAME_CHARS: Final = 4096
"""Length limit of a member's name: that of a path on Linux."""

_MAX_SPARSE_BLOCKS: Final = 1 << 16
_PADDING_BYTES: Final = 1 << 20
"""Limit of zeros after the end of a tar: writers pad to a full record, usually 10 KiB, at most 1 MiB."""

_SIZED_HEADERS: Final = frozenset(
    (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
)


def read_tar(file: IO[bytes], *, pictures: bool = False) -> Iterator[Entry]:
    """Yield the videos of a tar, and of tars appended to it with `cat`; pictures too if asked for.

    Raises:
        TarError: it is damaged or truncated.
    """
    seen = KeySet()  # hashes only: a million names of 4096 characters would be gigabytes
    for count, member in enumerate(_members(file)):
        if count >= MAX_ENTRIES:
            text = f"more than {MAX_ENTRIES} members; the rest is left out"
            yield Entry(problem=(ErrorCode.BAD_SHARD, text))
            return
        ending = suffix(member.name)
        is_picture = pictures and ending in PICTURE_SUFFIXES
        if not member.isreg() or not (is_picture or ending in VIDEO_SUFFIXES) or is_apple_double(member.name):
            continue
        if len(member.name) > MAX_NAME_CHARS:
            text = f"a member's name has {len(member.name)} characters; the limit is {MAX_NAME_CHARS}"
            yield Entry(problem=(ErrorCode.BAD_SHARD, text))
            continue
        name = readable_name(member.name)
        named = name if seen.add(int(video_id(name), 16)) else f"{name}@{member.offset_data}"
        if member.sparse is not None:
            text = f"{named} is a sparse member, which is not supported; write the tar without --sparse (-S)"
            yield Entry(member=named, problem=(ErrorCode.BAD_SHARD, text), is_picture=is_picture)
            continue
        place = {"offset": member.offset_data, "size": member.size}
        yield Entry(member=named, place=place, size_bytes=member.size, is_picture=is_picture)


class _Bounded(tarfile.TarInfo):
    """A header read within limits; a sparse member keeps its position in the tar but no map.

    These methods are tarfile's internal steps of reading a header (CPython 3.11 to 3.14); there is no public API for
    them. `test_tars.py` fails if one is no longer called.
    """

    def _proc_member(self, tar: tarfile.TarFile) -> Any:
        if self.type in _SIZED_HEADERS and not 0 <= self.size <= MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {self.size} bytes, above the limit of {MAX_HEADER_BYTES},")
        return super()._proc_member(tar)  # type: ignore[misc]

    def _proc_sparse(self, tar: Any) -> Any:
        _, extended, _ = self._sparse_structs  # type: ignore[attr-defined]
        del self._sparse_structs  # type: ignore[attr-defined]
        blocks = 0
        while extended:
            block = tar.fileobj.read(tarfile.BLOCKSIZE)
            blocks += 1
            if len(block) < tarfile.BLOCKSIZE or blocks > _MAX_SPARSE_BLOCKS:
                raise tarfile.ReadError("a sparse map that does not end")
            extended = bool(block[504])
        self.sparse: Any = []
        self.offset_data = tar.fileobj.tell()
        tar.offset = self.offset_data + self._block(self.size)  # type: ignore[attr-defined]
        return self

    def _proc_gnusparse_00(self, following: Any, *_: Any) -> None:
        following.sparse = []

    _proc_gnusparse_01 = _proc_gnusparse_10 = _proc_gnusparse_00


def _members(file: IO[bytes]) -> Iterator[tarfile.TarInfo]:
    """Yield all members of a tar, and of tars appended to it.

    Raises:
        TarError: it is damaged or truncated; the message gives the byte and the last good member.
    """
    begin: int | None = 0
    at, last = 0, "no member"
    while begin is not None:
        at = begin
        try:
            file.seek(begin)
            tar = tarfile.open(fileobj=file, mode="r:", tarinfo=_Bounded)
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # or tarfile would keep every header it reads
                tar.pax_headers = {}  # drop global headers: they give no position or name
                if member.size < 0:
                    raise tarfile.ReadError("negative size")
                if member.size > MAX_BYTES:
                    raise tarfile.ReadError("a size beyond that of any file")
                yield member
                at, last = tar.offset, f"member {readable_name(member.name[:MAX_NAME_CHARS])}"
            begin = _next_archive(file, tar.offset)
        except RecursionError:  # consecutive headers: tarfile reads each inside the one before
            raise tarfile.ReadError(f"too many headers in a row at byte {at}, after {last}") from None
        except (tarfile.TarError, ValueError, OverflowError) as error:
            raise tarfile.ReadError(f"{error} at byte {at}, after {last}") from error


def _next_archive(file: IO[bytes], end: int) -> int | None:
    """Return where another tar begins after the one that ends at `end`; None if there is none.

    Except at the very beginning, tarfile silently treats anything that is not a header as the end.

    Raises:
        ReadError: the bytes at `end` are not the end of a tar.
    """
    file.seek(end)
    block = file.read(tarfile.BLOCKSIZE)
    if any(block):
        raise tarfile.ReadError("neither a header nor an end")
    # End of file right after the last member counts as an end too: writers that are not closed omit the end blocks, and
    # GNU tar and Python read such files silently. A copy truncated exactly there looks the same; a copy truncated
    # anywhere else is detected.
    padding = file.read(_PADDING_BYTES)
    zeros = len(padding) - len(padding.lstrip(b"\0"))
    return None if zeros == len(padding) else end + len(block) + zeros // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
