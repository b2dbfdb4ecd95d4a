"""Model. Convert the network's raw outputs into table columns, in numpy.

What must stay true: names follow py-feat 2.1.5 and signs follow the checkpoint's conventions,
so that a column means the same for every checkpoint. Raw outputs are separate from columns:
engines produce raw outputs, and parity tests compare them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from featray.model.config import IMAGE_SIDE_PX, CheckpointConfig
from featray.model.conventions import NEWEST, Conventions
from featray.names import (
    AU_NAMES_20,
    AU_NAMES_24,
    BLENDSHAPE_NAMES,
    EMOTION_NAMES_7,
    EMOTION_NAMES_8,
)

Floats = NDArray[np.float32]

POSE_COLUMNS: Final = ("pose_pitch", "pose_roll", "pose_yaw", "pose_x", "pose_y", "pose_z")


@dataclass(frozen=True)
class RawOutputs:
    """Raw outputs of the network for N chips, before any convention is applied. All float32.

    Attributes:
        au: `[N, n_au]` action unit probabilities in [0, 1].
        emotion: `[N, n_emotion]` softmax.
        valence_arousal: `[N, 2]` in [-1, 1].
        gaze: `[N, 2]` yaw and pitch in radians; signs depend on the checkpoint, see `conventions.py`.
        mesh: `[N, 478, 3]`; x, y as shares of the chip when `mesh_normalized`, else in
            pixels of the 224-pixel image.
        pose: `[N, 6]` in the pose head's own order and signs, see `to_columns`.
        blendshapes: `[N, 52]` in [0, 1], or None for checkpoints without them.

    """

    au: Floats
    emotion: Floats
    valence_arousal: Floats
    gaze: Floats
    mesh: Floats
    pose: Floats
    blendshapes: Floats | None

    def __len__(self) -> int:
        return len(self.au)


def flat_widths(config: CheckpointConfig) -> dict[str, int]:
    """Return the number of columns per output in the `[N, D]` array that engines produce."""
    widths = {
        "au": config.n_au,
        "emotion": config.n_emotion,
        "valence_arousal": 2,
        "gaze": 2,
        "pose": 6,
        "mesh": 3 * config.n_mesh,
    }
    return widths | ({"blendshapes": config.n_blendshape} if config.n_blendshape else {})


def split_flat(flat: Floats, config: CheckpointConfig) -> RawOutputs:
    """Split the engines' `[N, D]` float32 array into outputs (views, no copies)."""
    widths = flat_widths(config)
    ends = np.cumsum(list(widths.values()))
    if flat.ndim != 2 or flat.shape[1] != ends[-1]:
        raise ValueError(f"flat outputs have shape {flat.shape}, not [N, {ends[-1]}]")
    parts = dict(zip(widths, np.split(flat, ends[:-1], axis=1), strict=True))
    return RawOutputs(
        au=parts["au"],
        emotion=parts["emotion"],
        valence_arousal=parts["valence_arousal"],
        gaze=parts["gaze"],
        mesh=parts["mesh"].reshape(len(flat), config.n_mesh, 3),
        pose=parts["pose"],
        blendshapes=parts.get("blendshapes"),
    )


def to_columns(
    raw: RawOutputs,
    crops: NDArray[np.floating[Any]],
    config: CheckpointConfig,
    conventions: Conventions = NEWEST,
) -> dict[str, Floats]:
    """Return the table columns of N faces, each float32 `[N]`, except `mesh_xyz`, which is `[N, 1434]`.

    Keys: every AU of the checkpoint (`AU01`...), `emotion_*`, `valence`, `arousal`,
    `gaze_yaw`, `gaze_pitch` (rad; positive is the subject's left, and up), `gaze_angle` (rad, to the camera axis),
    `pose_pitch`, `pose_roll`, `pose_yaw` (rad; positive is up, tilt to the subject's right,
    towards the subject's right), `pose_x`, `pose_y`, `pose_z`, `mesh_xyz` (x, y in frame
    pixels, z relative, vertex by vertex) and, if the checkpoint has them, the 52
    blendshapes by name.

    Args:
        raw: outputs of an engine.
        crops: `[N, 3]`: origin x, origin y and side of each chip in pixels of the frame.
        config: config of the checkpoint that produced `raw`.
        conventions: its signs.

    """
    au_names = AU_NAMES_24 if config.n_au == 24 else AU_NAMES_20
    emotion_names = EMOTION_NAMES_8 if config.n_emotion == 8 else EMOTION_NAMES_7
    columns = dict(zip(au_names, raw.au.T, strict=True))
    columns |= {f"emotion_{name}": values for name, values in zip(emotion_names, raw.emotion.T, strict=True)}
    columns["valence"], columns["arousal"] = raw.valence_arousal.T
    columns |= _gaze_columns(raw.gaze, conventions)
    columns |= dict(zip(POSE_COLUMNS, _pose_columns(raw.pose, conventions).T, strict=True))
    if raw.blendshapes is not None:
        columns |= dict(zip(BLENDSHAPE_NAMES, raw.blendshapes.T, strict=True))
    columns["mesh_xyz"] = mesh_in_frame(raw.mesh, crops, config).reshape(len(raw), 3 * config.n_mesh)
    return {name: np.ascontiguousarray(values, np.float32) for name, values in columns.items()}


def mesh_in_frame(mesh: Floats, crops: NDArray[np.floating[Any]], config: CheckpointConfig) -> Floats:
    """Return the mesh `[N, 478, 3]` with x, y in frame pixels. Computed in float64, because frames can be wide."""
    crops64 = np.asarray(crops, np.float64)
    if crops64.shape != (len(mesh), 3):
        raise ValueError(f"crops have shape {crops64.shape}, not [{len(mesh)}, 3]")
    unit = 1.0 if config.mesh_normalized else 1.0 / IMAGE_SIDE_PX
    framed = mesh.astype(np.float64)
    framed[..., :2] = crops64[:, None, :2] + framed[..., :2] * (unit * crops64[:, None, 2:])
    return framed.astype(np.float32)


def _gaze_columns(gaze: Floats, signs: Conventions) -> dict[str, Floats]:
    yaw, pitch = signs.gaze_yaw * gaze[:, 0].astype(np.float64), signs.gaze_pitch * gaze[:, 1].astype(np.float64)
    angle = np.arccos(np.clip(np.cos(pitch) * np.cos(yaw), -1.0, 1.0))
    return {
        "gaze_yaw": yaw.astype(np.float32),
        "gaze_pitch": pitch.astype(np.float32),
        "gaze_angle": angle.astype(np.float32),
    }


def _pose_columns(pose: Floats, signs: Conventions) -> Floats:
    """Return pitch, roll, yaw, x, y, z. The tensor's order differs from that of the model card's tuple."""
    turned = np.asarray([signs.pose_pitch, signs.pose_roll, signs.pose_yaw, 1, 1, 1], np.float32)
    return pose[:, [0, 2, 1, 3, 4, 5]] * turned
