"""Video. Cut a video into units, and choose the sampled frames.

What must stay true: the results of a unit depend only on the video and the sampling, never on
how the video was cut. Therefore a unit has the presentation index of its first frame and the
time of the frame before it, in exact stream ticks. If a video's times cannot be trusted, a unit
is a range of frames counted from the video's start.

If faces are detected only on every n-th sampled frame (n is the stride), units begin at such
frames, counted over the whole video, and each unit also reads the first frame of the next one.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from featray.config import EveryNth, FramesPerSecond
from featray.records import Count, Ticks
from featray.video.container import Header
from featray.video.scan import PacketIndex

Sample = EveryNth | FramesPerSecond | str


class Picture(NamedTuple):
    """A file of a sequence that is a frame.

    Attributes:
        position: position in the sequence.
        name: name in its folder or tar.
        size_bytes: size; -1 if unknown.
        offset: position of its bytes in the tar; None for a separate file.
        pts_us: presentation time; None if the sequence has no times.
        problem: why it cannot be read, else None.
    """

    position: Count
    name: str
    size_bytes: int
    offset: Count | None = None
    pts_us: Ticks | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Unit:
    """A part of one video: a time range `[start_pts, end_pts)` in stream ticks, a range of frames, or of pictures.

    Attributes:
        index: position among the video's units.
        start_pts: time of the first frame; None in the first unit and for a range of frames.
        end_pts: time of the first frame after the unit; None means to the end, or to `end_index`.
        first_index: presentation index of the first frame in the whole video.
        origin_pts: time of the video's first frame; None if start_pts is None.
        previous_pts: time of the last frame before the unit; None if start_pts is None.
        keyframe_pts: time of the keyframe from which the first frame is decoded; None means from the beginning.
        end_index: presentation index of the first frame after the unit, for a range of frames or pictures.
        pictures: the sampled pictures of a sequence; with a stride, followed by the first one of the next unit.
        unrelated: whether each of its pictures is a shot of its own.
        problem: error code and message of a problem of the sequence after its last picture.
    """

    index: Count
    start_pts: Ticks | None = None
    end_pts: Ticks | None = None
    first_index: Count = 0
    origin_pts: Ticks | None = None
    previous_pts: Ticks | None = None
    keyframe_pts: Ticks | None = None
    end_index: Count | None = None
    pictures: tuple[Picture, ...] = ()
    unrelated: bool = False
    problem: tuple[str, str] | None = None

    @property
    def is_last(self) -> bool:
        """Return whether it extends to the end of the video."""
        return self.end_pts is None and self.end_index is None


WHOLE_VIDEO = (Unit(0),)


class Sampler:
    """Decides for each frame, in presentation order, whether it is sampled.

    `all` takes every frame. `every: n` takes frames whose presentation index is a multiple of n.
    `fps: x` takes the first frame at or after each tick of 1/x seconds since the first frame, by
    true time, so that variable frame rates are sampled evenly and no frame is taken twice.
    """

    def __init__(self, sample: Sample, time_base: Fraction, unit: Unit) -> None:
        self._every = sample.every if isinstance(sample, EveryNth) else 1
        self._ticks = time_base * Fraction(str(sample.fps)) if isinstance(sample, FramesPerSecond) else None
        self._origin_pts = unit.origin_pts
        self._last_tick = None if unit.previous_pts is None else self._tick(unit.previous_pts)

    def takes(self, index: int, pts: int) -> bool:
        """Return whether the frame with this presentation index and time (stream ticks) is sampled."""
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


class Bounds:
    """Decides for each frame, in presentation order, whether it belongs to a unit.

    Args:
        unit: a unit that `cut_units` made with the same stride.
        stride: units begin at sampled frames whose position among the video's sampled frames is a multiple of
            it. A unit with times starts at such a frame. A range of frames owns the frames from the first such
            frame in it to the first one after it, and is counted from the video's start in order to find them.
    """

    def __init__(self, unit: Unit, stride: int) -> None:
        self._unit = unit
        self._stride = stride
        self._position = 0
        self._begun = False

    def place(self, index: int, pts: int, *, sampled: bool) -> int:
        """Return -1, 0 or 1 for a frame before, in or after the unit."""
        meets = self._stride == 1 or (sampled and self._position % self._stride == 0)
        self._position += sampled
        unit = self._unit
        if unit.end_pts is not None and pts >= unit.end_pts:
            return 1
        if unit.end_index is not None and index >= unit.end_index and meets:
            return 1
        self._begun = self._begun or (index >= unit.first_index and meets)
        return 0 if self._begun else -1


def needs_scan(header: Header, sample: Sample, unit_frames: int) -> bool:
    """Return whether a video may be longer than one unit, so that its packets must be scanned."""
    if header.frames_estimated is None:
        return True
    return sampled_estimate(header, sample) > unit_frames


def sampled_estimate(header: Header, sample: Sample) -> float:
    """Return the estimated number of sampled frames, according to the header; 0 if unknown."""
    frames = float(header.frames_estimated or 0)
    if isinstance(sample, EveryNth):
        return frames / sample.every
    if isinstance(sample, FramesPerSecond) and header.duration_us:
        return min(frames, header.duration_us / 1e6 * sample.fps + 1)
    return frames


def cut_units(
    index: PacketIndex, time_base: Fraction, sample: Sample, unit_frames: int, stride: int = 1
) -> tuple[Unit, ...]:
    """Cut so that each unit samples at most `unit_frames` frames, at keyframes if there are enough of them.

    Otherwise a unit starts between keyframes, and the frames from the previous keyframe are decoded again and
    dropped. In a video whose times cannot be trusted, all frames from its start are. To bound this cost, a unit
    is at least 1/16 as long as what is decoded before it; only for that may it exceed `unit_frames`. Analysing a
    frame costs some tens of times more than decoding it.

    With a stride, a unit starts at the first frame at or after a keyframe at which units may begin.
    """
    number = index.pts.size
    if not number:
        return WHOLE_VIDEO
    if not index.trusted:
        return _cut_by_count(number, sample, unit_frames)
    sampler = Sampler(sample, time_base, WHOLE_VIDEO[0])
    taken = np.fromiter((sampler.takes(i, int(pts)) for i, pts in enumerate(index.pts)), np.int64, number)
    sampled_before = np.concatenate([[0], np.cumsum(taken)])
    keyframes = np.union1d([0], np.flatnonzero(index.keyframe))
    meeting = np.ones(number, np.bool_) if stride == 1 else (taken > 0) & (sampled_before[:-1] % stride == 0)
    # Not at frames that lead the next keyframe.
    meeting[index.leading & ~index.keyframe] = False
    starting = np.append(np.flatnonzero(meeting), number)
    at_keyframes = np.unique(starting[np.searchsorted(starting, keyframes)])
    starts = [0]
    while True:
        start = starts[-1]
        fitting = int(np.searchsorted(sampled_before, sampled_before[start] + unit_frames, side="right")) - 1
        if fitting >= number:
            break
        last = int(at_keyframes[np.searchsorted(at_keyframes, fitting, side="right") - 1])
        following = last if last > start else _between_keyframes(starting, keyframes, start, fitting)
        if following >= number:
            break
        starts.append(following)
    return tuple(_unit(number, starts, keyframes, index) for number in range(len(starts)))


_DECODED_PER_KEPT = 16


def _between_keyframes(starting: Any, keyframes: Any, start: int, fitting: int) -> int:
    """Return the start of the next unit if it cannot be at a keyframe; `fitting` is the last frame within the limit."""
    last_key = int(keyframes[np.searchsorted(keyframes, start, side="right") - 1])
    wanted = max(fitting, start + (start - last_key) // _DECODED_PER_KEPT, start + 1)
    last = int(starting[np.searchsorted(starting, wanted, side="right") - 1])
    return last if last > start else int(starting[min(np.searchsorted(starting, wanted), len(starting) - 1)])


def _unit(number: int, starts: list[int], keyframes: Any, index: PacketIndex) -> Unit:
    start, pts = starts[number], index.pts
    end_pts = int(pts[starts[number + 1]]) if number + 1 < len(starts) else None
    if start == 0:
        return Unit(0, end_pts=end_pts)
    key = int(keyframes[np.searchsorted(keyframes, start, side="right") - 1])
    return Unit(
        index=number,
        start_pts=int(pts[start]),
        end_pts=end_pts,
        first_index=start,
        origin_pts=int(pts[0]),
        previous_pts=int(pts[start - 1]),
        keyframe_pts=int(pts[key]) if index.keyframe[key] else None,
    )


def _cut_by_count(packets: int, sample: Sample, unit_frames: int) -> tuple[Unit, ...]:
    """Cut into ranges of frames. With a sampling rate, every frame counts as sampled, because times are not trusted."""
    length = unit_frames * (sample.every if isinstance(sample, EveryNth) else 1)
    starts = [0]
    while (following := starts[-1] + max(length, starts[-1] // _DECODED_PER_KEPT)) < packets:
        starts.append(following)
    ends = [*starts[1:], None]
    return tuple(Unit(i, first_index=a, end_index=b) for i, (a, b) in enumerate(zip(starts, ends, strict=True)))
