"""Findings. Differences between the left and right side of the face, from paired blendshapes and from the mesh.

Left and right are the subject's. The measures describe the face as the network sees it: a turned head, light from one
side and the network itself can make a symmetric face look asymmetric, so compare only within a person.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from featray.findings.samples import Floats
from featray.schema import ASYMMETRIES

PAIRS: Final = {name: (f"{name}Left", f"{name}Right") for name in ASYMMETRIES}
"""For each asymmetry, the blendshapes of the subject's left and right."""

MESH_PAIRS: Final[dict[str, tuple[tuple[int, int], ...]]] = {
    "mouth": ((291, 61),),
    "brows": ((336, 107), (334, 105), (300, 70)),
}
"""Vertices of the subject's left and right whose heights are compared: the corners of the mouth; the brows' inner ends,
middles and outer ends."""

_CORNERS: Final = (263, 33)
"""The outer corners of the left and right eye: they do not move, and the line between them is the face's horizon."""


def mesh_differences(mesh_xyz: NDArray[np.float32]) -> dict[str, Floats]:
    """Return how much higher the left side is than the right, as a share of the distance between outer eye corners.

    Args:
        mesh_xyz: float32 `[n, 478, 3]`; x, y in px, y downwards.

    Returns:
        By name of MESH_PAIRS, float32 `[n]`, measured in the picture perpendicular to the line between the eye corners;
        NaN where these coincide.
    """

    def apart(left: int, right: int) -> NDArray[np.float64]:
        return mesh_xyz[:, left, :2].astype(np.float64) - mesh_xyz[:, right, :2]

    horizon = apart(*_CORNERS)
    length = np.hypot(horizon[:, 0], horizon[:, 1])
    with np.errstate(divide="ignore", invalid="ignore"):
        along = horizon / length[:, None]
        up = np.column_stack([along[:, 1], -along[:, 0]])
        found = {}
        for name, pairs in MESH_PAIRS.items():
            higher = np.mean([(apart(*pair) * up).sum(axis=1) for pair in pairs], axis=0)
            found[name] = (higher / length).astype(np.float32)
    return {name: np.where(np.isfinite(value), value, np.float32(np.nan)) for name, value in found.items()}
