"""Meaning. Run a checkpoint's network on the faces of some videos, with the same code as a run.

Videos are decoded and faces detected as in a run, in the child process with its limits; the network runs in the engine
that a run would choose.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featray.config import Config, cache_dir, parse_config
from featray.errors import UsageError
from featray.extract.child import ChildSettings
from featray.extract.isolation import IsolatedDecoder
from featray.extract.plan import VideoTask
from featray.meaning.watched import Watched
from featray.model.checkpoint import Checkpoint
from featray.model.config import IMAGE_SIDE_PX
from featray.model.conventions import Conventions
from featray.model.engines import choose, open_engine
from featray.model.outputs import Floats, to_columns
from featray.names import MESH_VERTICES
from featray.sources.listing import Video, list_videos

_FPS: Final = 8
"""A blink lasts a fifth of a second; fewer frames would miss it."""

_MOST_FACES: Final = 256
"""Maximum faces per video: half a minute."""

_SOME: Final = 3
"""Every n-th face is also examined mirrored and with channels swapped."""

_FEWEST_FACES: Final = 24
"""Minimum faces per video, three seconds; fewer say nothing about movement."""

Say = Callable[[NDArray[np.uint8], NDArray[np.float64]], dict[str, Floats]]
"""Returns the network's columns for chips `[n, 256, 256, 3]` at squares `[n, 3]`."""


def bundled_clip() -> str:
    """Return the path of the clip with a face that ships with featray."""
    return str(files("featray") / "demo_clips" / "face.mp4")


def network(checkpoint: Checkpoint, conventions: Conventions, *, gpu: bool, threads: int) -> Say:
    """Open a checkpoint's network."""
    engine_name, precision = choose("auto", "auto", gpu=gpu)
    engine = open_engine(
        checkpoint,
        engine=engine_name,
        precision=precision,
        batch_size=64,
        num_threads=threads,
        gpu=gpu,
        cache_dir=cache_dir(),
    )
    return lambda chips, squares: to_columns(engine(chips), squares, checkpoint.config, conventions)


def watch(videos: Sequence[str], say: Say, *, mesh_normalized: bool) -> list[Watched]:
    """Return a network's outputs for the largest face in each frame of the videos, at eight frames per second.

    Args:
        videos: files or URIs, as for `featray run`.
        say: the network.
        mesh_normalized: whether its mesh is in shares of the chip, which decides the unit of its depth.

    Raises:
        UsageError: a video cannot be read, or shows a face for less than three seconds.
        ConfigError: a name is not a video.
    """
    config = _config(videos)
    decoder = IsolatedDecoder(ChildSettings.of(config))
    try:
        return [_watch(video, decoder, say, mesh_normalized) for video in list_videos(config.input)]
    finally:
        decoder.close()


def _config(videos: Sequence[str]) -> Config:
    return parse_config(
        {
            "dataset": "check",
            "input": {"uris": list(videos)},
            "output": {"uri": "none"},
            "decode": {"sample": {"fps": _FPS}},
            "detect": {"max_faces": 4},
        }
    )


def _watch(video: Video, decoder: IsolatedDecoder, say: Say, mesh_normalized: bool) -> Watched:
    chips, faces = _faces(video, decoder)
    squares = _numbers(faces, "crop_x", "crop_y", "crop_side")
    depth = 1.0 if mesh_normalized else 1.0 / IMAGE_SIDE_PX
    columns = say(chips, squares)
    some = np.arange(0, len(chips), _SOME)
    swapped = say(np.ascontiguousarray(chips[some, :, :, ::-1]), squares[some])
    return Watched(
        name=Path(video.uri).name,
        columns=columns,
        mesh_px=_mesh_px(columns, squares, depth),
        landmarks5=np.asarray(faces["landmarks5"].to_pylist(), np.float64).reshape(-1, 5, 2),
        boxes=_numbers(faces, "box_x1", "box_y1", "box_x2", "box_y2"),
        squares=squares,
        some=some,
        mirrored=say(np.ascontiguousarray(chips[some, :, ::-1]), squares[some]),
        swapped=swapped,
        swapped_mesh_px=_mesh_px(swapped, squares[some], depth),
    )


def _faces(video: Video, decoder: IsolatedDecoder) -> tuple[NDArray[np.uint8], pa.Table]:
    """Return the chips and rows of the largest face of each frame."""
    if video.problem:
        raise UsageError(f"{video.uri}: {video.problem[1]}")
    plan = decoder.plan(video)
    chips: list[NDArray[np.uint8]] = []
    rows: list[pa.Table] = []
    count, failure = 0, plan.failure
    for task in VideoTask(video, "", "").units(plan, {}):
        chunks = decoder.chunks(task)
        for chunk in chunks:
            failure = failure or next(iter(chunk.outcome.failures), None)
            largest = _largest(chunk.faces)[: _MOST_FACES - count]
            some = chunk.of_faces(largest)
            chips.append(some.chips)
            rows.append(some.faces)
            count += len(largest)
            if count >= _MOST_FACES:
                break
        chunks.close()  # type: ignore[attr-defined]  # a generator: stops an unfinished child
        if count >= _MOST_FACES:
            break
    if count < _FEWEST_FACES:
        why = failure.message if failure else f"shows a face in {count} of its frames at {_FPS} per second"
        raise UsageError(f"{video.uri}: {why}; a check needs at least {_FEWEST_FACES} frames with a face")
    return np.concatenate(chips), pa.concat_tables(rows)


def _largest(faces: pa.Table) -> NDArray[np.intp]:
    """Return the position of each frame's largest face that has landmarks, in order of frames."""
    frames, sizes = faces["frame_index"].to_numpy(), faces["crop_side"].to_numpy()
    seen = np.asarray([points is not None and np.isfinite(points).all() for points in faces["landmarks5"].to_pylist()])
    order = np.lexsort((-sizes, frames))
    order = order[seen[order]] if len(order) else order
    _, first = np.unique(frames[order], return_index=True)
    return np.asarray(order[first], np.intp)


def _numbers(faces: pa.Table, *names: str) -> NDArray[np.float64]:
    return np.column_stack([faces[name].to_numpy() for name in names]).astype(np.float64)


def _mesh_px(columns: dict[str, Floats], squares: NDArray[np.float64], depth: float) -> NDArray[np.float64]:
    """Return meshes `[n, 478, 3]` with depth in frame px too."""
    mesh = columns["mesh_xyz"].astype(np.float64).reshape(-1, MESH_VERTICES, 3)
    mesh[:, :, 2] *= depth * squares[:, 2:]
    return mesh
