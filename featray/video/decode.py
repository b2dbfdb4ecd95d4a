"""Decoding one unit of one video: the frames that are sampled, and an account of all.

What must stay true: the frames of all units together are those of a full decode, each
once, with the same pixels and times. A seek is therefore never trusted: it must land
before the unit and meet its first frame's exact time, or we go further back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any, Protocol

import av.error

from featray.config import DecodeConfig
from featray.errors import ErrorCode, VideoError
from featray.video.container import open_video, video_errors
from featray.video.frame import Frame
from featray.video.units import Sampler, Unit

_BACK_OFF_SECONDS = (0, 1, 4, 16)
"""How far before a unit's start to seek, in turn, until its first frame is met; then from the beginning."""


@dataclass
class DecodeAccount:
    """What a unit's decoding came to; filled while its frames are consumed.

    Attributes:
        frames_decoded: frames of the unit that the decoder gave, sampled or not.
        damaged_packets: packets that the decoder refused.
        sar: sample aspect ratio as `num:den`, `1:1` where the stream does not say.
        rotation_degrees, width_px, height_px: of the first frame; size after rotation.
        last_pts_us: presentation time of the last frame.
    """

    frames_decoded: int = 0
    damaged_packets: int = 0
    sar: str = "1:1"
    rotation_degrees: int = 0
    width_px: int = 0
    height_px: int = 0
    last_pts_us: int | None = None
    errors: list[tuple[ErrorCode, str]] = field(default_factory=list)


class Decoder(Protocol):
    """A backend: yields the sampled frames of a unit in presentation order, filling the account."""

    def __call__(self, file: IO[bytes], unit: Unit, settings: DecodeConfig, account: DecodeAccount) -> Iterator[Frame]:
        """The sampled frames of `unit`."""
        ...


def open_decoder(backend: str) -> Decoder:
    """The decoder of that name."""
    return DECODERS[backend]()


def decode_pyav(file: IO[bytes], unit: Unit, settings: DecodeConfig, account: DecodeAccount) -> Iterator[Frame]:
    """Decode with PyAV (FFmpeg), one thread.

    Raises:
        VideoError: the file cannot be opened, or its frames are larger than allowed. Damage
            inside the stream does not raise: it is counted, and decoding goes on behind it.
    """
    with open_video(file) as (container, stream), video_errors("decoding"):
        _refuse_huge(stream.codec_context.width, stream.codec_context.height, settings.max_pixels)
        sampler = Sampler(settings.sample, stream.time_base, unit)
        index = unit.first_index
        for picture in _frames_of_unit(container, stream, unit, account):
            frame = Frame.of(picture, index=index, pts_us=round(picture.pts * picture.time_base * 1_000_000))
            if not account.frames_decoded:
                _note_picture(account, stream, frame)
            account.frames_decoded += 1
            account.last_pts_us = frame.pts_us
            if sampler.takes(index, picture.pts):
                _refuse_huge(picture.width, picture.height, settings.max_pixels)
                yield frame
            index += 1
    if account.damaged_packets:
        account.errors.append((ErrorCode.DECODE_FAILED, f"{account.damaged_packets} damaged packets were left out"))


def _frames_of_unit(container: Any, stream: Any, unit: Unit, account: DecodeAccount) -> Iterator[Any]:
    pictures = _from_start(container, stream, unit, account)
    for picture in pictures:
        if unit.end_pts is not None and picture.pts >= unit.end_pts:
            return
        yield picture


def _from_start(container: Any, stream: Any, unit: Unit, account: DecodeAccount) -> Iterator[Any]:
    if unit.start_pts is None:
        yield from _decode(container, stream, account)
        return
    for seconds in (*_BACK_OFF_SECONDS, None):
        before = account.damaged_packets
        if seconds is None:
            container.seek(0, backward=True)
        else:
            with video_errors("seeking"):
                container.seek(unit.start_pts - int(seconds / stream.time_base), stream=stream, backward=True)
        pictures = _decode(container, stream, account)
        first = next(pictures, None)
        if first is None or (first.pts > unit.start_pts and seconds is not None):
            account.damaged_packets = before
            continue
        while first is not None and first.pts < unit.start_pts:
            first = next(pictures, None)
        # Damage before the unit belongs to the unit before; a seek into an open GOP makes some up.
        account.damaged_packets = before
        if first is not None and first.pts == unit.start_pts:
            yield first
            yield from pictures
            return
    raise VideoError(
        f"the frame at pts {unit.start_pts} where unit {unit.index} starts was not found again",
        code=ErrorCode.DECODE_FAILED,
    )


def _decode(container: Any, stream: Any, account: DecodeAccount) -> Iterator[Any]:
    """All frames from the current position, in presentation order; damaged packets are counted."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.error.InvalidDataError:
            account.damaged_packets += 1
            return  # the demuxer itself gave up: there is nothing behind this
        try:
            pictures = packet.decode()
        except av.error.InvalidDataError:
            account.damaged_packets += 1
            continue
        for picture in pictures:
            if picture.pts is not None:
                yield picture


def _note_picture(account: DecodeAccount, stream: Any, frame: Frame) -> None:
    account.rotation_degrees = frame.rotation_degrees
    account.width_px, account.height_px = frame.width_px, frame.height_px
    sar = stream.sample_aspect_ratio
    account.sar = f"{sar.numerator}:{sar.denominator}" if sar else "1:1"


def _refuse_huge(width_px: int, height_px: int, max_pixels: int) -> None:
    if width_px * height_px > max_pixels:
        raise VideoError(
            f"frames of {width_px}x{height_px} exceed decode.max_pixels {max_pixels}", code=ErrorCode.TOO_LARGE
        )


DECODERS: dict[str, Callable[[], Decoder]] = {"pyav": lambda: decode_pyav}
