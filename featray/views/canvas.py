"""Views. Draw on pictures: colours, fonts, and strokes with smooth edges.

Pillow's own lines are jagged. Strokes are therefore drawn enlarged on a separate layer, as small as
possible, which is then shrunk and laid over the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont

Colour = tuple[int, int, int]

INK: Final[Colour] = (236, 239, 244)
MUTED: Final[Colour] = (139, 148, 163)
FAINT: Final[Colour] = (52, 58, 69)
GROUND: Final[Colour] = (19, 22, 28)
RAISED: Final[Colour] = (28, 32, 40)
WARNING: Final[Colour] = (255, 184, 77)
ACCENTS: Final[tuple[Colour, ...]] = tuple(
    ImageColor.getrgb(name)[:3]
    for name in ("#4cc9f0", "#ff9e3d", "#9be564", "#f472b6", "#ffe066", "#a78bfa", "#2dd4bf", "#ff6b6b")
)

_SYSTEM_FONTS: Final = ("NotoSansCJK-Regular.ttc", "DroidSansFallbackFull.ttf", "wqy-zenhei.ttc", "Arial Unicode.ttf")
"""Fonts with Chinese, Japanese and Korean characters, of Linux distributions and of macOS."""


def track_colour(track_id: int) -> Colour:
    """Return the colour of a track: the same in every picture."""
    return ACCENTS[track_id % len(ACCENTS)]


@lru_cache(maxsize=64)
def font(size_px: int) -> ImageFont.FreeTypeFont:
    """Return Pillow's built-in font."""
    found = ImageFont.load_default(size_px)
    assert isinstance(found, ImageFont.FreeTypeFont)
    return found


@lru_cache(maxsize=64)
def _wider_font(size_px: int) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which ships with matplotlib: accents, Cyrillic, Greek and more."""
    found = find_spec("matplotlib")  # not imported: that takes a second, and writes to the home folder
    assert found is not None and found.origin is not None
    return ImageFont.truetype(Path(found.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf", size_px)


@lru_cache(maxsize=64)
def _system_font(size_px: int) -> ImageFont.FreeTypeFont:
    """Return a font of this machine with Chinese, Japanese and Korean characters, or `_wider_font` if it has none."""
    for name in _SYSTEM_FONTS:
        with suppress(OSError):
            return ImageFont.truetype(name, size_px)
    return _wider_font(size_px)


@lru_cache(maxsize=4096)
def _has(choose: Callable[[int], ImageFont.FreeTypeFont], character: str) -> bool:
    """Return whether a font has a character; it draws all others as the same box."""
    face = choose(16)
    return bytes(face.getmask(character)) != bytes(face.getmask("\uffff"))


def font_for(words: str, size_px: float) -> ImageFont.FreeTypeFont:
    """Return the font for a text: names of files and persons may be in any language."""
    size = max(8, round(size_px))
    if words.isascii():
        return font(size)
    fonts = (font, _wider_font, _system_font)
    return max(fonts, key=lambda one: sum(_has(one, character) for character in words))(size)


def mixed(colour: Colour, ground: Colour, share: float) -> Colour:
    """Return a blend of `share` of a colour with a ground."""
    return tuple(round(a * share + b * (1 - share)) for a, b in zip(colour, ground, strict=True))  # type: ignore[return-value]


def _rgba(colour: Colour, alpha: float) -> tuple[int, int, int, int]:
    return (*colour, round(255 * alpha))


class Strokes:
    """Smooth strokes over a part of a picture. Points are in px of the picture, its corner at (0, 0)."""

    def __init__(self, picture: Image.Image, around_xyxy: tuple[float, float, float, float], fine: int = 3) -> None:
        """Create a layer.

        Args:
            picture: RGB; `lay_over` draws on it.
            around_xyxy: the part to draw on; clipped to the picture.
            fine: enlargement factor of the layer.
        """
        x1, y1, x2, y2 = around_xyxy
        self._left, self._top = max(0, int(x1)), max(0, int(y1))
        width = min(picture.width, int(x2) + 1) - self._left
        height = min(picture.height, int(y2) + 1) - self._top
        self._picture, self._fine = picture, fine
        self._layer: Image.Image | None = None
        if width > 0 and height > 0:
            self._layer = Image.new("RGBA", (width * fine, height * fine))
            self._draw = ImageDraw.Draw(self._layer)

    def line(self, points: ArrayLike, colour: Colour, width_px: float, alpha: float = 1.0) -> None:
        """Draw a line through points `[n, 2]`."""
        if self._layer is not None:
            width = max(1, round(width_px * self._fine))
            self._draw.line(self._placed(points), fill=_rgba(colour, alpha), width=width, joint="curve")

    def polygon(self, points: ArrayLike, colour: Colour, alpha: float = 1.0) -> None:
        """Draw a filled polygon with corners `[n, 2]`."""
        if self._layer is not None:
            self._draw.polygon(self._placed(points), fill=_rgba(colour, alpha))

    def dots(self, points: ArrayLike, colour: Colour, radius_px: float, alpha: float = 1.0) -> None:
        """Draw filled circles centred on points `[n, 2]`."""
        if self._layer is not None:
            radius = radius_px * self._fine
            for x, y in self._placed(points):
                self._draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_rgba(colour, alpha))

    def arrow(self, start: ArrayLike, end: ArrayLike, colour: Colour, width_px: float) -> None:
        """Draw an arrow with a filled head, or a dot if it is too short for one."""
        tail, tip = np.asarray(start, np.float64), np.asarray(end, np.float64)
        length = float(np.hypot(*(tip - tail)))
        head = min(4.0 * width_px, 0.6 * length)
        self.dots([tail], colour, width_px * 0.9)
        if length < width_px:
            return
        along = (tip - tail) / length
        across = np.asarray([-along[1], along[0]])
        neck = tip - along * head
        self.line([tail, neck], colour, width_px)
        self.polygon([tip, neck + across * head * 0.5, neck - across * head * 0.5], colour)

    def lay_over(self) -> None:
        """Shrink the layer and paste it onto the picture."""
        if self._layer is not None:
            small = self._layer.reduce(self._fine)
            self._picture.paste(small, (self._left, self._top), small)

    def _placed(self, points: ArrayLike) -> list[tuple[float, float]]:
        placed: NDArray[np.float64] = (np.asarray(points, np.float64) - (self._left, self._top)) * self._fine
        return [(x, y) for x, y in placed.tolist()]


def text(
    draw: ImageDraw.ImageDraw,
    at_xy: tuple[float, float],
    words: str,
    size_px: float,
    colour: Colour = INK,
    anchor: str = "lm",
) -> None:
    """Draw a line of text; `anchor` as in Pillow: l, m, r across and a, m, s down."""
    draw.text(at_xy, words, fill=colour, font=font_for(words, size_px), anchor=anchor)


def tag(
    draw: ImageDraw.ImageDraw, at_xy: tuple[float, float], words: str, size_px: float, ground: Colour, ink: Colour
) -> None:
    """Draw text on a filled label whose bottom-left corner is at a point."""
    face = font_for(words, size_px)
    pad, height = size_px * 0.4, size_px * 1.45
    x, y = at_xy
    draw.rectangle((x, y - height, x + face.getlength(words) + 2 * pad, y), fill=ground)
    draw.text((x + pad, y - height / 2), words, fill=ink, font=face, anchor="lm")


def bar(
    draw: ImageDraw.ImageDraw,
    left_xy: tuple[float, float],
    width_px: float,
    height_px: float,
    span: tuple[float, float],
    colour: Colour,
) -> None:
    """Draw a horizontal bar from `span[0]` to `span[1]`, shares of its width, on a faint track."""
    x, y = left_xy
    draw.rectangle((x, y, x + width_px, y + height_px), fill=FAINT)
    start, end = (x + width_px * float(np.clip(share, 0, 1)) for share in sorted(span))
    if end - start >= 0.5:
        draw.rectangle((start, y, end, y + height_px), fill=colour)


def legible_on(colour: Colour) -> Colour:
    """Return black or white, whichever is more legible on a colour."""
    return (12, 14, 18) if np.dot(colour, (0.299, 0.587, 0.114)) > 130 else (255, 255, 255)


def shortened(words: str, size_px: float, width_px: float) -> str:
    """Return text shortened to fit a width, without its middle."""
    face = font_for(words + "…", size_px)
    kept: Sequence[str] = words
    while face.getlength(words) > width_px and len(kept) > 4:
        kept = [*kept[: len(kept) // 2 - 1], *kept[len(kept) // 2 + 1 :]]
        words = "".join(kept[: len(kept) // 2]) + "…" + "".join(kept[len(kept) // 2 :])
    return words
