"""Extract. Turn a unit into chunks: decode, find faces, cut chips.

A chunk travels to inference as one row: whole frames, up to CHUNK_CHIPS chips, and the data of
their faces. Chunks are cut by count alone, so a repeated unit yields the same chunks, and the
chunks of a unit that breaks off are consistent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featray.config import DecodeConfig
from featray.errors import ErrorCode, VideoError
from featray.extract.plan import Failure, Outcome, UnitTask
from featray.faces.crop import Cutter, crop_squares, cut_chips, share_in_frame, sharpness
from featray.faces.detector import Detector, Faces
from featray.faces.stride import Run, SeenFrame, find_faces
from featray.names import CHIP_PX
from featray.schema import DETECTED_SCHEMA, FRAMES_SCHEMA
from featray.store.failures import explain, transport_errors, unreadable_code
from featray.store.storage import fetched_bytes
from featray.video.decode import DecodeAccount
from featray.video.decoders import open_decoder
from featray.video.frame import Frame
from featray.video.repeats import digest
from featray.video.stills import decode_stills

CHUNK_CHIPS: Final = 256
"""50 MB of chips: a full batch on a GPU, half a minute of work for one CPU thread."""


@dataclass(frozen=True)
class Chunk:
    """Some whole frames of a unit with their faces.

    Attributes:
        part: position among the unit's chunks.
        last: whether it is the unit's last one.
        chips: uint8 `[m, 256, 256, 3]`, RGB; repeated frames share the chip of a face.
        faces: table of DETECTED_SCHEMA, `n >= m` rows; column `chip` is the position of each face's chip in `chips`.
        frames: table of FRAMES_SCHEMA, the sampled frames of this chunk, with or without faces.
        outcome: the unit's outcome up to this chunk.
    """

    part: int
    last: bool
    chips: NDArray[np.uint8]
    faces: pa.Table
    frames: pa.Table
    outcome: Outcome

    def of_faces(self, rows: NDArray[np.intp]) -> Chunk:
        """Return the chunk with only the faces at these positions in `faces`, each with its own chip."""
        faces, place = self.faces.take(rows), self.faces.schema.get_field_index("chip")
        chips = np.ascontiguousarray(self.chips[faces["chip"].to_numpy()])
        return replace(self, chips=chips, faces=faces.set_column(place, "chip", pa.array(range(len(rows)), pa.int32())))


def failed_chunk(part: int, outcome: Outcome) -> Chunk:
    """Return a last chunk with only the outcome, for a unit that ended without one."""
    chips = np.empty((0, CHIP_PX, CHIP_PX, 3), np.uint8)
    return Chunk(part, True, chips, DETECTED_SCHEMA.empty_table(), FRAMES_SCHEMA.empty_table(), outcome)


class _Collector:
    """Gathers whole frames until their faces fill a chunk.

    Chips are written into one array, which the system backs with memory as it fills. Separate chips would have to be
    copied together at the end and would fragment the memory of the frames, so that it could not be freed.
    """

    def __init__(self, cut: Cutter | None) -> None:
        self.part = 0
        self._cutter = cut
        self._start()

    def _start(self) -> None:
        self._chips = np.empty((CHUNK_CHIPS, CHIP_PX, CHIP_PX, 3), np.uint8)
        self._cut = 0
        self._faces: list[dict[str, Any]] = []
        self._frames: list[dict[str, Any]] = []
        self._last: tuple[Run, Faces] | None = None

    def has_room(self, faces: int) -> bool:
        return not self._faces or len(self._faces) + faces <= CHUNK_CHIPS

    def add(self, seen: SeenFrame, faces: Faces) -> None:
        """Add a frame and its faces; a frame with the same picture and faces as the previous one reuses its chips."""
        self._frames.append(_frame_row(seen, len(faces)))
        if self._last is not None and self._last[0] is seen.run and _equal(self._last[1], faces):
            of_frame = {"frame_index": seen.frame.index, "pts_us": seen.frame.pts_us, "interpolated": seen.interpolated}
            self._faces += [row | of_frame for row in self._faces[len(self._faces) - len(faces) :]]
        else:
            self._cut_chips(seen, faces)
        self._last = seen.run, faces

    def _cut_chips(self, seen: SeenFrame, faces: Faces) -> None:
        if len(self._faces) + len(faces) > len(self._chips):  # a single frame has more faces than a chunk
            self._chips = np.empty((len(faces), CHIP_PX, CHIP_PX, 3), np.uint8)
        for chip, row in _cut_faces(seen, faces, self._cutter):
            self._chips[self._cut] = chip
            self._faces.append({**row, "chip": self._cut})
            self._cut += 1

    def describe_last(self, **looks: bytes | None) -> None:
        """Add columns to the last frame's row that are compared with those of the neighbouring units."""
        if self._frames:
            self._frames[-1] |= looks

    def take(self, outcome: Outcome, *, last: bool) -> Chunk:
        chips = self._chips[: self._cut]
        faces = pa.Table.from_pylist(self._faces, schema=DETECTED_SCHEMA)
        frames = pa.Table.from_pylist(self._frames, schema=FRAMES_SCHEMA)
        chunk = Chunk(self.part, last, chips, faces, frames, outcome)
        self.part += 1
        self._start()
        return chunk


def _equal(one: Faces, other: Faces) -> bool:
    return one is other or (
        np.array_equal(one.box_xyxy, other.box_xyxy)
        and np.array_equal(one.score, other.score)
        and np.array_equal(one.landmarks5, other.landmarks5, equal_nan=True)
    )


def extract_chunks(
    task: UnitTask,
    open_file: Callable[[], Any],
    settings: DecodeConfig,
    detector: Detector,
    every: int = 1,
    compare: bool = True,
    cut: Cutter | None = None,
) -> Iterator[Chunk]:
    """Yield the chunks of a unit; a last chunk always comes, even if the video cannot be decoded.

    Args:
        task: the unit; if its planning failed, it yields one chunk with that failure.
        open_file: opens the video's bytes, as `open_source` does.
        settings: decoding settings.
        detector: finds faces.
        every: `detect.every`.
        compare: whether to look for repeated frames; apart from `frames.repeats`, this does not change the tables.
        cut: cuts chips; None cuts them on the CPU.
    """
    outcome = Outcome(failures=[task.failure] if task.failure else [])
    account = DecodeAccount()
    collector = _Collector(cut)
    clock = _Clock(outcome.seconds)
    stage = "decode"

    def detect(frames: Sequence[Frame]) -> list[Faces]:
        nonlocal stage
        outcome.frames_detected += len(frames)
        stage = "detect"
        with clock.measure("detect"):
            found = detector(frames)
        stage = "decode"
        return found

    last: SeenFrame | None = None
    with _noting_failures(task, outcome, lambda: stage):
        decoded = clock.each("decode", _decoded(task, open_file, settings, every, account, outcome))
        found = find_faces(
            decoded,
            detect,
            every=every,
            batch_frames=detector.batch_frames,
            unrelated=task.unit.unrelated,
            compare=compare,
            by_picture=detector.by_picture,
        )
        for seen in found:
            assert seen.faces is not None
            if not collector.has_room(len(seen.faces)):
                yield collector.take(_so_far(outcome, account), last=False)
            with clock.measure("crop"):
                collector.add(seen, seen.faces)
            if compare and last is None and task.unit.index > 0:
                collector.describe_last(digest=digest(seen.frame))
            outcome.frames_sampled += 1
            last = seen
    if last is not None and last.thumbnail is not None:
        collector.describe_last(thumbnail=last.thumbnail.tobytes())
    if last is not None and compare and not task.unit.is_last:
        collector.describe_last(digest=digest(last.frame))
    outcome.failures += [Failure("decode", code, message) for code, message in account.errors]
    yield collector.take(_so_far(outcome, account), last=True)


def _decoded(
    task: UnitTask,
    open_file: Callable[[], Any],
    settings: DecodeConfig,
    every: int,
    account: DecodeAccount,
    outcome: Outcome,
) -> Iterator[Frame]:
    """Yield the unit's frames; end where decoding fails, so that faces are still found in the frames before."""
    if task.failure:
        return
    with _noting_failures(task, outcome), open_file() as file:
        if task.video.sequence is not None:
            yield from decode_stills(file, task.unit, settings, account)
            outcome.bytes_read = file.fetched_bytes
            return
        yield from open_decoder(settings.backend)(file, task.unit, settings, account, every)
        outcome.bytes_read = fetched_bytes(file)


@contextmanager
def _noting_failures(task: UnitTask, outcome: Outcome, stage: Callable[[], str] = lambda: "decode") -> Iterator[None]:
    """Record expected errors about a video as failures of the unit, in the current stage."""
    try:
        yield
    except VideoError as error:
        outcome.failures.append(Failure(stage(), error.code, str(error)))
    except MemoryError:
        outcome.failures.append(Failure(stage(), ErrorCode.OUT_OF_MEMORY, "the unit needs more memory than it may use"))
    except transport_errors() as error:
        message = f"{task.video.uri}: {explain(error)}"
        outcome.failures.append(Failure(stage(), unreadable_code(error), message))


def _cut_faces(seen: SeenFrame, faces: Faces, cut: Cutter | None) -> Iterator[tuple[NDArray[np.uint8], dict[str, Any]]]:
    if not len(faces):
        return
    frame = seen.frame
    squares = crop_squares(faces.box_xyxy)
    for i, (square, chip) in enumerate(zip(squares, cut_chips(frame, squares, cut), strict=True)):
        x1, y1, x2, y2 = faces.box_xyxy[i].tolist()
        yield (
            chip,
            {
                "frame_index": frame.index,
                "pts_us": frame.pts_us,
                "face_index": i,
                "box_x1": x1,
                "box_y1": y1,
                "box_x2": x2,
                "box_y2": y2,
                "score": float(faces.score[i]),
                "interpolated": seen.interpolated,
                "landmarks5": None if np.isnan(faces.landmarks5[i]).any() else faces.landmarks5[i].ravel().tolist(),
                "crop_x": square[0],
                "crop_y": square[1],
                "crop_side": square[2],
                "face_px": min(x2 - x1, y2 - y1),
                "sharpness": sharpness(chip),
                "in_frame": share_in_frame(square, frame.width_px, frame.height_px),
            },
        )


def _frame_row(seen: SeenFrame, faces: int) -> dict[str, Any]:
    return {
        "frame_index": seen.frame.index,
        "pts_us": seen.frame.pts_us,
        # A damaged picture without a detected face may still have shown one.
        "status": "ok" if faces else "decode_error" if seen.frame.damaged else "no_face",
        "faces": faces,
        "keyframe": seen.frame.keyframe,
        "source_name": seen.frame.name,
        "shot_cut": seen.shot_cut,
        "repeats": seen.repeats,
        "thumbnail": None if seen.thumbnail is None or seen.shot_cut is not None else seen.thumbnail.tobytes(),
    }


def _so_far(outcome: Outcome, account: DecodeAccount) -> Outcome:
    outcome.frames_decoded = account.frames_decoded
    if account.frames_decoded:
        outcome.picture = {
            "width": account.width_px,
            "height": account.height_px,
            "rotation": account.rotation_degrees,
            "mirrored": account.mirrored,
            "sar": account.sar,
            "squared": account.squared,
            "transfer": account.transfer,
            "tone_mapped": account.tone_mapped,
        }
    return outcome


class _Clock:
    """Adds up the seconds spent in each stage."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds = seconds

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[stage] = self._seconds.get(stage, 0.0) + time.perf_counter() - start

    def each(self, stage: str, items: Iterator[Frame]) -> Iterator[Frame]:
        while True:
            with self.measure(stage):
                item = next(items, None)
            if item is None:
                return
            yield item
