"""Meaning. Geometry of a face, computed only from its mesh and the detector's landmarks, independent of other heads.

Frames: pixels of the upright frame, x right, y down; a mesh's z is a depth in the same unit, smaller towards the
camera. Angles and signs are those of the `faces` table. Sources: Umeyama, Least-squares estimation of transformation
parameters between two point patterns, IEEE PAMI 13, 1991; MediaPipe's canonical face (assets, and NOTICE).
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Floats = NDArray[np.float64]

CANONICAL_VERTICES: Final = 468
"""Vertices of the canonical face: the mesh's 478 without the irises."""

_UP_AND_OUT: Final = np.diag([1.0, -1.0, -1.0])
"""Maps the frame's axes (y down, z away) to the canonical face's (y up, z out of the face); its own inverse."""

_EYES: Final = ((33, 133, 468, 159, 145), (362, 263, 473, 386, 374))
"""For the subject's right and left eye: image-left corner, image-right corner, iris, upper lid, lower lid."""

_NOSE, _MOUTH, _LIPS = 1, (61, 291), (13, 14)
_BROWS: Final = {
    "brow inner height": ((107, 133), (336, 362)),
    "brow outer height": ((70, 33), (300, 263)),
    "brow height": ((105, 33), (334, 263)),
}
"""For each side: a point of the brow and a corner of the eye."""


@cache
def canonical_face() -> Floats:
    """Return MediaPipe's canonical face, `[468, 3]`: x to the subject's left, y up, z out of the face; centimetres."""
    with (files("featray.meaning") / "assets" / "canonical_face.npy").open("rb") as file:
        return np.asarray(np.load(file, allow_pickle=False), np.float64)


@cache
def mirrored_vertices() -> NDArray[np.intp]:
    """Return, for each of the 478 vertices, its counterpart on the other side of the face."""
    face = canonical_face()
    across = np.abs(face[:, None] - face * [-1, 1, 1]).sum(axis=2).argmin(axis=1)
    return np.concatenate([across, [473, 474, 475, 476, 477, 468, 469, 470, 471, 472]])


def fit_rotation(mesh: Floats) -> tuple[Floats, Floats]:
    """Fit the canonical face to meshes by rotation, translation and one scale, with least squares (Umeyama 1991).

    Args:
        mesh: `[n, 478, 3]`, frame px.

    Returns:
        Rotations `[n, 3, 3]` from a face that looks at the camera to each pose, in the frame's axes; and the residual
        of the fit, `[n]`: root mean square of the distances, relative to the face's own size.
    """
    at_rest = canonical_face() - canonical_face().mean(axis=0)
    seen = mesh[:, :CANONICAL_VERTICES] @ _UP_AND_OUT
    seen = seen - seen.mean(axis=1, keepdims=True)
    left, strengths, right = np.linalg.svd(at_rest.T @ seen)
    turned = np.swapaxes(right, 1, 2)
    strengths[:, 2] *= np.sign(np.linalg.det(turned @ np.swapaxes(left, 1, 2)))
    handed = np.where(strengths[:, 2] < 0, -1.0, 1.0)
    turned[:, :, 2] *= handed[:, None]
    rotation = turned @ np.swapaxes(left, 1, 2)
    size = (at_rest**2).sum()
    scale = np.maximum(strengths.sum(axis=1) / size, 1e-12)
    rest = seen / scale[:, None, None] - at_rest @ np.swapaxes(rotation, 1, 2)
    return _UP_AND_OUT @ rotation @ _UP_AND_OUT, np.sqrt((rest**2).sum(axis=(1, 2)) / size)


def head_angles(rotation: Floats) -> dict[str, Floats]:
    """Return pitch, roll and yaw of rotations `[n, 3, 3]` as the `faces` table defines them: a rotation vector's."""
    vector = Rotation.from_matrix(rotation).as_rotvec()
    return {"pitch": -vector[:, 0], "roll": -vector[:, 2], "yaw": vector[:, 1]}


def five_points(mesh: Floats) -> Floats:
    """Return the mesh's positions of the detector's five landmarks, `[n, 5, 2]`: eyes, nose tip, mouth corners."""
    eyes = [mesh[:, corners[:2], :2].mean(axis=1) for corners in _EYES]
    return np.stack([*eyes, mesh[:, _NOSE, :2], *(mesh[:, corner, :2] for corner in _MOUTH)], axis=1)


def landmark_angles(landmarks5: Floats) -> dict[str, Floats]:
    """Return head angles from five landmarks `[n, 5, 2]`: roll in rad, pitch and yaw as monotonic measures.

    Roll is the angle of the line between the eyes. Yaw is the nose's horizontal offset from the midpoint of the eyes,
    in eye distances. Pitch is the nose's position between eyes and mouth.
    """
    right, left, nose = landmarks5[:, 0], landmarks5[:, 1], landmarks5[:, 2]
    across, width, down = _axes(right, left)
    off = nose - (right + left) / 2
    mouth = landmarks5[:, 3:].mean(axis=1) - (right + left) / 2
    height = np.maximum(_dot(mouth, down), 1e-6)
    eyes = left - right
    return {
        "pitch": -_dot(off, down) / height,
        "roll": -np.arctan2(eyes[:, 1], eyes[:, 0]),
        "yaw": -_dot(off, across) / width,
    }


def mesh_signals(mesh: Floats) -> dict[str, Floats]:
    """Return measures of eyes, mouth and brows from a mesh `[n, 478, 3]`, each `[n]`.

    In shares of the eye's width: `iris x` and `iris y`, the offset from the midpoint of the eye's corners, positive to
    the image's right and up; `eye opening`, and its difference between the sides. In shares of the distance between the
    eyes: `lip gap`, how much higher the left corner of the mouth is than the right, and the height of the brows above
    the eyes.
    """
    x, y, openings = [], [], []
    for image_left, image_right, iris, upper, lower in _EYES:
        corners = mesh[:, image_left, :2], mesh[:, image_right, :2]
        across, width, down = _axes(*corners)
        off = mesh[:, iris, :2] - (corners[0] + corners[1]) / 2
        x.append(_dot(off, across) / width)
        y.append(-_dot(off, down) / width)
        openings.append(_dot(mesh[:, lower, :2] - mesh[:, upper, :2], down) / width)
    right, left = (mesh[:, corner, :2] for corner in _MOUTH)
    across, width, down = _axes(*(mesh[:, eye[:2], :2].mean(axis=1) for eye in _EYES))
    above, below = (mesh[:, lip, :2] for lip in _LIPS)
    return {
        "iris x": (x[0] + x[1]) / 2,
        "iris y": (y[0] + y[1]) / 2,
        "eye opening": (openings[0] + openings[1]) / 2,
        "eye opening left - right": openings[1] - openings[0],
        "lip gap": _dot(below - above, down) / width,
        "mouth corner left - right": _dot(right - left, down) / width,
        **{
            name: np.mean([_dot(mesh[:, eye, :2] - mesh[:, brow, :2], down) for brow, eye in sides], axis=0) / width
            for name, sides in _BROWS.items()
        },
    }


def _axes(image_left: Floats, image_right: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the direction from one point to the other, their distance, and the perpendicular downward direction."""
    line = image_right - image_left
    width = np.maximum(np.linalg.norm(line, axis=1), 1e-6)
    across = line / width[:, None]
    return across, width, np.stack([-across[:, 1], across[:, 0]], axis=1)


def _dot(a: Floats, b: Floats) -> Floats:
    return np.asarray((a * b).sum(axis=1), np.float64)
