"""Video. Detect damaged bytes between two packets that the demuxer skipped.

FFmpeg's demuxers for Matroska, FLV and MPEG-TS silently continue at the next good position, and
the skipped data is lost. A gap in time may be such a loss or a normal pause; therefore, at gaps
only, the container's structure is followed across the gap.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Final

from featray.video.reader import Reader
from featray.video.structure import BLOCKS, flv_tags, matroska_elements, transport_layout

_LONGEST_READ_BYTES = 8 << 20
_LONGEST_GAP_FRAMES = 100_000
MOST_LOST_FRAMES: Final = 1_000_000
"""Limit on lost frames of a video; each takes about 100 bytes until they are reported."""
_REMEMBERED_PACKETS = 64  # more than any decoder holds back
_BLOCK_HEADER_BYTES = 4  # Matroska block header at a packet's position, if the track number is below 128
_SMALL_TAG_BYTES = 64  # FLV: a decoder configuration or the end mark
_MAX_CHECKS = 100
"""Limit on gaps to check: a video with many gaps has pauses, and each check costs a read at an earlier position."""


class Holes:
    """Follows a stream's packets and pictures, and finds the times of frames that were lost between them."""

    def __init__(self, reader: Reader, container: str) -> None:
        self._reader = reader
        self._container = container
        self._checks_left = _MAX_CHECKS if container in ("matroska", "mpegts", "flv") else 0
        self._frames_left = MOST_LOST_FRAMES
        self._places: dict[int, tuple[int, int]] = {}
        self._furthest = (0, 0)
        self._positions: deque[int] = deque(maxlen=_REMEMBERED_PACKETS)
        self._before: tuple[int, int, tuple[int, int]] | None = None

    def note_packet(self, packet: Any) -> None:
        """Remember the position of a packet that has a time."""
        if self._checks_left and packet.pos is not None:
            self._furthest = self._places[packet.pts] = (packet.pos, packet.size)
            self._positions.append(packet.pos)

    def missing_before(self, picture: Any) -> Iterable[int]:
        """Return the times, in stream ticks, of frames lost between the previous picture and this one."""
        place = self._places.pop(picture.pts, None)
        before, self._before = self._before, place and (picture.pts, picture.duration, place)
        if before is None or place is None or not self._checks_left:
            return ()
        ticks, duration, place_before = before
        if picture.pts - ticks <= 1.5 * duration or not duration:
            return ()
        self._checks_left -= 1
        # Storage order differs from presentation order: check from the earlier of the two to the current position.
        if not self._passed_over(min(place, place_before), self._furthest[0]):
            return ()
        longest = ticks + _LONGEST_GAP_FRAMES * duration
        lost = range(ticks + duration, min(picture.pts - duration // 2, longest), duration)[: self._frames_left]
        self._frames_left -= len(lost)
        return lost

    def missing_at_end(self) -> Iterable[int]:
        """Return a time after the last picture if the file has frames after it."""
        if self._before is None or not self._passed_over(self._furthest, None):
            return ()
        return (self._before[0] + max(1, self._before[1]),)

    def _passed_over(self, first: tuple[int, int], end: int | None) -> bool:
        """Return whether data is missing between one packet (position and size) and another, or the file's end."""
        position, size = first
        if self._container == "mpegts":
            return end is not None and _transport_breaks(self._reader, position, end)
        if self._container == "flv":
            return _stands_between(_flv_places(self._reader, position), self._positions, end)
        start = position + _BLOCK_HEADER_BYTES + size
        if self._container != "matroska" or (end is not None and start >= end):
            return False
        return _stands_between(_matroska_places(self._reader, start, position), self._positions, end)


def _stands_between(places: Iterable[int], delivered: Collection[int], end: int | None) -> bool:
    """Return whether a packet was not delivered, or the structure does not lead to `end`."""
    for place in places:
        if place == end:
            return False
        if (end is not None and place > end) or place not in delivered:
            return True
    return end is not None  # problems at the end of a file are found by `ending.py`


def _matroska_places(reader: Reader, start: int, track_at: int) -> Iterator[int]:
    track = reader.read_at(track_at, 1)
    for identity, content, _ in matroska_elements(reader, start):
        if identity in BLOCKS and reader.read_at(content, 1) == track:
            yield content


def _flv_places(reader: Reader, start: int) -> Iterator[int]:
    for position, end in flv_tags(reader, start):
        if end - position > _SMALL_TAG_BYTES and reader.read_at(position, 1)[0] & 31 == 9:
            yield position


def _transport_breaks(reader: Reader, start: int, end: int) -> bool:
    """Return whether a transport packet of the same elementary stream, or a sync byte, is missing."""
    layout = transport_layout(reader)
    if layout is None or start >= end:
        return False
    data = reader.read_at(start, min(end - start, _LONGEST_READ_BYTES))
    stream = int.from_bytes(data[1:3], "big") & 0x1FFF
    counter: int | None = None
    for at in range(0, len(data) - 3, layout.length):
        if data[at] != 0x47:
            return True
        if int.from_bytes(data[at + 1 : at + 3], "big") & 0x1FFF != stream or not data[at + 3] & 0x10:
            continue
        this = data[at + 3] & 15
        if counter is not None and this not in (counter, (counter + 1) & 15):
            return True
        counter = this
    return False
