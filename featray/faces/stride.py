"""Faces. Find the faces of every sampled frame by detecting on only some of them (`detect.every`).

Between two detections the same faces move little, so their boxes are interpolated. If that is
uncertain (a face on one side only, a face that moved far, a cut, more than a second), the frame in
the middle is detected too, and so on recursively until each gap is clear or has no frame left.

What must stay true: the faces of a frame depend only on the video and the stride. Detection
frames are counted from the start of the video; a unit starts at one and also reads the first
frame of the next unit. Memory is bounded by the pictures between two detection frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

from featray.faces.detector import Faces
from featray.faces.overlap import best_pairs, iou_matrix
from featray.video.frame import Frame
from featray.video.repeats import same_picture
from featray.video.shots import is_cut, thumbnail

MIN_IOU: Final = 0.5
"""Least overlap between the boxes of a face at both ends of a gap. At this limit the face moved by a third of its size,
and a head that starts from rest deviates from the straight line by a quarter of that. At 0.7, twice as many frames are
detected when faces walk by; at 0.3, boxes of swinging faces are off by a tenth."""

MAX_GAP_US: Final = 1_000_000
"""Longest gap to interpolate: with sparse sampling, a face may have left and come back."""

HELD_BYTES: Final = 1 << 30
"""Memory limit for pictures that wait for their boxes: a quarter of a decoding process's memory. 30 frames of 10-bit 4K
fit. 8K frames may not; then detection happens sooner, at the same frames however the video is cut."""

Detect = Callable[[Sequence[Frame]], list[Faces]]


@dataclass
class Run:
    """Consecutive sampled frames that show the same picture; usually just one frame.

    Attributes:
        first_index: index of the first frame.
        found: the faces of the picture, once detected.
    """

    first_index: int
    found: Faces | None = None


@dataclass
class SeenFrame:
    """A frame and its faces.

    Attributes:
        frame: the frame.
        thumbnail: the frame's thumbnail, uint8 `[3, 36, 64]`; None if the frame is missing.
        shot_cut: whether a shot begins with the frame; None for a missing frame and for the first one, which has no
            predecessor.
        run: the frames up to this one that show the same picture; one frame if frames are not compared.
        faces: the faces; None until they are known.
        interpolated: whether the faces were interpolated from neighbouring frames.
    """

    frame: Frame
    thumbnail: NDArray[np.uint8] | None
    shot_cut: bool | None
    run: Run
    faces: Faces | None = None
    interpolated: bool = False

    @property
    def repeats(self) -> int | None:
        """Return the index of the first frame of the run; None if this frame is the first."""
        return None if self.run.first_index == self.frame.index else self.run.first_index


def find_faces(
    frames: Iterable[Frame],
    detect: Detect,
    *,
    every: int,
    batch_frames: int = 1,
    unrelated: bool = False,
    compare: bool = False,
    by_picture: bool = True,
) -> Iterator[SeenFrame]:
    """Yield the frames in order, with their faces.

    Args:
        frames: sampled frames; the first is a detection frame. A last frame that is `beyond` the unit is used for
            interpolation but not yielded.
        detect: the detector.
        every: detect on every n-th frame, and on the last.
        batch_frames: number of frames per call of the detector if every frame is detected.
        unrelated: whether each frame is a shot of its own.
        compare: whether to look for frames that repeat the picture before them.
        by_picture: whether the detector's answer depends only on the picture, so that one answer serves a run.
    """
    seen = _shots_of_their_own(_runs(frames, compare)) if unrelated else _with_cuts(_runs(frames, compare))
    look = _once_a_run(detect) if by_picture else _for_each(detect)
    if every == 1:
        for batch in _batches(seen, batch_frames):
            _detect(batch, look)
            yield from batch
        return
    held: list[SeenFrame] = []
    for position, one in enumerate(seen):
        held.append(one)
        if position % every == 0 or sum(_picture_bytes(item.frame) for item in held) > HELD_BYTES:
            yield from _close(held, look)
            held = held[-1:]
    yield from _close(held, look)
    if held and not held[-1].frame.beyond:
        yield held[-1]


def _batches(items: Iterable[SeenFrame], size: int) -> Iterator[list[SeenFrame]]:
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch


def _runs(frames: Iterable[Frame], compare: bool) -> Iterator[tuple[Frame, Run]]:
    before: tuple[Frame, Run] | None = None
    for frame in frames:
        if not compare or before is None or not same_picture(before[0], frame):
            before = frame, Run(frame.index)
        yield frame, before[1]


def _with_cuts(frames: Iterable[tuple[Frame, Run]]) -> Iterator[SeenFrame]:
    before: NDArray[np.uint8] | None = None
    for frame, run in frames:
        if run.first_index != frame.index:
            yield SeenFrame(frame, before, False, run)
            continue
        after = None if frame.is_missing else thumbnail(frame)
        yield SeenFrame(frame, after, None if before is None or after is None else is_cut(before, after), run)
        before = before if after is None else after


def _shots_of_their_own(frames: Iterable[tuple[Frame, Run]]) -> Iterator[SeenFrame]:
    for frame, run in frames:
        yield SeenFrame(frame, None, frame.index > 0, run)


_Look = Callable[[Sequence[SeenFrame]], list[Faces]]


def _for_each(detect: Detect) -> _Look:
    return lambda items: detect([item.frame for item in items])


def _once_a_run(detect: Detect) -> _Look:
    def look(items: Sequence[SeenFrame]) -> list[Faces]:
        fresh: dict[int, SeenFrame] = {}
        for item in items:
            if item.run.found is None:
                fresh.setdefault(item.run.first_index, item)
        if fresh:
            found = detect([item.frame for item in fresh.values()])
            for item, faces in zip(fresh.values(), found, strict=True):
                item.run.found = faces
        return [item.run.found for item in items if item.run.found is not None]

    return look


def _close(held: list[SeenFrame], look: _Look) -> list[SeenFrame]:
    """Find the faces of all held frames, given those of the first; return all but the last."""
    _detect([item for item in held[-1:] if item.faces is None], look)
    spans = [held]
    while spans:
        span = spans.pop()
        if len(span) <= 2:
            continue
        cut = next((i for i in range(1, len(span)) if span[i].shot_cut), None)
        if cut is not None:
            _detect([item for item in span[cut - 1 : cut + 1] if item.faces is None], look)
            spans += [span[:cut], span[cut:]]
        elif not _interpolate(span):
            middle = len(span) // 2
            _detect([span[middle]], look)
            spans += [span[: middle + 1], span[middle:]]
    return held[:-1]


def _detect(items: Sequence[SeenFrame], look: _Look) -> None:
    there = [item for item in items if not item.frame.is_missing]
    if there:
        for item, faces in zip(there, look(there), strict=True):
            item.faces = faces
    for item in items:
        if item.frame.is_missing:
            item.faces = Faces.none()


def _interpolate(span: Sequence[SeenFrame]) -> bool:
    """Interpolate the frames between two detections; return False if the faces cannot be matched safely."""
    first, last = span[0].faces, span[-1].faces
    assert first is not None and last is not None
    if any(item.frame.is_missing for item in span):
        return False
    start_us, end_us = span[0].frame.time_us, span[-1].frame.time_us
    partners = _partners(first, last)
    if partners is None or end_us - start_us > MAX_GAP_US:
        return False
    for item in span[1:-1]:
        share = (item.frame.time_us - start_us) / max(1, end_us - start_us)
        item.faces, item.interpolated = _between(first, last, partners, share), True
    return True


def _partners(first: Faces, last: Faces) -> NDArray[np.intp] | None:
    """Return for each face the index of the same face in `last`; None if a face has none or moved too far."""
    if len(first) != len(last):
        return None
    overlap = iou_matrix(first.box_xyxy, last.box_xyxy)
    rows, columns = best_pairs(overlap)
    return columns if (overlap[rows, columns] >= MIN_IOU).all() else None


def _between(first: Faces, last: Faces, partners: NDArray[np.intp], share: float) -> Faces:
    def mix(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
        return (a + (b[partners].astype(np.float64) - a) * share).astype(np.float32)

    box, score = mix(first.box_xyxy, last.box_xyxy), mix(first.score, last.score)
    order = np.lexsort((box[:, 0], -score))
    return Faces(box[order], score[order], mix(first.landmarks5, last.landmarks5)[order])


def _picture_bytes(frame: Frame) -> int:
    if frame.is_missing:
        return 0
    picture = frame.picture
    return int(picture.width * picture.height * picture.format.padded_bits_per_pixel // 8)
