"""Faces. Cut chips: the 256x256 face crops that are the network's input.

Geometry: a square of 1.2 times the box's longer side, centred on the box, not clamped to
the frame. Chip pixel (i, j) samples the frame at `origin + (index + 0.5) / 256 * side`,
bilinearly and without antialiasing; the sampled position is a pixel-centre coordinate.
Outside its borders the frame is reflected. The published checkpoints were trained this
way, and py-feat 2.1.5 does the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from featray.names import CHIP_PX
from featray.video.part import Window

if TYPE_CHECKING:
    from featray.video.frame import Frame

CROP_SCALE: Final = 1.2

_CENTRES = (np.arange(CHIP_PX) + 0.5) / CHIP_PX
_RGB = np.arange(3)
_ROWS_TOGETHER = 32


def crop_squares(box_xyxy: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the square of each box, float64 `[n, 3]`: x and y of the top-left corner and the side, in frame px."""
    box = np.asarray(box_xyxy, np.float64)
    side = np.maximum(CROP_SCALE * np.maximum(box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]), 1.0)
    centre = (box[:, :2] + box[:, 2:]) / 2
    return np.concatenate([centre - side[:, None] / 2, side[:, None]], axis=1)


def cut_chips(frame: Frame, squares: NDArray[np.float64], cut: Cutter | None = None) -> Iterator[NDArray[np.uint8]]:
    """Yield the chips of a frame, uint8 `[256, 256, 3]`, SDR RGB.

    If the frame has few faces, only the parts around them are converted.

    Args:
        frame: a frame of a video.
        squares: squares from `crop_squares`.
        cut: the function that interpolates; None for `interpolate`.
    """
    cut = cut or interpolate
    sampled = [Sampled.of(square, frame.width_px, frame.height_px) for square in squares]
    looked_at = sum(one.window.area_px for one in sampled)
    image = None
    if looked_at > frame.width_px * frame.height_px or not frame.has_parts:
        image = frame.coded_rgb()
    for one in sampled:
        if image is None:
            chip = cut(frame.coded_part(one.window), one)
        else:
            x1, y1, x2, y2 = one.window
            chip = cut(image[y1:y2, x1:x2], one)
        yield frame.to_sdr(chip)


def cut_chip(frame_rgb: NDArray[Any], square: NDArray[np.float64], cut: Cutter | None = None) -> NDArray[Any]:
    """Return one chip, `[256, 256, 3]`, of a frame, `[height, width, 3]`; both uint8 or both uint16."""
    height_px, width_px, _ = frame_rgb.shape
    sampled = Sampled.of(square, width_px, height_px)
    x1, y1, x2, y2 = sampled.window
    return (cut or interpolate)(frame_rgb[y1:y2, x1:x2], sampled)


class Sampled(NamedTuple):
    """The sampling positions of a chip: for each row and column, two pixels of the window and the second's weight.

    Attributes:
        window: the part of the frame that is sampled.
        left, right, across: pixels and weight of the 256 columns.
        top, bottom, down: pixels and weight of the 256 rows.
    """

    window: Window
    left: NDArray[np.intp]
    right: NDArray[np.intp]
    across: NDArray[np.float32]
    top: NDArray[np.intp]
    bottom: NDArray[np.intp]
    down: NDArray[np.float32]

    @classmethod
    def of(cls, square: NDArray[np.float64], width_px: int, height_px: int) -> Sampled:
        """Return the sampling positions of a square's chip, in a frame of this size."""
        x, y, side = (float(value) for value in square)
        left, right, across = _taps(x, side, width_px)
        top, bottom, down = _taps(y, side, height_px)
        # Reflection reverses the order, so a second pixel may come before all first ones.
        x1, y1 = int(min(left.min(), right.min())), int(min(top.min(), bottom.min()))
        x2, y2 = int(max(left.max(), right.max())) + 1, int(max(top.max(), bottom.max())) + 1
        return cls(Window(x1, y1, x2, y2), left - x1, right - x1, across, top - y1, bottom - y1, down)


def interpolate(part_rgb: NDArray[Any], sampled: Sampled) -> NDArray[Any]:
    """Interpolate a chip from the pixels of its window.

    The square is parallel to the axes, so bilinear sampling is two one-dimensional
    interpolations: between rows, over the needed columns, then between columns. Only the
    pixels inside the square are converted to floats, a few rows at a time, so that the data
    stays in the L1 cache: that makes it two to three times as fast.
    """
    strip = part_rgb.reshape(len(part_rgb), -1)
    left, right, across = _channels(sampled.left), _channels(sampled.right), np.repeat(sampled.across, 3)
    top, bottom, down = sampled.top, sampled.bottom, sampled.down
    chip = np.empty((CHIP_PX, 3 * CHIP_PX), part_rgb.dtype)
    for start in range(0, CHIP_PX, _ROWS_TOGETHER):
        part = slice(start, start + _ROWS_TOGETHER)
        rows = _mix(strip[top[part]], strip[bottom[part]], down[part, None])
        # `clip` skips numpy's index check; all indices are valid.
        mixed = _mix(rows.take(left, axis=1, mode="clip"), rows.take(right, axis=1, mode="clip"), across)
        chip[part] = np.rint(mixed, out=mixed)
    return chip.reshape(CHIP_PX, CHIP_PX, 3)


Cutter = Callable[[NDArray[Any], Sampled], NDArray[Any]]
"""`interpolate`, or a function with the same result."""


def share_in_frame(square: NDArray[np.float64], width_px: int, height_px: int) -> float:
    """Return the share of a crop's area that lies inside the frame, in [0, 1]."""
    x, y, side = (float(value) for value in square)
    across = max(0.0, min(x + side, width_px) - max(x, 0.0))
    down = max(0.0, min(y + side, height_px) - max(y, 0.0))
    return across * down / (side * side)


def sharpness(chip_rgb: NDArray[np.uint8]) -> float:
    """Return the variance of the Laplacian of a chip's luma, in grey levels squared; small means blurred.

    It is measured on the chip and so gives the sharpness of the network's input, whatever
    the size of the face in the frame.
    """
    # Not as a product of matrices: OpenBLAS's kernels for other CPUs round it in another order.
    luma = np.multiply(chip_rgb[..., 0], np.float32(0.299))
    luma += np.multiply(chip_rgb[..., 1], np.float32(0.587))
    luma += np.multiply(chip_rgb[..., 2], np.float32(0.114))
    laplacian = 4 * luma[1:-1, 1:-1] - luma[:-2, 1:-1] - luma[2:, 1:-1] - luma[1:-1, :-2] - luma[1:-1, 2:]
    return float(laplacian.var())


def _mix(a: NDArray[Any], b: NDArray[Any], weight_of_b: NDArray[np.float32]) -> NDArray[np.float32]:
    mixed: NDArray[np.float32] = np.subtract(b, a, dtype=np.float32)
    mixed *= weight_of_b
    mixed += a
    return mixed


def _channels(pixels: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the positions of the three channels of these pixels in a row."""
    return (3 * pixels[:, None] + _RGB).ravel()


def _taps(origin: float, side: float, length: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Return, for 256 samples along an axis, the two neighbouring pixels and the weight of the second."""
    position = origin + _CENTRES * side
    if position[0] < 0 or position[-1] > length - 1:
        position = _reflect(position, length)
    low = np.floor(position)
    weight = (position - low).astype(np.float32)
    first = low.astype(np.intp)
    return first, np.minimum(first + 1, length - 1), weight


def _reflect(position: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """Reflect positions at the outer edges of the first and last pixel, -0.5 and length - 0.5; then clip."""
    period = 2.0 * length
    folded = np.abs((position + 0.5 + length) % period - length)
    return np.clip(folded - 0.5, 0, length - 1)
