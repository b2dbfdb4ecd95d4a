"""Cutting a video into units, and choosing the frames that are sampled.

The rule that everything rests on: what a unit yields depends on the video and the
sampling alone, never on how the video was cut. So a unit carries the presentation index
of its first frame, and the time of the frame before it, as exact stream ticks.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np

from featray.config import EveryNth, FramesPerSecond
from featray.video.container import Header, PacketIndex

Sample = EveryNth | FramesPerSecond | str


@dataclass(frozen=True)
class Unit:
    """A time range of one video, `[start_pts, end_pts)` in stream ticks, cut at keyframes.

    Attributes:
        index: position among the video's units.
        start_pts: of the first frame, a keyframe; None means from the beginning.
        end_pts: of the first frame after; None means to the end.
        first_index: presentation index of the first frame in the whole video.
        origin_pts: of the video's first frame; None where start_pts is None.
        previous_pts: of the last frame before the unit; None where start_pts is None.
    """

    index: int
    start_pts: int | None = None
    end_pts: int | None = None
    first_index: int = 0
    origin_pts: int | None = None
    previous_pts: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return asdict(self)


WHOLE_VIDEO = (Unit(0),)


class Sampler:
    """Decides frame by frame, in presentation order, which are sampled.

    `all` takes every frame; `every: n` those whose presentation index is a multiple of n;
    `fps: x` the first frame at or after each tick of 1/x seconds since the first frame, by
    true time, so that variable frame rates are sampled evenly and no frame is taken twice.
    """

    def __init__(self, sample: Sample, time_base: Fraction, unit: Unit) -> None:
        self._every = sample.every if isinstance(sample, EveryNth) else 1
        self._ticks = time_base * Fraction(str(sample.fps)) if isinstance(sample, FramesPerSecond) else None
        self._origin_pts = unit.origin_pts
        self._last_tick = None if unit.previous_pts is None else self._tick(unit.previous_pts)

    def takes(self, index: int, pts: int) -> bool:
        """Whether the frame with this presentation index and time (stream ticks) is sampled."""
        if self._ticks is None:
            return index % self._every == 0
        if self._origin_pts is None:
            self._origin_pts = pts
        tick = self._tick(pts)
        taken = self._last_tick is None or tick > self._last_tick
        self._last_tick = tick
        return taken

    def _tick(self, pts: int) -> int:
        if self._ticks is None or self._origin_pts is None:
            return 0
        elapsed = (pts - self._origin_pts) * self._ticks
        return elapsed.numerator // elapsed.denominator


def needs_scan(header: Header, sample: Sample, unit_frames: int) -> bool:
    """Whether a video may be longer than one unit, so that its packets have to be listed."""
    if header.frames_estimated is None:
        return True
    return _sampled_estimate(header, sample) > unit_frames


def _sampled_estimate(header: Header, sample: Sample) -> float:
    frames = float(header.frames_estimated or 0)
    if isinstance(sample, EveryNth):
        return frames / sample.every
    if isinstance(sample, FramesPerSecond) and header.duration_us:
        return min(frames, header.duration_us / 1e6 * sample.fps + 1)
    return frames


def cut_units(index: PacketIndex, time_base: Fraction, sample: Sample, unit_frames: int) -> tuple[Unit, ...]:
    """Cut at keyframes so that each unit samples at most `unit_frames` frames.

    A stretch without a keyframe cannot be cut; it becomes one longer unit.
    """
    if not index.pts.size:
        return WHOLE_VIDEO
    sampler = Sampler(sample, time_base, WHOLE_VIDEO[0])
    taken = np.fromiter((sampler.takes(i, int(pts)) for i, pts in enumerate(index.pts)), np.int64, index.pts.size)
    sampled_before = np.concatenate([[0], np.cumsum(taken)])
    starts = [0]
    candidates = [int(i) for i in np.flatnonzero(index.keyframe) if i > 0]
    for here, following in pairwise([*candidates, index.pts.size]):
        if sampled_before[following] - sampled_before[starts[-1]] > unit_frames:
            starts.append(here)
    return tuple(_unit(number, starts, index.pts) for number in range(len(starts)))


def _unit(number: int, starts: list[int], pts: Any) -> Unit:
    start = starts[number]
    end_pts = int(pts[starts[number + 1]]) if number + 1 < len(starts) else None
    if start == 0:
        return Unit(0, end_pts=end_pts)
    return Unit(number, int(pts[start]), end_pts, start, int(pts[0]), int(pts[start - 1]))
