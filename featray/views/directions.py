"""Views. Gaze and head pose as directions in the camera's frame: x to the right, y down, z away from it.

Sources: the tables' angles and signs are py-feat 2.1.5's. Head pose is a rotation vector, whose
three numbers are named pitch, yaw and roll and turned so that up, the subject's right
and a tilt to the subject's right are positive. Gaze is yaw and pitch of a unit vector; its
yaw is positive to the subject's left, which is the image's right.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation


def gaze_vectors(yaw_rad: ArrayLike, pitch_rad: ArrayLike) -> NDArray[np.float64]:
    """Return unit vectors `[n, 3]` of gaze; `(0, 0, -1)` looks into the camera.

    Args:
        yaw_rad: `gaze_yaw` of the `faces` table, `[n]`.
        pitch_rad: `gaze_pitch`, `[n]`.
    """
    yaw, pitch = np.asarray(yaw_rad, np.float64), np.asarray(pitch_rad, np.float64)
    return np.stack([np.sin(yaw) * np.cos(pitch), -np.sin(pitch), -np.cos(yaw) * np.cos(pitch)], axis=-1)


def head_rotations(pitch_rad: ArrayLike, yaw_rad: ArrayLike, roll_rad: ArrayLike) -> Rotation:
    """Return the rotations that turn a head facing the camera into each row's pose.

    Args:
        pitch_rad: `pose_pitch` of the `faces` table, `[n]`.
        yaw_rad: `pose_yaw`, `[n]`.
        roll_rad: `pose_roll`, `[n]`.
    """
    pitch, yaw, roll = (np.asarray(angle, np.float64) for angle in (pitch_rad, yaw_rad, roll_rad))
    return Rotation.from_rotvec(np.stack([-pitch, yaw, -roll], axis=-1))


def head_axes(pitch_rad: float, yaw_rad: float, roll_rad: float) -> NDArray[np.float64]:
    """Return the directions of a head's axes, `[3, 3]`: the subject's left, up, and forward out of the face."""
    at_rest = np.asarray([[1, 0, 0], [0, -1, 0], [0, 0, -1]], np.float64)
    return np.asarray(head_rotations(pitch_rad, yaw_rad, roll_rad).apply(at_rest), np.float64)
