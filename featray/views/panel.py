"""Views. Draw the panel next to a frame: action units, emotions, valence and arousal, head and gaze of one face."""

from __future__ import annotations

from math import degrees
from typing import Final

from PIL import Image, ImageDraw

from featray.names import AU_NAMES_20, EMOTION_NAMES_7
from featray.schema import AU_MEANINGS
from featray.views.canvas import (
    GROUND,
    INK,
    MUTED,
    RAISED,
    Colour,
    bar,
    legible_on,
    mixed,
    tag,
    text,
    track_colour,
)
from featray.views.selection import Face, SampledFrame
from featray.views.times import clock_text

WIDTH: Final = 372
HEIGHT: Final = 720
"""Height of the panel, in units; a unit is one px if the frame is shown 720 px high."""

EMOTION_COLOURS: Final[dict[str, Colour]] = {
    "neutral": (148, 158, 174),
    "happy": (255, 209, 102),
    "sad": (98, 142, 240),
    "surprise": (186, 130, 246),
    "fear": (84, 196, 168),
    "disgust": (148, 190, 92),
    "anger": (240, 98, 98),
}

_POSITIVE: Final[Colour] = (120, 208, 148)
_NEGATIVE: Final[Colour] = (240, 128, 128)
_MARGIN: Final = 18
_ROW: Final = 17.2
_BAR_LEFT: Final = 190
_BAR_WIDTH: Final = 116
_SECTIONS: Final = (("ACTION UNITS", 66), ("EMOTION", 446), ("AFFECT", 602), ("HEAD AND GAZE", 670))


class Panel:
    """Draws panels of one size; static parts are drawn once."""

    def __init__(self, unit: float, unusable: tuple[str, ...] = ()) -> None:
        self.width_px, self._unit, self._unusable = round(WIDTH * unit), unit, unusable
        self._blank = Image.new("RGB", (self.width_px, round(HEIGHT * unit)), GROUND)
        draw = ImageDraw.Draw(self._blank)
        for words, top in _SECTIONS:
            text(draw, self._at(_MARGIN, top), words, 11 * unit, MUTED)
        for row, au in enumerate(AU_NAMES_20):
            y = self._row(0, row)
            text(draw, self._at(_MARGIN, y), au, 12.5 * unit, INK)
            text(draw, self._at(_MARGIN + 46, y), AU_MEANINGS[au], 11.5 * unit, MUTED)
        for row, emotion in enumerate(EMOTION_NAMES_7):
            text(draw, self._at(_MARGIN, self._row(1, row)), emotion, 12.5 * unit, INK)
        for row, name in enumerate(("valence", "arousal")):
            text(draw, self._at(_MARGIN, self._row(2, row)), name, 12.5 * unit, INK)

    def draw(self, sampled: SampledFrame | None, track_id: int | None) -> Image.Image:
        """Return the panel of a track in a sampled frame; bars are empty if the face is missing."""
        panel = self._blank.copy()
        draw = ImageDraw.Draw(panel)
        face = sampled.face(track_id) if sampled is not None else None
        self._head(draw, sampled, face, track_id)
        for row, au in enumerate(AU_NAMES_20):
            self._value(draw, self._row(0, row), None if face is None else face[au], track_colour(track_id or 0))
        for row, emotion in enumerate(EMOTION_NAMES_7):
            value = None if face is None else face[f"emotion_{emotion}"]
            self._value(draw, self._row(1, row), value, EMOTION_COLOURS[emotion])
        for row, name in enumerate(("valence", "arousal")):
            self._signed(draw, self._row(2, row), None if face is None else face[name])
        if face is not None:
            self._angles(draw, face)
        return panel

    def _head(
        self, draw: ImageDraw.ImageDraw, sampled: SampledFrame | None, face: Face | None, track_id: int | None
    ) -> None:
        unit = self._unit
        colour = track_colour(track_id) if track_id is not None else MUTED
        words = "no face" if track_id is None else f"track {track_id}"
        ground = colour if face else mixed(colour, GROUND, 0.45)
        tag(draw, self._at(_MARGIN, 38), words, 15 * unit, ground, legible_on(ground))
        if sampled is None:
            return
        right = WIDTH - _MARGIN
        text(draw, self._at(right, 22), f"frame {sampled.frame_index}", 12.5 * unit, INK, "rm")
        text(draw, self._at(right, 38), f"{clock_text(sampled.pts_us)}", 12.5 * unit, MUTED, "rm")
        state = f"score {face['score']:.2f}" if face else "not in this frame" if track_id is not None else ""
        text(draw, self._at(_MARGIN + 92, 27), state, 12.5 * unit, MUTED)

    def _value(self, draw: ImageDraw.ImageDraw, y: float, value: float | None, colour: Colour) -> None:
        span = (0.0, value or 0.0)
        bar(draw, self._at(_BAR_LEFT, y - 4), _BAR_WIDTH * self._unit, 8 * self._unit, span, colour)
        if value is not None:
            ink = INK if value >= 0.5 else MUTED
            text(draw, self._at(WIDTH - _MARGIN, y), f"{value:.2f}", 12.5 * self._unit, ink, "rm")

    def _signed(self, draw: ImageDraw.ImageDraw, y: float, value: float | None) -> None:
        span = (0.5, 0.5 + (value or 0.0) / 2)
        colour = _POSITIVE if (value or 0) >= 0 else _NEGATIVE
        x, top = self._at(_BAR_LEFT, y - 4)
        width, height = _BAR_WIDTH * self._unit, 8 * self._unit
        bar(draw, (x, top), width, height, span, colour)
        draw.line((x + width / 2, top - 2, x + width / 2, top + height + 2), fill=MUTED)
        if value is not None:
            text(draw, self._at(WIDTH - _MARGIN, y), _signed(value, ".2f"), 12.5 * self._unit, INK, "rm")

    def _angles(self, draw: ImageDraw.ImageDraw, face: Face) -> None:
        head = [("pitch", "pose_pitch"), ("yaw", "pose_yaw"), ("roll", "pose_roll")]
        gaze = [("pitch", "gaze_pitch"), ("yaw", "gaze_yaw")]
        for row, (name, parts) in enumerate((("head", head), ("gaze", gaze))):
            y = self._row(3, row)
            text(draw, self._at(_MARGIN, y), name, 12.5 * self._unit, INK)
            for column, (axis, source) in enumerate(parts):
                x = _MARGIN + 52 + 98 * column
                text(draw, self._at(x, y), axis, 11.5 * self._unit, MUTED)
                angle, ink = f"{_signed(degrees(face[source]), '.0f')}°", INK
                if source in self._unusable:
                    angle, ink = "none", MUTED
                text(draw, self._at(x + 78, y), angle, 12.5 * self._unit, ink, "rm")

    def _row(self, section: int, row: int) -> float:
        return _SECTIONS[section][1] + 18 + _ROW * row

    def _at(self, x: float, y: float) -> tuple[float, float]:
        return x * self._unit, y * self._unit


def draw_summary(picture: Image.Image, corner_xy: tuple[int, int], width_px: int, face: Face | None) -> None:
    """Draw a face in three lines, for a contact sheet: affect, emotions as one bar, the strongest action units.

    Args:
        picture: modified in place.
        corner_xy: top-left corner of a field SUMMARY_PX high.
        width_px: width of the field.
        face: the face; None draws only "no face".
    """
    draw = ImageDraw.Draw(picture)
    left, top = corner_xy
    right = left + width_px
    draw.rectangle((left, top, right - 1, top + SUMMARY_PX - 1), fill=RAISED)
    left, right = left + 10, right - 10
    if face is None:
        text(draw, ((left + right) / 2, top + SUMMARY_PX / 2), "no face", 13, MUTED, "mm")
        return
    strongest = max(EMOTION_NAMES_7, key=lambda name: face[f"emotion_{name}"])
    text(draw, (left, top + 15), f"{strongest} {face[f'emotion_{strongest}']:.2f}", 13, EMOTION_COLOURS[strongest])
    affect = f"valence {_signed(face['valence'], '.2f')}   arousal {_signed(face['arousal'], '.2f')}"
    text(draw, (right, top + 15), affect, 12, MUTED, "rm")
    start = float(left)
    for emotion in EMOTION_NAMES_7:
        end = start + face[f"emotion_{emotion}"] * (right - left)
        draw.rectangle((start, top + 28, end, top + 35), fill=EMOTION_COLOURS[emotion])
        start = end
    third = (right - left) / 3
    for place, au in enumerate(sorted(AU_NAMES_20, key=lambda name: -face[name])[:3]):
        x = left + place * third
        text(draw, (x, top + 51), au, 12, INK)
        bar(draw, (x + 40, top + 48), third - 84, 7, (0, face[au]), track_colour(face.track_id))
        text(draw, (x + third - 12, top + 51), f"{face[au]:.2f}", 12, MUTED, "rm")


SUMMARY_PX: Final = 66


def _signed(value: float, form: str) -> str:
    words = f"{value:+{form}}"
    return words if float(words) else words.replace("-", "+")
