"""Faces. Cutting chips: the 256x256 face crops that the network sees.

Geometry: a square of 1.2 times the box's longer side, centred on the box, not clamped to
the frame. Chip pixel (i, j) samples the frame at `origin + (index + 0.5) / 256 * side`,
bilinearly and without antialiasing, the sampled position read as a pixel-centre
coordinate; beyond its borders the frame is reflected. This is how the published
checkpoints were trained and what py-feat 2.1.5 does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from featray.names import CHIP_PX

CROP_SCALE: Final = 1.2

Cutter = Callable[[NDArray[Any], NDArray[np.float64]], NDArray[Any]]
"""`cut_chip`, or what gives the same."""

_CENTRES = (np.arange(CHIP_PX) + 0.5) / CHIP_PX
_RGB = np.arange(3)
_ROWS_TOGETHER = 32


def crop_squares(box_xyxy: NDArray[np.floating]) -> NDArray[np.float64]:
    """The square of each box, float64 `[n, 3]`: x and y of its top-left corner and its side, in frame px."""
    box = np.asarray(box_xyxy, np.float64)
    side = np.maximum(CROP_SCALE * np.maximum(box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]), 1.0)
    centre = (box[:, :2] + box[:, 2:]) / 2
    return np.concatenate([centre - side[:, None] / 2, side[:, None]], axis=1)


def cut_chip(frame_rgb: NDArray[Any], square: NDArray[np.float64]) -> NDArray[Any]:
    """One chip, `[256, 256, 3]`, of a frame, `[height, width, 3]`, both uint8 or both uint16.

    The square is parallel to the axes, so bilinear sampling is two one-dimensional
    interpolations: between rows, over the columns that are needed, then between columns.
    Only what the square covers is converted to floats, and a few rows at a time, so that
    all stays in the processor's nearest cache: that makes it two to three times as fast.
    """
    x, y, side = (float(value) for value in square)
    height_px, width_px, _ = frame_rgb.shape
    top, bottom, down = taps(y, side, height_px)
    left, right, across = taps(x, side, width_px)
    first, last = int(min(left.min(), right.min())), int(max(left.max(), right.max())) + 1
    strip = frame_rgb.reshape(height_px, -1)[:, 3 * first : 3 * last]
    left, right, across = _channels(left - first), _channels(right - first), np.repeat(across, 3)
    chip = np.empty((CHIP_PX, 3 * CHIP_PX), frame_rgb.dtype)
    for start in range(0, CHIP_PX, _ROWS_TOGETHER):
        part = slice(start, start + _ROWS_TOGETHER)
        rows = _mix(strip[top[part]], strip[bottom[part]], down[part, None])
        # `clip` keeps numpy from checking indices, all of which are right.
        mixed = _mix(rows.take(left, axis=1, mode="clip"), rows.take(right, axis=1, mode="clip"), across)
        chip[part] = np.rint(mixed, out=mixed)
    return chip.reshape(CHIP_PX, CHIP_PX, 3)


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


def _mix(a: NDArray[Any], b: NDArray[Any], weight_of_b: NDArray[np.float32]) -> NDArray[np.float32]:
    mixed: NDArray[np.float32] = np.subtract(b, a, dtype=np.float32)
    mixed *= weight_of_b
    mixed += a
    return mixed


def _channels(pixels: NDArray[np.intp]) -> NDArray[np.intp]:
    """Where the three channels of these pixels stand in a row."""
    return (3 * pixels[:, None] + _RGB).ravel()


def taps(origin: float, side: float, length: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Return, for each of 256 samples along an axis, the two pixels it lies between and the weight of the second."""
    position = origin + _CENTRES * side
    if position[0] < 0 or position[-1] > length - 1:
        position = _reflect(position, length)
    low = np.floor(position)
    weight = (position - low).astype(np.float32)
    first = low.astype(np.intp)
    return first, np.minimum(first + 1, length - 1), weight


def _reflect(position: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """Fold positions about the outer edges of the first and last pixel, -0.5 and length - 0.5; then clip."""
    period = 2.0 * length
    folded = np.abs((position + 0.5 + length) % period - length)
    return np.clip(folded - 0.5, 0, length - 1)
