"""Sources. Tar shards: which byte range each video of a tar is, in memory that no header can raise.

A tar's headers may ask for gigabytes (a long name, a sparse map) and nest without end; each is bounded here.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import IO, Any, Final

from featray.errors import ErrorCode
from featray.identity import video_id
from featray.redaction import readable_name
from featray.sources.entry import MAX_ENTRIES, PICTURE_SUFFIXES, VIDEO_SUFFIXES, Entry, is_apple_double, suffix
from featray.sources.keyset import KeySet

MAX_HEADER_BYTES: Final = 1 << 15
"""Of a long name or a pax header, which tarfile reads whole, and before CPython 3.11.10 in time that grows with its
square."""

MAX_NAME_CHARS: Final = 4096
"""Of a member: what Linux takes for a path."""

_MAX_SPARSE_BLOCKS: Final = 1 << 16
_PADDING_BYTES: Final = 1 << 20
"""Of zeros behind the end of a tar: writers fill up a record, of 10 KiB mostly, of a MiB at most."""

_SIZED_HEADERS: Final = frozenset(
    (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
)


def read_tar(file: IO[bytes], *, pictures: bool = False) -> Iterator[Entry]:
    """Yield the videos of a tar, and of the tars that were joined to it with `cat`; its pictures too if asked for.

    Raises:
        TarError: it is damaged or breaks off.
    """
    seen = KeySet()  # of hashes: a million names of 4096 characters would be gigabytes
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
            text = f"a member's name of {len(member.name)} characters; {MAX_NAME_CHARS} are read"
            yield Entry(problem=(ErrorCode.BAD_SHARD, text))
            continue
        name = readable_name(member.name)
        named = name if seen.add(int(video_id(name), 16)) else f"{name}@{member.offset_data}"
        if member.sparse is not None:
            text = f"{named} is a sparse member, which is not read; write the tar without --sparse (-S)"
            yield Entry(member=named, problem=(ErrorCode.BAD_SHARD, text), is_picture=is_picture)
            continue
        place = {"offset": member.offset_data, "size": member.size}
        yield Entry(member=named, place=place, size_bytes=member.size, is_picture=is_picture)


class _Bounded(tarfile.TarInfo):
    """A header that is read within bounds; a sparse member keeps its place in the tar, and no map.

    These are tarfile's own steps of reading a header (CPython 3.11 to 3.14), which it has no public door for;
    `test_tars.py` fails if one is not called any more.
    """

    def _proc_member(self, tar: tarfile.TarFile) -> Any:
        if self.type in _SIZED_HEADERS and not 0 <= self.size <= MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {self.size} bytes; {MAX_HEADER_BYTES} are read")
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
    """All members of a tar, and of the tars that were joined to it.

    Raises:
        TarError: it is damaged or breaks off; its text says where, and behind which member.
    """
    begin: int | None = 0
    at, last = 0, "no member"
    while begin is not None:
        at = begin
        try:
            file.seek(begin)
            tar = tarfile.open(fileobj=file, mode="r:", tarinfo=_Bounded)
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # or tarfile would keep every header it has read
                tar.pax_headers = {}  # what global headers said: nothing of a place or a name
                if member.size < 0:
                    raise tarfile.ReadError("negative size")
                yield member
                at, last = tar.offset, f"member {readable_name(member.name[:MAX_NAME_CHARS])}"
            begin = _next_archive(file, tar.offset)
        except RecursionError:  # headers of headers: tarfile reads each inside the one before
            raise tarfile.ReadError(f"too many headers in a row at byte {at}, behind {last}") from None
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
