"""Ground. Names of the network's outputs, in their order.

Importable without torch: the table schemas are derived from these lists.
Sources: FACS (Ekman & Friesen 1978) for action units; MediaPipe Face Landmarker
for the 52 blendshapes and the 478 mesh vertices; dlib's 68-point markup.
"""

from __future__ import annotations

from typing import Final

CHIP_PX: Final = 256
"""Side of a chip, the face crop given to the network: uint8 `[256, 256, 3]`, RGB."""

AU_NAMES_20: Final[tuple[str, ...]] = tuple(
    f"AU{n:02d}" for n in (1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15, 17, 20, 23, 24, 25, 26, 28, 43)
)
"""The action units that every published checkpoint estimates; the columns of `faces`."""

AU_NAMES_24: Final[tuple[str, ...]] = tuple(sorted((*AU_NAMES_20, "AU16", "AU18", "AU27", "AU45")))
"""The action units of checkpoints with `n_au: 24`, in numerical order."""

EMOTION_NAMES_7: Final[tuple[str, ...]] = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger")
EMOTION_NAMES_8: Final[tuple[str, ...]] = (*EMOTION_NAMES_7, "contempt")

MESH_VERTICES: Final = 478
"""Vertices of the MediaPipe face mesh, irises included."""

BLENDSHAPE_NAMES: Final[tuple[str, ...]] = (
    "neutral",
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight",
    "cheekPuff", "cheekSquintLeft", "cheekSquintRight",
    "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight", "eyeLookInLeft",
    "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight",
    "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight",
    "jawForward", "jawLeft", "jawOpen", "jawRight",
    "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight",
    "mouthFunnel", "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft",
    "mouthPressRight", "mouthPucker", "mouthRight", "mouthRollLower", "mouthRollUpper",
    "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft",
    "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight", "noseSneerLeft", "noseSneerRight",
)  # fmt: skip
"""MediaPipe's 52 blendshapes in its order (`_neutral` is renamed to `neutral`); not ARKit's 52."""

DLIB68_VERTICES: Final[tuple[int, ...]] = (
    127, 234, 93, 132, 58, 172, 136, 150, 176, 148, 152, 377, 400, 379, 365, 397, 356,  # jaw
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,  # brows
    168, 6, 195, 4, 240, 75, 1, 305, 460,  # nose
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,  # eyes
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181,  # outer lip
    78, 82, 13, 312, 308, 317, 14, 87,  # inner lip
)  # fmt: skip
"""The mesh vertex that corresponds to each of dlib's 68 landmarks."""
