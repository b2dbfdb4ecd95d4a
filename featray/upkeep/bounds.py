"""Upkeep. How far a number may be from the published one when it is computed again: said once, for `featray verify`.

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
        columns: of faces, blendshapes and mesh.
        unit: what differences are counted in: as the columns are, in shares of `crop_side`
            (numbers in pixels grow with the face), or in shares of the published value.
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
"""Every column that a face's frame decides. `track_id` follows from the whole video and is not among them."""

_DETECTION: Final = {"boxes": 1e-4, "landmarks": 1e-4, "score": 1e-4, "sharpness": 1e-3}
"""Seen: 0, on one machine, in any order. The room is for another processor's order of additions."""

_NETWORK_FP32: Final = {
    "au": 2e-5,
    "emotion": 2e-5,
    "valence_arousal": 5e-5,
    "gaze": 5e-5,
    "pose": 1e-4,
    "mesh": 2e-4,
    "blendshapes": 2e-5,
}
"""Seen on one machine, alone or in another batch: 6e-8 with torch, 0 with OpenVINO. Two engines, which add in
another order as another processor does, differ by 5e-6 (mesh 1.2e-5) on synthetic weights; this is ten times that."""


def repeat_bounds(config: CheckpointConfig, precision: str) -> dict[str, float]:
    """The bound of each group, for the network that a run used and the precision it ran in.

    In bf16 either side may be as far from fp32 as bf16 ever is, in other directions. Seen on one machine: 1.5e-8.
    """
    if precision == "fp32":
        return _DETECTION | _NETWORK_FP32
    return _DETECTION | {name: 2 * bound for name, bound in bf16_deviations(config).items()}
