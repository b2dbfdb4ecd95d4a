"""Views. Convert rows to the columns, units, signs and order of OpenFace 2, where featray has a counterpart.

Sources: OpenFace's documentation of its output, and a file that it wrote (tests/parity). Its camera
frame equals featray's (`directions`); head pose is the three angles of R = Rx Ry Rz; a gaze angle is that of
the direction's projection on the horizontal or vertical plane. Values that featray does not estimate
are omitted, never filled in.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featray.names import AU_NAMES_20
from featray.views.directions import gaze_vectors, head_rotations

PRESENT: Final = 0.5
"""Minimum probability of an action unit that counts as present."""

_INTENSITIES: Final = "AU01 AU02 AU04 AU05 AU06 AU07 AU09 AU10 AU12 AU14 AU15 AU17 AU20 AU23 AU25 AU26 AU45".split()
_PRESENCES: Final = [*_INTENSITIES[:-1], "AU28", "AU45"]

SHARED_INTENSITIES: Final = tuple(au for au in _INTENSITIES if au in AU_NAMES_20)
SHARED_PRESENCES: Final = tuple(au for au in _PRESENCES if au in AU_NAMES_20)


def openface_table(rows: pa.Table, face_id_of_empty: int) -> pa.Table:
    """Return the table that OpenFace would write.

    Args:
        rows: sampled frames left-joined with `faces`, in order; with `points_xy` (68 x 2, px) if meshes
            are published. In a frame without a face, `score` and the other face columns are null.
        face_id_of_empty: value of `face_id` in a frame without a face.
    """
    found = rows["score"].is_valid().to_numpy()
    track_ids = rows["track_id"].fill_null(face_id_of_empty)
    columns: dict[str, Any] = {
        "frame": rows["frame_index"].to_numpy() + 1,
        "face_id": track_ids,
        "timestamp": rows["pts_us"].to_numpy() / 1e6,
        "confidence": rows["score"].fill_null(0.0),
        "success": found.astype(np.int32),
    }
    columns |= _gaze(rows) | _pose(rows)
    if "points_xy" in rows.column_names:
        columns |= _landmarks(rows)
    columns |= {f"{au}_r": rows[au] for au in SHARED_INTENSITIES}
    columns |= {f"{au}_c": _present(_numbers(rows, au)) for au in SHARED_PRESENCES}
    columns["intensity_scale"] = pa.repeat("probability_0_1", rows.num_rows)
    return pa.table(columns)


def _numbers(rows: pa.Table, name: str) -> NDArray[np.float64]:
    """Return a column, with NaN for null."""
    numbers: NDArray[np.float64] = rows[name].cast(pa.float64()).to_numpy()
    return numbers


def _gaze(rows: pa.Table) -> dict[str, pa.Array]:
    x, y, z = gaze_vectors(_numbers(rows, "gaze_yaw"), _numbers(rows, "gaze_pitch")).T
    return {"gaze_angle_x": _nullable(np.arctan2(x, -z)), "gaze_angle_y": _nullable(np.arctan2(y, -z))}


def _pose(rows: pa.Table) -> dict[str, pa.Array]:
    angles = np.column_stack([_numbers(rows, f"pose_{axis}") for axis in ("pitch", "yaw", "roll")])
    known = np.isfinite(angles).all(axis=1)
    euler = np.full((rows.num_rows, 3), np.nan)
    if known.any():
        pitch, yaw, roll = angles[known].T
        euler[known] = head_rotations(pitch, yaw, roll).as_euler("XYZ")
    return {f"pose_R{axis}": _nullable(values) for axis, values in zip("xyz", euler.T, strict=True)}


def _landmarks(rows: pa.Table) -> dict[str, pa.Array]:
    points = np.full((rows.num_rows, 68, 2), np.nan)
    valid = rows["points_xy"].is_valid().to_numpy()
    if valid.any():
        points[valid] = np.asarray(rows["points_xy"].drop_null().to_pylist())
    return {f"{name}_{i}": _nullable(points[:, i, axis]) for axis, name in enumerate("xy") for i in range(68)}


def _present(values: NDArray[np.float64]) -> pa.Array:
    return pa.array((values >= PRESENT).astype(np.int32), mask=np.isnan(values))


def _nullable(values: NDArray[np.float64]) -> pa.Array:
    return pa.array(values, mask=np.isnan(values))
