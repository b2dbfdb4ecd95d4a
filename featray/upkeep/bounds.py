"""Upkeep. Largest allowed difference between a published number and its recomputation, for `featray verify`.

Detection is the same code in the same arithmetic everywhere. The network's bound depends on
engine and precision, since the face may be in another batch now, and on another processor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from featray.model.config import CheckpointConfig
from featray.model.engines import bf16_deviations
from featray.model.outputs import POSE_COLUMNS
from featray.names import AU_NAMES_20, BLENDSHAPE_NAMES, EMOTION_NAMES_7


@dataclass(frozen=True)
class Group:
    """Columns that share a bound.

    Attributes:
        columns: columns of faces, blendshapes and mesh.
        unit: unit of the differences: the column's own (empty), a share of `crop_side` (numbers in pixels grow with
            the face), or a share of the published value.
    """

    columns: tuple[str, ...]
    unit: str = ""


SIDE, SHARE = "of crop_side", "of the value"

GROUPS: Final[dict[str, Group]] = {
    "boxes": Group(("box_x1", "box_y1", "box_x2", "box_y2", "crop_x", "crop_y", "crop_side", "face_px"), SIDE),
    "landmarks": Group(("landmarks5",), SIDE),
    "score": Group(("score", "in_frame")),
    "sharpness": Group(("sharpness",), SHARE),
    "au": Group(AU_NAMES_20),
    "emotion": Group(tuple(f"emotion_{name}" for name in EMOTION_NAMES_7)),
    "valence_arousal": Group(("valence", "arousal")),
    "gaze": Group(("gaze_yaw", "gaze_pitch", "gaze_angle")),
    "pose": Group(POSE_COLUMNS),
    "blendshapes": Group(BLENDSHAPE_NAMES),
    "mesh": Group(("mesh_xyz",), SIDE),
}
"""Every column that depends on the face's frame alone. `track_id` depends on the whole video, so it is excluded."""

_DETECTION: Final = {"boxes": 1e-4, "landmarks": 1e-4, "score": 1e-4, "sharpness": 1e-3}
"""Measured: 0, on one machine, in any order. The tolerance covers another processor's order of additions."""

_NETWORK_FP32: Final = {
    "au": 2e-5,
    "emotion": 2e-5,
    "valence_arousal": 5e-5,
    "gaze": 5e-5,
    "pose": 1e-4,
    "mesh": 2e-4,
    "blendshapes": 2e-5,
}
"""Measured on one machine, alone or in another batch: 6e-8 with torch, 0 with OpenVINO. Two engines, which like two
processors add in different orders, differ by 5e-6 (mesh 1.2e-5) on synthetic weights; this is ten times that."""


def repeat_bounds(config: CheckpointConfig, precision: str) -> dict[str, float]:
    """Return the bound of each group, for the network that a run used and its precision.

    In bf16, both sides may deviate from fp32 by the full error of bf16, in opposite directions. Measured on one
    machine: 1.5e-8.
    """
    if precision == "fp32":
        return _DETECTION | _NETWORK_FP32
    return _DETECTION | {name: 2 * bound for name, bound in bf16_deviations(config).items()}
