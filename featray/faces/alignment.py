"""Faces. Warp a chip so that its five landmarks lie where an embedder was trained to expect them.

Pure functions. They warp the chip, not the frame, because the frame never leaves the decoding process.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featray.names import CHIP_PX


def similarity_to(points: NDArray[np.float64], template: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the similarity transform that maps points closest to a template, as float64 `[2, 3]`.

    Least squares over rotation, scale and shift, without reflection (Umeyama, PAMI 13, 1991).

    Args:
        points: float64 `[5, 2]`, x and y in px.
        template: float64 `[5, 2]`, in px of the resulting picture.

    Raises:
        ValueError: all points are the same.
    """
    mean, wanted = points.mean(axis=0), template.mean(axis=0)
    centred, target = points - mean, template - wanted
    spread = float((centred**2).sum())
    if not spread > 0:
        raise ValueError("landmarks that are all the same have no direction")
    along = float((centred * target).sum()) / spread
    across = float((centred[:, 0] * target[:, 1] - centred[:, 1] * target[:, 0]).sum()) / spread
    turn = np.array([[along, -across], [across, along]])
    return np.column_stack([turn, wanted - turn @ mean])


def landmarks_in_chip(landmarks5: NDArray[np.float64], square: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return landmarks as positions in a chip, where the centre of the first pixel is (0, 0).

    Args:
        landmarks5: `[5, 2]`, x and y in frame px.
        square: `[3]`, `crop_x, crop_y, crop_side` in frame px.
    """
    positions: NDArray[np.float64] = (landmarks5 - square[:2]) * (CHIP_PX / square[2]) - 0.5
    return positions


def align_chip(
    chip: NDArray[np.uint8],
    landmarks5: NDArray[np.float64],
    square: NDArray[np.float64],
    template: NDArray[np.float64],
    size_px: int,
) -> NDArray[np.uint8]:
    """Return a chip's face with its landmarks on the template, uint8 `[size_px, size_px, 3]` RGB.

    Sampling is bilinear and repeats the chip's border outside it.

    Args:
        chip: uint8 `[256, 256, 3]` RGB.
        landmarks5: `[5, 2]`, x and y in frame px.
        square: `[3]`, `crop_x, crop_y, crop_side` in frame px.
        template: `[5, 2]` in px of the result.
        size_px: side of the result.

    Raises:
        ValueError: the landmarks are all the same.
    """
    forward = similarity_to(landmarks_in_chip(landmarks5, square), template)
    turn = np.linalg.inv(forward[:, :2])
    grid = np.arange(size_px, dtype=np.float64)
    x = turn[0, 0] * (grid[None, :] - forward[0, 2]) + turn[0, 1] * (grid[:, None] - forward[1, 2])
    y = turn[1, 0] * (grid[None, :] - forward[0, 2]) + turn[1, 1] * (grid[:, None] - forward[1, 2])
    left, top = (np.clip(np.floor(axis), 0, CHIP_PX - 2).astype(np.intp) for axis in (x, y))
    across = np.clip(x - left, 0, 1).astype(np.float32)[..., None]
    down = np.clip(y - top, 0, 1).astype(np.float32)[..., None]
    pixels = chip.reshape(-1, 3)
    corner = top * CHIP_PX + left
    upper = pixels[corner] * (1 - across) + pixels[corner + 1] * across
    lower = pixels[corner + CHIP_PX] * (1 - across) + pixels[corner + CHIP_PX + 1] * across
    face: NDArray[np.uint8] = np.rint(upper * (1 - down) + lower * down).astype(np.uint8)
    return face
