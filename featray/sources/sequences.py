"""Sources. Sequences: the pictures of a folder or tar, treated as the frames of a video.

A sequence is named by its folder with a trailing `/`; by its tar; or, if a glob selected some of a folder's files, by
the folder and the glob's last part. Its content id is computed from the names, sizes and etags (or dates) of its
pictures, independent of their order, so that a listing keeps one number per folder instead of the names.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from featray.errors import ErrorCode, VideoError
from featray.redaction import readable_name
from featray.sources.containers import read_entries
from featray.sources.entry import MAX_ENTRIES, content_id
from featray.sources.expand import files_in, glob_test, is_picture
from featray.sources.passed import PassedOver
from featray.store.location import Location

_DIGITS: Final = re.compile("([0-9]+)")


@dataclass(frozen=True)
class Sequence:
    """The way in which a video is made of pictures.

    Attributes:
        held: whether the pictures are files of a folder or members of a tar.
        pattern: pattern that selects the folder's files; None for all pictures.
        fps: pictures per second; None if they have no times or are `timed`.
        timed: whether the sequence's row in the manifest, `Video.extra`, has the time of each picture.
        related: whether the pictures follow each other in time.
    """

    held: Literal["folder", "tar"]
    pattern: str | None = None
    fps: float | None = None
    timed: bool = False
    related: bool = True


class Still(NamedTuple):
    """A picture of a sequence.

    Attributes:
        name: name in its folder or tar.
        size_bytes: size; -1 if unknown.
        offset: position of its bytes in the tar; None for a file.
        content: content id from the listing.
        problem: why it cannot be read, else None.
    """

    name: str
    size_bytes: int
    offset: int | None = None
    content: str = ""
    problem: str | None = None


def natural_key(name: str) -> tuple[Any, ...]:
    """Return a key that sorts names in natural order: `2.png` before `10.png`, and `02.png` before `2.png`.

    >>> sorted(["10.png", "2.png", "1.png"], key=natural_key)
    ['1.png', '2.png', '10.png']
    """
    parts = _DIGITS.split(name)
    # By length and digits: converting a number of ten thousand digits is slow in Python, or exceeds its limit.
    numbers = [(len(digits.lstrip("0")), digits.lstrip("0")) for digits in parts[1::2]]
    parts[1::2] = numbers
    return (*parts, name)


@dataclass
class Digest:
    """A digest of a sequence's listing that does not depend on its order.

    Attributes:
        count: number of pictures.
        size_bytes: sum of the known sizes.
    """

    count: int = 0
    size_bytes: int = 0
    _sum: int = 0

    def add(self, name: str, size_bytes: int, content: str) -> None:
        """Add a picture."""
        self.count += 1
        self.size_bytes += max(size_bytes, 0)
        line = f"{name}\0{content}".encode(errors="surrogatepass")
        self._sum = (self._sum + int.from_bytes(hashlib.sha256(line).digest())) % (1 << 256)

    @property
    def content_id(self) -> str:
        """Return an id of the pictures, as far as the listing identifies them."""
        return f"pictures:{self.count}:{self._sum:064x}"


class Gathered:
    """Collects the pictures that a listing finds, by sequence.

    Args:
        passed: counts the pictures once they are not needed.
    """

    def __init__(self, passed: PassedOver) -> None:
        self._found: dict[tuple[str, str | None], tuple[Location, Digest]] = {}
        self._counted = PassedOver()
        self._passed = passed
        self._is_wanted = True

    def add(self, picture: Location, info: dict[str, Any], pattern: str | None) -> None:
        """Add a picture.

        Args:
            picture: its location.
            info: its entry in the listing.
            pattern: pattern of the names in its sequence; None for the whole folder.
        """
        if not self._is_wanted:
            self._passed.file(picture.path)
            return
        self._counted.file(picture.path)
        folder, _, name = picture.path.partition("?")[0].rpartition("/")
        known = self._found.get((folder, pattern))
        if known is None:
            known = self._found[folder, pattern] = _sequence_location(picture, folder, pattern), Digest()
        known[1].add(name, _size(info), content_id(info))

    def give_up(self) -> None:
        """Stop collecting, because the input has videos: count the pictures found so far and later as skipped."""
        self._is_wanted = False
        self._found.clear()
        self._passed.files.update(self._counted.files)
        self._counted.files.clear()

    def sequences(self) -> Iterator[tuple[Location, str | None, Digest]]:
        """Yield the location, name pattern and digest of each sequence."""
        for (_, pattern), (location, digest) in self._found.items():
            yield location, pattern, digest


def _sequence_location(picture: Location, folder: str, pattern: str | None) -> Location:
    uri = picture.at(folder).uri.rstrip("/")
    return Location(picture.fs, f"{folder}/{pattern or ''}", f"{uri}/{pattern or ''}", picture.root)


def _size(info: dict[str, Any]) -> int:
    return -1 if info.get("size") is None else int(info["size"])


def list_stills(location: Location, sequence: Sequence) -> tuple[list[Still], str | None]:
    """Return a sequence's pictures in natural order, and the problem of its tar if it is truncated or damaged.

    Raises:
        VideoError: there are too many pictures.
        StorageError: the folder or tar cannot be read.
    """
    problem = None
    if sequence.held == "folder":
        stills = _in_folder(location, sequence.pattern)
    else:
        stills = []
        for entry in read_entries(location, None, pictures=True):
            if entry.is_picture:
                text = entry.problem[1] if entry.problem else None
                stills.append(Still(str(entry.member), entry.size_bytes, entry.place.get("offset"), problem=text))
            elif entry.problem:
                problem = entry.problem[1]
    return sorted(stills, key=lambda still: natural_key(still.name)), problem


def still_of(location: Location, info: dict[str, Any]) -> Still | None:
    """Return a file as a picture of a sequence; None if it is not a picture."""
    name = location.path.partition("?")[0].rpartition("/")[2]
    if not is_picture(name):
        return None
    safe = readable_name(name)
    problem = None if safe == name else "its name is not UTF-8, so no table can store it; rename the file"
    return Still(safe, _size(info), None, content_id(info), problem)


def _in_folder(location: Location, pattern: str | None) -> list[Still]:
    if pattern is not None:
        with suppress(OSError, ValueError):  # an existing name is that file, not a pattern
            one = still_of(location, location.fs.info(location.path))
            return [] if one is None else [one]
    folder = location.path.rpartition("/")[0] if pattern else location.path.rstrip("/")
    takes = glob_test(pattern) if pattern else lambda name: True
    stills: list[Still] = []
    for place, info in files_in(location, folder):
        still = still_of(place, info)
        if still is None or not takes(still.name):
            continue
        if len(stills) == MAX_ENTRIES:
            raise VideoError(
                f"{location.uri}: more than {MAX_ENTRIES} pictures in one folder; spread them over several",
                code=ErrorCode.TOO_LARGE,
            )
        stills.append(still)
    return stills


def digest_of(stills: list[Still]) -> Digest:
    """Return the digest of these pictures."""
    digest = Digest()
    for still in stills:
        digest.add(still.name, still.size_bytes, still.content)
    return digest
