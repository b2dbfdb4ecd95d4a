"""Video. Decode the pictures of one stream in presentation order, and count what was lost.

FFmpeg's decoders silently continue after damage: they drop frames, or conceal them with data from
neighbouring frames. Therefore every packet that should produce a picture is remembered until a
picture with its time comes out. Pictures that never come are counted, and so are concealed ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import av.error

from featray.video.holes import MOST_LOST_FRAMES, Holes
from featray.video.scan import is_shown, read_packets, starts_decoding
from featray.video.shape import PixelShapes

Place = tuple[int | None, int | None]
"""Time in stream ticks, and byte in the file, as far as known."""


_LONGEST_GAP = 100_000  # frames

_JOINED_ANYWHERE = ("mpegts", "mpeg")
"""Broadcast recordings may start at any packet; other containers that start without a keyframe are damaged."""


@dataclass
class Losses:
    """Counts of lost pictures.

    Attributes:
        refused: places of packets that the decoder refused, or after which the demuxer gave up.
        patched: places of pictures that came out damaged; they are kept.
        silent: times (ticks) of packets without a picture so far, with their byte positions in the file.
    """

    refused: list[Place] = field(default_factory=list)
    patched: list[Place] = field(default_factory=list)
    silent: dict[int, int | None] = field(default_factory=dict)

    def forget(self) -> None:
        """Clear what was refused and patched so far, because it belongs to another unit."""
        self.refused.clear()
        self.patched.clear()

    def within(self, start: int | None, end: int | None) -> Losses:
        """Return the losses whose time is in `[start, end)` or unknown."""
        return Losses(
            [place for place in self.refused if _within(place[0], start, end)],
            [place for place in self.patched if _within(place[0], start, end)],
            {ticks: byte for ticks, byte in self.silent.items() if _within(ticks, start, end)},
        )


def _within(ticks: int | None, start: int | None, end: int | None) -> bool:
    return ticks is None or ((start is None or ticks >= start) and (end is None or ticks < end))


class Pictures:
    """Decodes a stream from its container's current position; reports every packet to `shapes`."""

    def __init__(self, container: Any, stream: Any, shapes: PixelShapes) -> None:
        self._container = container
        self._stream = stream
        self._shapes = shapes
        self.losses = Losses()
        self._follow_times = True
        self._first_key_ticks: int | None = None
        self._next_ticks: int | None = None
        self._container_name = container.format.name.split(",")[0]
        self._holes = Holes(container.file.file, self._container_name)
        self._last: Place = (None, None)

    def run(self, *, keyframe_pts: int | None = None) -> Iterator[Any]:
        """Yield all pictures from the current position, or from a keyframe.

        Args:
            keyframe_pts: skip all packets before the keyframe with this time without decoding them. If the
                next keyframe is a later one, the position is too late and nothing is yielded.
        """
        found = keyframe_pts is None
        for packet in self._packets():
            if not found:
                if packet.pts is None or packet.pts < keyframe_pts or not packet.is_keyframe:
                    continue
                if packet.pts > keyframe_pts or not starts_decoding(packet, self._stream):
                    return
                found = True
            yield from self._decoded(packet)
        if found:
            yield from self._drained()
            self.losses.silent.update(dict.fromkeys(self._holes.missing_at_end()))
            if self._stream.duration is not None:
                self._expect_up_to((self._stream.start_time or 0) + self._stream.duration)

    def unshown(self, start: int | None, end: int | None) -> list[int]:
        """Return the times in `[start, end)` of the packets without a picture, ascending."""
        return sorted(self.losses.within(start, end).silent) if self._follow_times else []

    def _packets(self) -> Iterator[Any]:
        try:
            for packet in read_packets(self._container, self._stream):
                if packet.size:  # the last packet is empty; the decoder is drained below
                    self._last = (packet.dts if packet.pts is None else packet.pts, packet.pos)
                    yield packet
        except av.error.FFmpegError:
            self.losses.refused.append(self._last)  # the demuxer gave up: no packets follow

    def _decoded(self, packet: Any) -> Iterator[Any]:
        self._expect(packet)
        try:
            pictures = packet.decode()
        except av.error.MemoryError:
            raise
        except av.error.FFmpegError:
            self.losses.refused.append(self._last)
            self.losses.silent.pop(packet.pts, None)
            return
        self._shapes.note_packet(packet)
        for picture in pictures:
            yield self._accounted(picture)

    def _drained(self) -> Iterator[Any]:
        while True:
            try:
                pictures = self._stream.codec_context.decode(None)
            except av.error.MemoryError:
                raise
            except av.error.FFmpegError:
                return  # the end, or damage; then the picture counts as unshown
            if not pictures:
                return
            for picture in pictures:
                yield self._accounted(picture)

    def _expect(self, packet: Any) -> None:
        """Remember that a picture with the packet's time is expected."""
        if packet.pts is None:
            return
        self._expect_up_to(packet.pts)
        self._next_ticks = packet.pts + 1
        if not is_shown(packet, self._stream):
            return
        self._holes.note_packet(packet)
        if self._first_key_ticks is None:
            if not packet.is_keyframe and self._container_name in _JOINED_ANYWHERE:
                return
            self._first_key_ticks = packet.pts
        # Frames shown before the first keyframe refer to frames that are not in the file.
        if packet.pts >= self._first_key_ticks:
            self.losses.silent[packet.pts] = packet.pos

    def _expect_up_to(self, ticks: int) -> None:
        """Expect a Theora picture at every tick, even if nothing moves; a damaged Ogg page leaves no other trace."""
        if self._stream.codec_context.name == "theora" and self._next_ticks is not None:
            longest = min(_LONGEST_GAP, MOST_LOST_FRAMES - len(self.losses.silent))
            end = min(ticks, self._next_ticks + longest)
            self.losses.silent.update(dict.fromkeys(range(self._next_ticks, end)))

    def _accounted(self, picture: Any) -> Any:
        if picture.interlaced_frame:
            self._follow_times = False  # two packets, one per field, may make one picture
        if picture.pts is not None:
            self.losses.silent.update(dict.fromkeys(self._holes.missing_before(picture)))
            self.losses.silent.pop(picture.pts, None)
        if picture.is_corrupt:
            self.losses.patched.append((picture.pts, None))
        return picture


def damage_report(losses: Losses, unshown: list[int], seconds_a_tick: float) -> str | None:
    """Return a text with the losses and the first place; None if there are none."""
    counts = (
        (len(losses.refused), "damaged packets left out"),
        (len(losses.patched), "damaged frames kept"),
        (len(unshown), "frames missing"),
    )
    places = [*losses.refused, *losses.patched, *((ticks, losses.silent.get(ticks)) for ticks in unshown)]
    if not places:
        return None
    ticks, byte = min(places, key=lambda place: (place[0] is None, place[0] or 0))
    time = "an unknown time" if ticks is None else f"{ticks * seconds_a_tick:.3f} s"
    where = "" if byte is None else f", byte {byte}"
    return f"{', '.join(f'{number} {what}' for number, what in counts if number)}; the first at {time}{where}"
