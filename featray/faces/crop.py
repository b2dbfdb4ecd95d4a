"""Cutting chips: the 256x256 face crops that the network sees.

Geometry: a square of 1.2 times the box's longer side, centred on the box, not clamped to
the frame. Chip pixel (i, j) samples the frame at `origin + (index + 0.5) / 256 * side`,
bilinearly and without antialiasing, the sampled position read as a pixel-centre
coordinate; beyond its borders the frame is reflected. This is how the published
checkpoints were trained and what py-feat 2.1.5 does.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

CHIP_PX: Final = 256
CROP_SCALE: Final = 1.2


def crop_squares(box_xyxy: NDArray[np.floating]) -> NDArray[np.float64]:
    """The square of each box, float64 `[n, 3]`: x and y of its top-left corner and its side, in frame px."""
    box = np.asarray(box_xyxy, np.float64)
    side = np.maximum(CROP_SCALE * np.maximum(box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]), 1.0)
    centre = (box[:, :2] + box[:, 2:]) / 2
    return np.concatenate([centre - side[:, None] / 2, side[:, None]], axis=1)


def cut_chip(frame_rgb: NDArray[np.uint8], square: NDArray[np.float64]) -> NDArray[np.uint8]:
    """One chip, uint8 `[256, 256, 3]`, of a frame, uint8 `[height, width, 3]`.

    The square is parallel to the axes, so bilinear sampling is two one-dimensional
    interpolations: rows first, over the columns that are needed, then columns.
    """
    x, y, side = (float(value) for value in square)
    top, bottom, down = _taps(y, side, frame_rgb.shape[0])
    left, right, across = _taps(x, side, frame_rgb.shape[1])
    first, last = int(min(left.min(), right.min())), int(max(left.max(), right.max())) + 1
    strip = frame_rgb[:, first:last]
    rows = _mix(strip[top], strip[bottom], down[:, None, None])
    chip = _mix(rows[:, left - first], rows[:, right - first], across[None, :, None])
    return np.rint(chip).astype(np.uint8, order="C")


def share_in_frame(square: NDArray[np.float64], width_px: int, height_px: int) -> float:
    """The share of a crop's area that lies inside the frame, in [0, 1]."""
    x, y, side = (float(value) for value in square)
    across = max(0.0, min(x + side, width_px) - max(x, 0.0))
    down = max(0.0, min(y + side, height_px) - max(y, 0.0))
    return across * down / (side * side)


def sharpness(chip_rgb: NDArray[np.uint8]) -> float:
    """Variance of the Laplacian of a chip's luma, in grey levels squared; small means blurred.

    Measured on the chip, so that it says how sharp the network's input is, whatever the
    size of the face in the frame.
    """
    luma = chip_rgb @ np.asarray([0.299, 0.587, 0.114], np.float32)
    laplacian = 4 * luma[1:-1, 1:-1] - luma[:-2, 1:-1] - luma[2:, 1:-1] - luma[1:-1, :-2] - luma[1:-1, 2:]
    return float(laplacian.var())


def _mix(a: NDArray[np.generic], b: NDArray[np.generic], weight_of_b: NDArray[np.float32]) -> NDArray[np.float32]:
    start = a.astype(np.float32)
    return start + (b.astype(np.float32) - start) * weight_of_b


def _taps(origin: float, side: float, length: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """For each of 256 samples along an axis: the two pixels it lies between, and the weight of the second."""
    position = origin + (np.arange(CHIP_PX) + 0.5) / CHIP_PX * side
    position = _reflect(position, length)
    low = np.floor(position)
    weight = (position - low).astype(np.float32)
    first = np.clip(low, 0, length - 1).astype(np.intp)
    return first, np.minimum(first + 1, length - 1), weight


def _reflect(position: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """Fold positions about the outer edges of the first and last pixel, -0.5 and length - 0.5; then clip."""
    period = 2.0 * length
    folded = np.abs((position + 0.5 + length) % period - length)
    return np.clip(folded - 0.5, 0, length - 1)
