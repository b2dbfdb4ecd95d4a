"""Video. A part of a picture, converted as if all of it were.

Of a frame of 1080p with one face, a twentieth is looked at. What must stay true: its pixels are those of the whole
frame's conversion, to the bit. So a part is taken only of pictures that swscale converts pixel by pixel, in their own
size, and it begins and ends where swscale's blocks do, or with the picture.
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
"""Of each plane, by FFmpeg's name of a format. Of others, such as those of 10 bits, chroma is interpolated between
rows, by a filter that hangs on where it lies, which PyAV does not tell."""

_BLOCK_PX: Final = 64
"""Rows are converted in blocks of this size, or of one that divides it, from their left end on."""

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
        """How many pixels it has."""
        return (self.x2 - self.x1) * (self.y2 - self.y1)

    def stored(self, width_px: int, height_px: int, mirrored: bool, turn_degrees: int) -> Window:
        """Where this window of an upright picture lies in the picture as it is stored.

        Args:
            width_px: of the stored picture.
            height_px: of the same.
            mirrored: whether it is flipped left to right before it is turned.
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
        """The smallest one around it whose sides lie between blocks, or at the border of a picture of this size."""
        x2, y2 = -(-self.x2 // _BLOCK_PX) * _BLOCK_PX, -(-self.y2 // _BLOCK_ROWS) * _BLOCK_ROWS
        return Window(
            self.x1 // _BLOCK_PX * _BLOCK_PX,
            self.y1 // _BLOCK_ROWS * _BLOCK_ROWS,
            min(x2, width_px),
            min(y2, height_px),
        )


def has_parts(picture: Any) -> bool:
    """Return whether a part of a PyAV frame becomes the same RGB pixels, of the same size, as in the whole.

    At an odd height swscale interpolates chroma between rows, and of interlaced pictures it converts each field.
    """
    form = picture.format.name
    return form in _BYTES_A_SAMPLE and (form == "rgb24" or (picture.height % 2 == 0 and not picture.interlaced_frame))


def copy_part(picture: Any, window: Window) -> Any:
    """Return a part of a PyAV frame that `has_parts`, `in_blocks`, as a frame of its own."""
    form = picture.format.name
    # Its own class, so that chips can be cut on a machine without PyAV, where the GPU is checked.
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
