"""Video. Decode one unit of a video: yield its sampled frames, and account for all frames.

What must stay true: the frames of all units together are those of a full decode, each
once, with the same pixels and times. Therefore a seek is never trusted: decoding must begin
at exactly the unit's keyframe and reach the unit's first frame at its exact time; otherwise
the decoder seeks further back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from typing import IO, Any, Protocol

import av.error

from featray.config import DecodeConfig
from featray.errors import ErrorCode
from featray.video.clock import Clock
from featray.video.container import open_video, refuse_huge, unread_tail, video_errors
from featray.video.frame import Frame
from featray.video.nvdec import as_from_cpu
from featray.video.pictures import Pictures, damage_report
from featray.video.shape import SQUARE, PixelShapes
from featray.video.tone import ToneMap, transfer_name
from featray.video.units import Bounds, Sampler, Unit

_BACK_OFF_SECONDS = (0, 1, 4, 16)
"""Distances before a unit's keyframe to seek to, in turn, until it is found; then decode from the beginning."""


@dataclass
class DecodeAccount:
    """The account of a unit's decoding; filled while its frames are consumed.

    Attributes:
        frames_decoded: frames of the unit that the decoder returned, sampled or not.
        damaged_packets: packets that the decoder refused.
        damaged_frames: frames that came out damaged and are kept.
        missing_frames: frames that packets should have produced but the decoder did not return.
        truncated: whether the file ends before its own structure says it should.
        sar: sample aspect ratio of the first frame as `num:den`; `1:1` if unknown.
        rotation_degrees, mirrored, width_px, height_px: properties of the first frame; size with square pixels, after
            rotation.
        transfer: transfer characteristic of the first frame, by FFmpeg's name.
        squared, tone_mapped: whether any frame's pixels were made square, or its tones mapped.
        last_pts_us: presentation time of the last frame.
        errors: codes and messages of problems that did not stop decoding, for the errors table.
    """

    frames_decoded: int = 0
    damaged_packets: int = 0
    damaged_frames: int = 0
    missing_frames: int = 0
    truncated: bool = False
    sar: str = "1:1"
    rotation_degrees: int = 0
    mirrored: bool = False
    width_px: int = 0
    height_px: int = 0
    transfer: str = transfer_name(2)
    squared: bool = False
    tone_mapped: bool = False
    last_pts_us: int | None = None
    errors: list[tuple[ErrorCode, str]] = field(default_factory=list)

    def note_frame(self, frame: Frame, sar: Fraction, transfer: int) -> None:
        """Count a frame; the first one sets the properties of the video."""
        if not self.frames_decoded:
            self.rotation_degrees, self.mirrored = frame.rotation_degrees, frame.mirrored
            self.width_px, self.height_px = frame.width_px, frame.height_px
            self.sar, self.transfer = f"{sar.numerator}:{sar.denominator}", transfer_name(transfer)
        self.squared = self.squared or frame.squared
        self.tone_mapped = self.tone_mapped or frame.tone_map is not None
        self.frames_decoded += 1
        self.last_pts_us = frame.pts_us

    def note_truncation(self, missing: str) -> None:
        """Record that the file is truncated, and where."""
        self.truncated = True
        where = "before its first frame" if self.last_pts_us is None else f"after {self.last_pts_us / 1e6:.3f} s"
        self.errors.append((ErrorCode.TRUNCATED, f"truncated {where}: {missing}"))


class Decoder(Protocol):
    """A backend: yields the sampled frames of a unit in presentation order and fills the account."""

    def __call__(
        self, file: IO[bytes], unit: Unit, settings: DecodeConfig, account: DecodeAccount, stride: int = 1
    ) -> Iterator[Frame]:
        """Yield the sampled frames of `unit`; with a stride (see `Bounds`) also the next unit's first, as `beyond`."""
        ...


def decode_pyav(
    file: IO[bytes], unit: Unit, settings: DecodeConfig, account: DecodeAccount, stride: int = 1
) -> Iterator[Frame]:
    """Decode with PyAV (FFmpeg), in one thread.

    Raises:
        VideoError: the file cannot be opened, or its frames are larger than allowed. Damage
            inside the stream does not raise: it is counted, and decoding continues after it.
    """
    try:
        yield from _decode_opened(file, unit, settings, account, stride, seek=unit.keyframe_pts is not None)
    except _StartNotMetError:
        # The unit's first frame is damaged, or no seek reached it; nothing was yielded yet.
        yield from _decode_opened(file, unit, settings, account, stride, seek=False)


class _StartNotMetError(Exception):
    """No seek reached a unit's first frame."""


def _decode_opened(
    file: IO[bytes], unit: Unit, settings: DecodeConfig, account: DecodeAccount, stride: int, *, seek: bool
) -> Iterator[Frame]:
    opened = open_video(file, max_pixels=settings.max_pixels, hwaccel=settings.hwaccel)
    with opened as (container, stream), video_errors("decoding"):
        context, shapes = stream.codec_context, PixelShapes(stream)
        begin = _from_keyframe if seek else _from_beginning
        pictures, source = begin(container, stream, unit, shapes)
        sampler, bounds = Sampler(settings.sample, stream.time_base, unit), Bounds(unit, stride)
        begun, beyond = False, None
        for index, ticks, given in _numbered(source, stream, unit):
            picture = given if settings.hwaccel == "none" else as_from_cpu(given)
            taken = sampler.takes(index, ticks)
            place = bounds.place(index, ticks, sampled=taken)
            pts_us = round(ticks * stream.time_base * 1_000_000)
            sar = shapes.of(picture)
            frame = Frame.of(
                picture,
                index=index,
                pts_us=pts_us,
                beyond=place > 0,
                sar=sar if settings.square_pixels == "auto" else SQUARE,
                tone_map=ToneMap.of(picture) if settings.tone_map == "auto" else None,
            )
            if frame.beyond:
                beyond = frame
                break
            refuse_huge(frame.width_px, frame.height_px, settings.max_pixels)
            if place < 0:
                continue
            if not begun and unit.first_index > 0 and unit.start_pts is None:
                pictures.losses.forget()
            begun = True
            account.note_frame(frame, sar, picture.color_trc)
            if taken:
                yield frame
        refuse_huge(context.width, context.height, settings.max_pixels)
        _close(container, stream, unit, pictures, account)
        if begun and beyond is not None and stride > 1:
            yield beyond


def _numbered(source: Iterator[Any], stream: Any, unit: Unit) -> Iterator[tuple[int, int, Any]]:
    """Yield index, time in ticks and picture."""
    clock = Clock(stream.time_base, stream.average_rate or stream.guessed_rate)
    # A unit that is a range of frames is counted from the beginning.
    first = 0 if unit.start_pts is None else unit.first_index
    for index, picture in enumerate(source, first):
        yield index, clock.ticks(picture), picture


def _from_beginning(container: Any, stream: Any, unit: Unit, shapes: PixelShapes) -> tuple[Pictures, Iterator[Any]]:
    pictures = Pictures(container, stream, shapes)
    source = pictures.run()
    if unit.start_pts is not None:
        first = _first_at(source, unit.start_pts)
        source = chain([] if first is None else [first], source)
    return pictures, source


def _from_keyframe(container: Any, stream: Any, unit: Unit, shapes: PixelShapes) -> tuple[Pictures, Iterator[Any]]:
    """Return the pictures from the unit's first frame on, found at its exact time."""
    assert unit.start_pts is not None and unit.keyframe_pts is not None
    for seconds in _BACK_OFF_SECONDS:
        if not _seek(container, stream, unit.keyframe_pts - int(seconds / stream.time_base)):
            continue
        pictures = Pictures(container, stream, shapes)
        source = pictures.run(keyframe_pts=unit.keyframe_pts)
        first = _first_at(source, unit.start_pts)
        if first is not None and first.pts == unit.start_pts:
            return pictures, chain([first], source)
        if first is not None:
            break  # decoding began at the keyframe, but the frame did not come
    raise _StartNotMetError


def _seek(container: Any, stream: Any, target: int) -> bool:
    try:
        container.seek(target, stream=stream, backward=True)
    except av.error.FFmpegError:
        return False
    return True


def _first_at(source: Iterator[Any], start_pts: int) -> Any:
    return next((picture for picture in source if picture.pts is not None and picture.pts >= start_pts), None)


def _close(container: Any, stream: Any, unit: Unit, pictures: Pictures, account: DecodeAccount) -> None:
    """Add the losses to the account."""
    losses = pictures.losses.within(unit.start_pts, unit.end_pts)
    # The last of a video's ranges of frames decodes the whole video, and so reports all of its silent losses.
    unshown = pictures.unshown(unit.start_pts, unit.end_pts) if unit.end_index is None else []
    account.damaged_packets = len(losses.refused)
    account.damaged_frames = len(losses.patched)
    account.missing_frames = len(unshown)
    missing = unread_tail(container, stream) if unit.is_last else None
    if missing:
        account.note_truncation(missing)
    report = damage_report(losses, unshown, float(stream.time_base))
    if report:
        account.errors.append((ErrorCode.DECODE_FAILED, report))
    if unit.is_last and unit.index == 0 and not account.frames_decoded and not account.errors:
        account.errors.append((ErrorCode.DECODE_FAILED, "its video stream has no frames"))
