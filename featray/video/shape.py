"""Video. The shape of pixels: the sample aspect ratio of each picture, and its size when its pixels are square."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Final

SQUARE: Final = Fraction(1)

_MOST: Final = 4
"""Anamorphic video has 2 at most; a header that says more is wrong, and a frame stretched by it may fill the memory."""


class PixelShapes:
    """Tells the sample aspect ratio of each picture of a stream.

    What the container says holds for all of it. Where it says nothing of its own, the codec's word does, which may
    change in mid-stream, as in broadcasts between 4:3 and 16:9. It is taken from the packet that a picture was in:
    when the picture comes out, the decoder may be several packets on.

    Args:
        stream: of PyAV, of which nothing has been decoded.
    """

    def __init__(self, stream: Any) -> None:
        self._context = stream.codec_context
        self._coded = self._context.sample_aspect_ratio or SQUARE
        self._usual = stream.sample_aspect_ratio or SQUARE
        self._container_decides = self._usual != self._coded
        self._others: dict[int | None, Fraction] = {}

    def note_packet(self, packet: Any) -> None:
        """Note the shape of the packet that was decoded last, if it is not the usual one."""
        coded = self._context.sample_aspect_ratio or SQUARE
        if coded != self._coded and not self._container_decides:
            self._others[packet.pts] = coded
        elif self._others:
            self._others.pop(packet.pts, None)

    def of(self, picture: Any) -> Fraction:
        """The sample aspect ratio of a picture: width of a pixel over its height; 1 where nothing is said."""
        return self._others.get(picture.pts, self._usual) if self._others else self._usual


def square_size(width_px: int, height_px: int, sar: Fraction) -> tuple[int, int]:
    """Width and height of a picture of this size when its pixels are square; it only grows, so that nothing is lost.

    A ratio that no camera has, beyond 4, is taken for an error and not followed.
    """
    if sar == SQUARE or not Fraction(1, _MOST) <= sar <= _MOST:
        return width_px, height_px
    return (round(width_px * sar), height_px) if sar > 1 else (width_px, round(height_px / sar))
