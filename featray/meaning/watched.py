"""Meaning. The network's outputs for the faces of one clip, and the signals that they are compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from featray.meaning.geometry import fit_rotation, five_points, head_angles, landmark_angles, mesh_signals
from featray.names import BLENDSHAPE_NAMES

Floats = NDArray[np.float64]
Columns = Mapping[str, NDArray[np.float32]]

SIDED_PAIRS: Final = tuple(
    name.removesuffix("Left")
    for name in BLENDSHAPE_NAMES
    if name.endswith("Left") and name not in ("mouthLeft", "jawLeft")  # these are movements to a side
)
"""Blendshapes with a ...Left and a ...Right version of the same movement."""


@dataclass(frozen=True)
class Watched:
    """One face per frame of a clip, in order of time, with the network's outputs.

    Attributes:
        name: display name of the clip.
        columns: columns of the `faces` and `blendshapes` tables, each `[n]`.
        mesh_px: `[n, 478, 3]`, frame px; z in the same unit.
        landmarks5: `[n, 5, 2]`, the detector's landmarks, frame px.
        boxes: `[n, 4]`, xyxy, frame px.
        squares: `[n, 3]`, squares of the chips: x, y, side, frame px.
        some: positions, `[m]`, of the faces that were also run mirrored and with channels swapped.
        mirrored: columns of those faces from mirrored chips, each `[m]`.
        swapped: columns of those faces from chips with red and blue swapped, each `[m]`.
        swapped_mesh_px: meshes of those faces with red and blue swapped, `[m, 478, 3]`.
    """

    name: str
    columns: Columns
    mesh_px: Floats
    landmarks5: Floats
    boxes: Floats
    squares: Floats
    some: NDArray[np.intp]
    mirrored: Columns
    swapped: Columns
    swapped_mesh_px: Floats

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def box_side_px(self) -> Floats:
        """The longer side of each box, `[n]`."""
        return np.maximum(self.boxes[:, 2] - self.boxes[:, 0], self.boxes[:, 3] - self.boxes[:, 1])


def distances(mesh_px: Floats, watched: Watched, some: NDArray[np.intp] | None = None) -> Floats:
    """Return the distance of a mesh's five points from the detector's landmarks, `[n]`, in shares of the box's side."""
    chosen = np.arange(len(watched)) if some is None else some
    off = np.linalg.norm(five_points(mesh_px) - watched.landmarks5[chosen], axis=2).mean(axis=1)
    return np.asarray(off / watched.box_side_px[chosen], np.float64)


def signals(watched: Watched) -> dict[str, Floats]:
    """Return every series used in pairs, each `[n]`: columns, sums of columns, and geometric measures."""
    found: dict[str, Floats] = {name: np.asarray(values, np.float64) for name, values in watched.columns.items()}
    rotation, residual = fit_rotation(watched.mesh_px)
    found |= {f"mesh {axis}": values for axis, values in head_angles(rotation).items()}
    found |= {f"landmarks {axis}": values for axis, values in landmark_angles(watched.landmarks5).items()}
    found |= mesh_signals(watched.mesh_px)
    found["mesh residual"] = residual
    found["AU06 + AU12"] = found["AU06"] + found["AU12"]
    if "eyeBlinkLeft" in found:
        for name in ("eyeBlink", "mouthSmile", "browOuterUp", "browDown"):
            found[name] = (found[f"{name}Left"] + found[f"{name}Right"]) / 2
        for name in ("eyeBlink", "mouthSmile"):
            found[f"{name} left - right"] = found[f"{name}Left"] - found[f"{name}Right"]
        found["eyeLook left"] = (
            found["eyeLookOutLeft"] + found["eyeLookInRight"] - found["eyeLookInLeft"] - found["eyeLookOutRight"]
        ) / 2
        found["eyeLook up"] = (
            found["eyeLookUpLeft"] + found["eyeLookUpRight"] - found["eyeLookDownLeft"] - found["eyeLookDownRight"]
        ) / 2
    return found


def left_minus_right(columns: Columns) -> Floats:
    """Return left minus right of the paired blendshapes, `[pairs, n]`; no pairs without blendshapes."""
    there = [name for name in SIDED_PAIRS if f"{name}Left" in columns]
    both = [columns[f"{name}Left"].astype(np.float64) - columns[f"{name}Right"] for name in there]
    return np.stack(both) if both else np.empty((0, 0))
