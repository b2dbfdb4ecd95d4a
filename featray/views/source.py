"""Views. Find and decode the original frames of published rows, and match them by presentation time.

Frames are never guessed. The source must be the object that the rows were made from, as far
as its storage can tell, and every sampled frame must be found at its exact time.
"""

from __future__ import annotations

import math
import os
from collections import deque
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
from featray.sources.places import SourceOptions, options_apply, place_of
from featray.video.container import parse_time_base
from featray.video.decode import DecodeAccount, decode_pyav
from featray.video.frame import Frame
from featray.video.stills import decode_stills
from featray.video.units import Unit
from featray.views.selection import PICTURE_US, SampledFrame, VideoRow

_UNIT_FRAMES: Final = 64
"""Units are short, so that a seek into a long video decodes little before the range."""

_NAME_IT: Final = "name a copy of the original with --source"
_NOT_SENT: Final = "storage options were not sent to {}: to send them, give --config with a config whose input names it"


@dataclass(frozen=True)
class Shown:
    """A frame of the source, with its row if it was sampled."""

    frame: Frame
    sampled: SampledFrame | None


def open_source_of(row: VideoRow, source: str | None, options: SourceOptions) -> Source:
    """Find a row's video, as `find_source` does, and plan its units.

    Raises:
        UsageError: as `find_source`.
        VideoError: the video cannot be opened.
    """
    return Source(row, find_source(row, source, options), options.options)


def find_source(row: VideoRow, source: str | None, options: SourceOptions) -> Video:
    """Return the video that a row was made from.

    Args:
        row: row of the `videos` table.
        source: current place, if the video was moved: the video, or the shard file that contains it. Like the URI in
            the row, it is a name and not a glob pattern.
        options: storage options, for `source` and the places that the user gave them for.

    Raises:
        UsageError: the video is missing, or is no longer the same object; the detail `unreachable` is true if the
            storage did not answer.
    """
    if source is not None and not row.uri.endswith("/") and os.path.isdir(source.removeprefix("file://")):
        raise UsageError(f"--source {source}: is a folder; name the file in it that is the video")
    places = [source] if source else options.places_among(row.input_places)
    config = InputConfig(uris=places, storage_options=options.options, column=row.column, **row.sequences)
    try:
        if source is None:
            options.check_named(row.uri)
        video = find_video(source or row.uri, row.member, config, read_extra(row.extra))
    except (StorageError, UsageError, VideoError) as error:
        unused = options.options and not options_apply(source or row.uri, config)
        hint = f"; {_NOT_SENT.format(place_of(row.uri).host)}" if unused else ""
        text = f"{row.uri}: the source of {row.video_id} cannot be opened ({error}); {_NAME_IT}{hint}"
        raise UsageError(text, unreachable=isinstance(error, Unreachable)) from None
    if video is None:
        raise UsageError(f"{source or row.uri}: has no member {row.member}; {_NAME_IT}")
    if source is None and video.content_id != row.content_id:
        raise UsageError(f"{row.uri}: {_changed(row, video)}; run the job again, or {_NAME_IT}")
    if source is not None and -1 not in (video.size_bytes, row.size_bytes) and video.size_bytes != row.size_bytes:
        sizes = f"{video.size_bytes} bytes, but the original had {row.size_bytes}"
        raise UsageError(f"--source {video.uri}: not a copy of the original: {sizes}")
    return video


class Source:
    """A video whose frames can be read by time."""

    def __init__(self, row: VideoRow, video: Video, storage_options: dict[str, Any]) -> None:
        """Plan the units of the video.

        Raises:
            VideoError: the video cannot be opened.
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
        """Yield frames in order, with their rows.

        Args:
            sampled: rows in `[start_us, end_us]`, in order.
            start_us: the earliest presentation time; None for no bound.
            end_us: the latest presentation time; None for no bound.
            only_sampled: omit frames without a row.

        Raises:
            UsageError: a row's time is not in the source, or its frame has a different size.
        """
        waiting = deque(sampled)
        after_us = None if start_us is None else start_us - 1
        # Where a stream is damaged, its frames depend on where decoding begins; the rows' own unit began elsewhere.
        for position in dict.fromkeys((self._position_at(start_us), 0)):
            with closing(self._shown_from(position, waiting, after_us, end_us, only_sampled=only_sampled)) as found:
                for shown in found:
                    after_us = shown.frame.time_us
                    yield shown
            if not waiting:
                return
        when = f"frame {waiting[0].frame_index} at {waiting[0].pts_us} µs"
        raise UsageError(f"{self._video.uri}: has no {when}, which is in the tables; {self._about_content()}")

    def _shown_from(
        self,
        position: int,
        waiting: deque[SampledFrame],
        after_us: int | None,
        end_us: int | None,
        *,
        only_sampled: bool,
    ) -> Generator[Shown]:
        """Yield frames after a time, decoded from a unit's start; take their rows from `waiting`.

        Stop, with the row still waiting, if decoding passes its time without its frame.
        """
        with closing(self._frames_from(position)) as frames:
            for frame in frames:
                if after_us is not None and frame.time_us <= after_us:
                    continue
                if (end_us is not None and frame.time_us > end_us) or (only_sampled and not waiting):
                    return
                awaited = waiting[0] if waiting else None
                if awaited and (frame.index, frame.time_us) == (awaited.frame_index, awaited.pts_us):
                    self._check_size(frame)
                    yield Shown(frame, waiting.popleft())
                elif awaited and frame.time_us > awaited.pts_us:
                    return
                elif not only_sampled and (awaited is None or frame.time_us < awaited.pts_us):
                    yield Shown(frame, None)

    def pick(self, sampled: list[SampledFrame]) -> Iterator[Shown]:
        """Yield single frames, in order; frames between them are decoded only within a unit.

        Raises:
            UsageError: as for `run`.
        """
        for frame in sampled:
            yield from self.run([frame], frame.pts_us, frame.pts_us, only_sampled=True)

    def _frames_from(self, position: int) -> Generator[Frame]:
        """Yield the frames from the start of a unit, which is a keyframe, to the end of the video."""
        with open_source(self._video, self._options) as file:
            if self._video.sequence is None:
                unit = replace(self._units[position], end_pts=None, end_index=None)
                yield from decode_pyav(file, unit, self._settings, DecodeAccount())
                return
            for unit in self._units[position:]:
                yield from map(_blank, decode_stills(file, unit, self._settings, DecodeAccount()))

    def _position_at(self, start_us: int | None) -> int:
        """Return the position of the last unit that begins at or before a time."""
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
            size = f"{frame.width_px}x{frame.height_px}, but the tables have {expected[0]}x{expected[1]}"
            raise UsageError(f"{self._video.uri}: its frames are {size}; {self._about_content()}")

    def _about_content(self) -> str:
        if self._video.content_id != self._row.content_id:
            return f"{_changed(self._row, self._video)}; {_NAME_IT}"
        return "its content id is unchanged, so its rows are damaged: check them with featray verify --recompute 4"


def _start_us(unit: Unit, time_base: Fraction) -> int | None:
    """Return the time of a unit's first frame; None if unknown."""
    if unit.pictures:
        return unit.pictures[0].pts_us
    return None if unit.start_pts is None else math.floor(unit.start_pts * time_base * 1_000_000)


def _blank(frame: Frame) -> Frame:
    """Return a grey picture in place of a missing one."""
    if not frame.is_missing:
        return frame
    grey = av.VideoFrame.from_ndarray(np.full((*_BLANK_PX, 3), 128, np.uint8), format="rgb24")
    return replace(frame, picture=grey, width_px=grey.width, height_px=grey.height)


_BLANK_PX: Final = (90, 160)


def _changed(row: VideoRow, video: Video) -> str:
    return f"the source changed: its content id was {row.content_id} and is now {video.content_id}"
