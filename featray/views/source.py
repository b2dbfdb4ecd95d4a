"""Views. The original frames behind published rows: found again, decoded again, matched by presentation time.

Nothing is drawn on a guess. The source must be the object that the rows were made from, as far
as its storage tells, and every sampled frame must be found at its exact time.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final

import av
import numpy as np

from featray.config import DecodeConfig, InputConfig
from featray.errors import StorageError, Unreachable, UsageError, VideoError
from featray.extract.plan import open_source, plan_video
from featray.records import read_extra
from featray.sources.listing import Video, find_video
from featray.video.container import parse_time_base
from featray.video.decode import DecodeAccount, decode_pyav
from featray.video.frame import Frame
from featray.video.stills import decode_stills
from featray.video.units import Unit
from featray.views.selection import PICTURE_US, SampledFrame, VideoRow

_UNIT_FRAMES: Final = 64
"""Short units, so that a range in a long video is reached by a seek and little is decoded before it."""

_NAME_IT: Final = "name a copy of the original with --source"


@dataclass(frozen=True)
class Shown:
    """A frame of the source, with its row if it was sampled."""

    frame: Frame
    sampled: SampledFrame | None


def find_source(row: VideoRow, source: str | None, storage_options: dict[str, Any]) -> Video:
    """The video that a row is about.

    Args:
        row: of the `videos` table.
        source: where it is now, if it is not where it was: the video, or the shard file that holds it. Like the URI in
            the row, it is a name and no pattern.
        storage_options: for fsspec, for `source` and for the places that the run's config named.

    Raises:
        UsageError: it is not there, or is not the same object any more; the detail `unreachable` says whether the
            storage did not answer at all.
    """
    places = [source] if source else list(row.input_places) or ["/"]
    config = InputConfig(uris=places, storage_options=storage_options, column=row.column, **row.sequences)
    try:
        video = find_video(source or row.uri, row.member, config, read_extra(row.extra))
    except (StorageError, UsageError, VideoError) as error:
        text = f"{row.uri}: the source of {row.video_id} cannot be opened ({error}); {_NAME_IT}"
        raise UsageError(text, unreachable=isinstance(error, Unreachable)) from None
    if video is None:
        raise UsageError(f"{source or row.uri}: holds no member {row.member}; {_NAME_IT}")
    if source is None and video.content_id != row.content_id:
        raise UsageError(f"{row.uri}: {_changed(row, video)}; run the job again, or {_NAME_IT}")
    if source is not None and -1 not in (video.size_bytes, row.size_bytes) and video.size_bytes != row.size_bytes:
        sizes = f"{video.size_bytes} bytes, where the original had {row.size_bytes}"
        raise UsageError(f"--source {video.uri}: is not a copy of the original: {sizes}")
    return video


class Source:
    """A video whose frames can be asked for by time."""

    def __init__(self, row: VideoRow, video: Video, storage_options: dict[str, Any]) -> None:
        """Plan how to reach its frames.

        Raises:
            VideoError: it cannot be opened.
        """
        if video.sequence is not None and video.sequence.fps is None and not video.sequence.timed:
            video = replace(video, sequence=replace(video.sequence, fps=1_000_000 / PICTURE_US))
        self._row, self._video, self._options = row, video, storage_options
        pixels = max((row.width or 0) * (row.height or 0), DecodeConfig().max_pixels)
        self._settings = DecodeConfig(
            unit_frames=_UNIT_FRAMES,
            max_pixels=pixels,
            tone_map="auto" if row.tone_mapped else "off",
            square_pixels="auto" if row.squared else "off",
        )
        plan = plan_video(video, self._settings, storage_options)
        if plan.failure is not None or plan.header is None:
            _, code, message = plan.failure or ("", "decode_failed", "no header")
            raise VideoError(f"{video.uri}: {message}", code=code)  # type: ignore[arg-type]
        time_base = parse_time_base(plan.header.time_base)
        self._units = plan.units
        self._starts_us = [_start_us(unit, time_base) for unit in plan.units]

    def run(
        self, sampled: list[SampledFrame], start_us: int | None, end_us: int | None, *, only_sampled: bool
    ) -> Iterator[Shown]:
        """Frames in order with their rows.

        Args:
            sampled: rows in `[start_us, end_us]`, in order.
            start_us: the earliest presentation time; None for no bound.
            end_us: the latest one; None for no bound.
            only_sampled: leave out frames without a row.

        Raises:
            UsageError: a row's time is not in the source, or its frame has another size.
        """
        waiting = iter(sampled)
        awaited = next(waiting, None)
        with closing(self._frames_from(start_us)) as frames:
            for frame in frames:
                if start_us is not None and frame.time_us < start_us:
                    continue
                if (end_us is not None and frame.time_us > end_us) or (only_sampled and awaited is None):
                    break
                if awaited is not None and (frame.index, frame.time_us) == (awaited.frame_index, awaited.pts_us):
                    self._check_size(frame)
                    yield Shown(frame, awaited)
                    awaited = next(waiting, None)
                elif awaited is not None and frame.time_us > awaited.pts_us:
                    break
                elif not only_sampled:
                    yield Shown(frame, None)
        if awaited is not None:
            when = f"frame {awaited.frame_index} at {awaited.pts_us} µs"
            raise UsageError(f"{self._video.uri}: holds no {when}, which is in the tables; {self._about_content()}")

    def pick(self, sampled: list[SampledFrame]) -> Iterator[Shown]:
        """Single frames, in order; what lies between them is decoded only within a unit.

        Raises:
            UsageError: as `run`.
        """
        for frame in sampled:
            yield from self.run([frame], frame.pts_us, frame.pts_us, only_sampled=True)

    def _frames_from(self, start_us: int | None) -> Generator[Frame]:
        with open_source(self._video, self._options) as file:
            if self._video.sequence is None:
                yield from decode_pyav(file, self._unit_at(start_us), self._settings, DecodeAccount())
                return
            for unit in self._units[self._position_at(start_us) :]:
                yield from map(_blank, decode_stills(file, unit, self._settings, DecodeAccount()))

    def _unit_at(self, start_us: int | None) -> Unit:
        """From the last keyframe that a unit starts with, before a time, to the end of the video."""
        return replace(self._units[self._position_at(start_us)], end_pts=None, end_index=None)

    def _position_at(self, start_us: int | None) -> int:
        position = 0
        for number, begins_us in enumerate(self._starts_us):
            if start_us is not None and begins_us is not None and begins_us <= start_us:
                position = number
        return position

    def _check_size(self, frame: Frame) -> None:
        expected = (self._row.width, self._row.height)
        if (
            None not in expected
            and (frame.width_px, frame.height_px) != expected
            and frame.index == 0
            and not frame.name
        ):
            size = f"{frame.width_px}x{frame.height_px}, where the tables say {expected[0]}x{expected[1]}"
            raise UsageError(f"{self._video.uri}: its frames are {size}; {self._about_content()}")

    def _about_content(self) -> str:
        if self._video.content_id != self._row.content_id:
            return f"{_changed(self._row, self._video)}; {_NAME_IT}"
        return "its content id is unchanged, so this is a defect of featray's; please report it"


def _start_us(unit: Unit, time_base: Fraction) -> int | None:
    """Return the time of a unit's first frame; None if unknown."""
    if unit.pictures:
        return unit.pictures[0].pts_us
    return None if unit.start_pts is None else math.floor(unit.start_pts * time_base * 1_000_000)


def _blank(frame: Frame) -> Frame:
    """A grey picture where one is missing."""
    if not frame.is_missing:
        return frame
    grey = av.VideoFrame.from_ndarray(np.full((*_BLANK_PX, 3), 128, np.uint8), format="rgb24")
    return replace(frame, picture=grey, width_px=grey.width, height_px=grey.height)


_BLANK_PX: Final = (90, 160)


def _changed(row: VideoRow, video: Video) -> str:
    return f"the source changed: its content id was {row.content_id} and is {video.content_id}"
