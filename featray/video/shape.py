"""Video. The shape of pixels: the sample aspect ratio of each picture, and its size with square pixels."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Final

SQUARE: Final = Fraction(1)

_MOST: Final = 4
"""Anamorphic video has a ratio of at most 2. A larger one is an error, and stretching by it could fill the memory."""


class PixelShapes:
    """Gives the sample aspect ratio of each picture of a stream.

    The container's ratio applies to the whole stream. If the container has none of its own, the codec's ratio applies,
    which may change in mid-stream, as in broadcasts that switch between 4:3 and 16:9. It is read at the packet of a
    picture, because the decoder may be several packets further when the picture comes out.

    Args:
        stream: a PyAV stream of which nothing has been decoded yet.
    """

    def __init__(self, stream: Any) -> None:
        self._context = stream.codec_context
        self._coded = self._context.sample_aspect_ratio or SQUARE
        self._usual = stream.sample_aspect_ratio or SQUARE
        self._container_decides = self._usual != self._coded
        self._others: dict[int | None, Fraction] = {}

    def note_packet(self, packet: Any) -> None:
        """Remember the shape of the packet that was decoded last, if it is not the usual one."""
        coded = self._context.sample_aspect_ratio or SQUARE
        if coded != self._coded and not self._container_decides:
            self._others[packet.pts] = coded
        elif self._others:
            self._others.pop(packet.pts, None)

    def of(self, picture: Any) -> Fraction:
        """Return the sample aspect ratio of a picture: width of a pixel over its height; 1 if unknown."""
        return self._others.get(picture.pts, self._usual) if self._others else self._usual


def square_size(width_px: int, height_px: int, sar: Fraction) -> tuple[int, int]:
    """Return width and height with square pixels; a picture is only enlarged, so that no detail is lost.

    A ratio beyond 4, which no camera has, is treated as an error and ignored.
    """
    if sar == SQUARE or not Fraction(1, _MOST) <= sar <= _MOST:
        return width_px, height_px
    return (round(width_px * sar), height_px) if sar > 1 else (width_px, round(height_px / sar))
