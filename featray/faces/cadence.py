"""Faces. Select the faces that get an embedding: by time, by changes in the frame, and by the quality of the face.

What must stay true: the rows of `embeddings` do not depend on how a video was cut into units and chunks. Whether a
frame is taken depends only on that frame and the sampled frame before it. A worker that sees part of a video also takes
the part's first frame, so it takes every frame that counts; publishing walks the whole video from its start and drops
the surplus. All functions are pure.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featray.config_identify import IdentifyConfig

FULL_FACE_PX = 112.0
"""Faces of this size or larger have all the detail that an embedder uses."""

HALF_SHARPNESS = 20.0
"""`sharpness` at which a face's quality is halved; web clips have 20 to 400."""


class Cadence:
    """Selects frames of a video, or of a part of one, in presentation order.

    Args:
        every_us: length of a time slot; the first frame of each slot is taken.
    """

    def __init__(self, every_us: int) -> None:
        self._every_us = every_us
        self._slot: int | None = None
        self._faces = -1

    def take(self, pts_us: int | None, faces: int, shot_cut: bool | None) -> bool:
        """Return whether the next frame is taken: it begins a slot or a shot, has no time, or has more faces.

        Args:
            pts_us: time of the frame; None for a picture without one.
            faces: number of faces.
            shot_cut: whether the frame is known to begin a shot.
        """
        slot = None if pts_us is None else pts_us // self._every_us
        taken = slot is None or slot != self._slot or bool(shot_cut) or faces > self._faces
        self._slot, self._faces = slot, faces
        return taken


def taken_frames(frames: pa.Table, cadence: Cadence) -> NDArray[np.int64]:
    """Return the `frame_index` of the frames that a cadence takes, ascending.

    Args:
        frames: rows of `frames` in order, following those that `cadence` saw before.
        cadence: advanced by these frames.
    """
    columns = (frames[name].to_pylist() for name in ("frame_index", "pts_us", "faces", "shot_cut"))
    rows = zip(*columns, strict=True)
    return np.array([index for index, pts_us, faces, cut in rows if cadence.take(pts_us, faces, cut)], np.int64)


def turns(landmarks5: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far faces are turned, `[n]`.

    The measure is the offset of the nose tip from the midpoint of the eyes, along the line between them, in units of
    the distance between the eyes.

    Args:
        landmarks5: `[n, 5, 2]`, x and y in px; NaN gives NaN, coinciding eyes give infinity.
    """
    between = landmarks5[:, 1] - landmarks5[:, 0]
    nose = landmarks5[:, 2] - (landmarks5[:, 0] + landmarks5[:, 1]) / 2
    squared = (between**2).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(squared > 0, np.abs((between * nose).sum(axis=1)) / squared, np.inf)


def qualities(faces: pa.Table, settings: IdentifyConfig) -> NDArray[np.float32]:
    """Return the quality of faces, `[n]` in [0, 1]; 0 for faces that get no embedding.

    Quality is the product of size, sharpness, frontality and the share of the face inside the frame.

    Args:
        faces: rows of DETECTED_SCHEMA.
        settings: the limits that a face must meet to get an embedding.
    """
    marks = landmarks_of(faces)
    size, sharpness, inside = (faces[n].to_numpy().astype(np.float64) for n in ("face_px", "sharpness", "in_frame"))
    turned = turns(marks)
    seen = (size >= settings.min_face_px) & (inside >= settings.min_in_frame) & (turned <= settings.max_turn)
    frontal = 1 - np.nan_to_num(turned, nan=1.0, posinf=1.0).clip(0, 1)
    quality = (size / FULL_FACE_PX).clip(0, 1) * sharpness / (sharpness + HALF_SHARPNESS) * frontal * inside
    return np.where(seen, quality, 0.0).clip(0, 1).astype(np.float32)


def landmarks_of(faces: pa.Table) -> NDArray[np.float64]:
    """Return `landmarks5` of rows as `[n, 5, 2]`, x and y in frame px; NaN if a face has none."""
    given = [one if one is not None else [np.nan] * 10 for one in faces["landmarks5"].to_pylist()]
    return np.array(given, np.float64).reshape(-1, 5, 2)
