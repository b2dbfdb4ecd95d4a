"""Video. Convert a part of a picture with the same result as converting the whole picture.

For a 1080p frame with one face, only a twentieth of the frame is needed. What must stay true: the pixels equal those of
the whole frame's conversion, bit for bit. Therefore parts are only taken of pictures that swscale converts pixel by
pixel, without scaling, and a part begins and ends at swscale's blocks or at the picture's border.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

_BYTES_A_SAMPLE: Final = {
    "yuv420p": (1, 1, 1),
    "yuvj420p": (1, 1, 1),
    "yuv422p": (1, 1, 1),
    "yuvj422p": (1, 1, 1),
    "yuv444p": (1, 1, 1),
    "yuvj444p": (1, 1, 1),
    "gray": (1,),
    "rgb24": (3,),
}
"""Bytes per sample of each plane, by FFmpeg's name of the format. Other formats, such as those with 10 bits, are
excluded: their chroma is interpolated between rows with a filter that depends on the chroma location, which PyAV does
not expose."""

_BLOCK_PX: Final = 64
"""Rows are converted from the left in blocks of this size, or of a size that divides it."""

_BLOCK_ROWS: Final = 2
"""Rows that share a row of chroma."""


class Window(NamedTuple):
    """A rectangle of pixels of a picture, `[y1:y2, x1:x2]`."""

    x1: int
    y1: int
    x2: int
    y2: int

    @property
    def area_px(self) -> int:
        """Return the number of pixels."""
        return (self.x2 - self.x1) * (self.y2 - self.y1)

    def stored(self, width_px: int, height_px: int, mirrored: bool, turn_degrees: int) -> Window:
        """Return the position of this window of an upright picture in the stored picture.

        Args:
            width_px: width of the stored picture.
            height_px: height of the stored picture.
            mirrored: whether the stored picture is flipped left to right before it is turned.
            turn_degrees: counterclockwise turn that makes it upright.
        """
        x1, y1, x2, y2 = self
        if turn_degrees == 90:
            x1, y1, x2, y2 = width_px - y2, x1, width_px - y1, x2
        elif turn_degrees == 180:
            x1, y1, x2, y2 = width_px - x2, height_px - y2, width_px - x1, height_px - y1
        elif turn_degrees == 270:
            x1, y1, x2, y2 = y1, height_px - x2, y2, height_px - x1
        return Window(width_px - x2, y1, width_px - x1, y2) if mirrored else Window(x1, y1, x2, y2)

    def in_blocks(self, width_px: int, height_px: int) -> Window:
        """Return the smallest window around it with sides between blocks or at the border of a picture of this size."""
        x2, y2 = -(-self.x2 // _BLOCK_PX) * _BLOCK_PX, -(-self.y2 // _BLOCK_ROWS) * _BLOCK_ROWS
        return Window(
            self.x1 // _BLOCK_PX * _BLOCK_PX,
            self.y1 // _BLOCK_ROWS * _BLOCK_ROWS,
            min(x2, width_px),
            min(y2, height_px),
        )


def has_parts(picture: Any) -> bool:
    """Return whether a part of a PyAV frame converts to the same RGB pixels as in the whole frame.

    If the height is odd, swscale interpolates chroma between rows; interlaced pictures it converts field by field.
    """
    form = picture.format.name
    return form in _BYTES_A_SAMPLE and (form == "rgb24" or (picture.height % 2 == 0 and not picture.interlaced_frame))


def copy_part(picture: Any, window: Window) -> Any:
    """Return a part of a PyAV frame with `has_parts` as a new frame; the window must come from `in_blocks`."""
    form = picture.format.name
    # The picture's own class, so that GPU checks can cut chips on a machine without PyAV.
    part = type(picture)(window.x2 - window.x1, window.y2 - window.y1, form)
    part.colorspace, part.color_range = picture.colorspace, picture.color_range
    for whole, own, size in zip(picture.planes, part.planes, _BYTES_A_SAMPLE[form], strict=True):
        across, down = picture.width > whole.width, picture.height > whole.height  # chroma has half as many
        x1, y1 = window.x1 >> across, window.y1 >> down
        rows = _rows(whole)[y1 : y1 + own.height, x1 * size : (x1 + own.width) * size]
        _rows(own)[:, : own.width * size] = rows
    return part


def _rows(plane: Any) -> NDArray[np.uint8]:
    return np.frombuffer(plane, np.uint8)[: plane.height * plane.line_size].reshape(plane.height, plane.line_size)
