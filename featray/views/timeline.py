"""Views. Draw the timeline below a clip: columns of one track as curves, its events, the spans of tracks, a cursor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from featray.errors import UsageError
from featray.names import AU_NAMES_20, EMOTION_NAMES_7
from featray.views.canvas import (
    FAINT,
    GROUND,
    INK,
    MUTED,
    RAISED,
    WARNING,
    Colour,
    Strokes,
    legible_on,
    text,
    track_colour,
)
from featray.views.happenings import Event, in_rows
from featray.views.selection import SampledFrame
from featray.views.times import clock_text

HEIGHT: Final = 150
"""Height in units; a unit is one px if the frame is shown 720 px high."""

PLOTTED: Final[dict[str, tuple[float, float]]] = {
    **dict.fromkeys(AU_NAMES_20, (0.0, 1.0)),
    **{f"emotion_{name}": (0.0, 1.0) for name in EMOTION_NAMES_7},
    "valence": (-1.0, 1.0),
    "arousal": (-1.0, 1.0),
    **dict.fromkeys(("gaze_yaw", "gaze_pitch", "pose_pitch", "pose_yaw", "pose_roll"), (-np.pi / 2, np.pi / 2)),
}
"""Columns that can be plotted, with the range that fills the height."""

_COLOURS: Final[tuple[Colour, ...]] = ((120, 208, 255), WARNING, (155, 229, 100), (244, 114, 182))
_LANES: Final = 6
_EVENT_ROWS: Final = 4
_EVENT_ROW: Final = 13
_STEPS_S: Final = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600)


def timeline_height(events: Sequence[Event]) -> int:
    """Return the height of a timeline with these events, in units."""
    return HEIGHT + (_EVENT_ROWS * _EVENT_ROW + 6 if events else 0)


class Timeline:
    """Draws the timeline of a clip; everything except the cursor is drawn once."""

    def __init__(
        self,
        frames: Sequence[SampledFrame],
        track_id: int | None,
        columns: Sequence[str],
        span_us: tuple[int, int],
        width_px: int,
        unit: float,
        unusable: tuple[str, ...] = (),
        events: Sequence[Event] = (),
    ) -> None:
        """Draw the curves.

        Args:
            frames: sampled frames, in order.
            track_id: track of the curves.
            columns: columns in PLOTTED, at most four.
            span_us: first and last time.
            width_px: width of the timeline.
            unit: px per unit.
            unusable: columns that the weights do not estimate; their labels state this.
            events: events of the video; those of the track are shown.

        Raises:
            UsageError: a column cannot be plotted.
        """
        check_columns(columns)
        self._unit, self._span_us = unit, span_us
        self._events = [event for event in events if event.track_id == track_id]
        self._blank = Image.new("RGB", (width_px, round(timeline_height(events) * unit)), RAISED)
        self._left, self._right = 18 * unit, width_px - 18 * unit
        self._top, self._bottom = 34 * unit, 98 * unit
        draw = ImageDraw.Draw(self._blank)
        draw.rectangle((self._left, self._top, self._right, self._bottom), fill=GROUND)
        middle = (self._top + self._bottom) / 2
        draw.line((self._left, middle, self._right, middle), fill=FAINT)
        self._ticks(draw)
        self._event_bars(draw, bool(events))
        self._lanes(draw, frames)
        strokes = Strokes(self._blank, (0, self._top - 3, width_px, self._bottom + 3), 2)
        x = self._left
        for number, column in enumerate(columns):
            low, high = PLOTTED[column]
            draw.rectangle((x, 15 * unit, x + 14 * unit, 18 * unit), fill=_COLOURS[number])
            label = f"{column}  [{_plain(low)}, {_plain(high)}]{'  not estimated' if column in unusable else ''}"
            text(draw, (x + 20 * unit, 16.5 * unit), label, 12 * unit, INK)
            x += (44 + 7 * len(label)) * unit
            self._curve(strokes, frames, track_id, column, _COLOURS[number])
        strokes.lay_over()

    def draw(self, time_us: int) -> Image.Image:
        """Return the timeline with its cursor at a time."""
        picture = self._blank.copy()
        draw, x = ImageDraw.Draw(picture), self._x(time_us)
        draw.rectangle((x - 0.6 * self._unit, self._top - 4, x + 0.6 * self._unit, self._lane_bottom), fill=INK)
        text(draw, (self._right, 16.5 * self._unit), clock_text(time_us), 13 * self._unit, INK, "rm")
        return picture

    def _event_bars(self, draw: ImageDraw.ImageDraw, there: bool) -> None:
        """Draw bars for the events, with their names if there is room."""
        unit, top = self._unit, self._bottom + 20 * self._unit
        self._lane_top = top + (_EVENT_ROWS * _EVENT_ROW + 6) * unit * there
        first, last = self._span_us
        inside = [event for event in self._events if event.end_us >= first and event.start_us <= last]
        for row, event in in_rows(inside, _EVENT_ROWS):
            start, end = self._x(max(event.start_us, first)), self._x(min(event.end_us, last))
            y, end = top + row * _EVENT_ROW * unit, max(end, start + 2)
            draw.rectangle((start, y, end, y + (_EVENT_ROW - 2) * unit), fill=event.colour)
            if draw.textlength(event.name, font_size=10 * unit) + 4 * unit < end - start:
                middle = y + (_EVENT_ROW - 2) / 2 * unit
                text(draw, (start + 2 * unit, middle), event.name, 10 * unit, legible_on(event.colour))

    def _x(self, time_us: int) -> float:
        first, last = self._span_us
        return self._left + (self._right - self._left) * (time_us - first) / max(1, last - first)

    def _curve(
        self,
        strokes: Strokes,
        frames: Sequence[SampledFrame],
        track_id: int | None,
        column: str,
        colour: Colour,
    ) -> None:
        """Draw a curve that is interrupted where a sampled frame lacks the face."""
        low, high = PLOTTED[column]
        height = self._bottom - self._top
        part: list[tuple[float, float]] = []
        for frame in [*frames, None]:
            face = frame.face(track_id) if frame is not None else None
            if frame is not None and face is not None:
                share = float(np.clip((face[column] - low) / (high - low), 0, 1))
                part.append((self._x(frame.pts_us), self._bottom - share * height))
                continue
            if len(part) > 1:
                strokes.line(part, colour, 1.8 * self._unit)
            elif part:
                strokes.dots(part, colour, 1.5 * self._unit)
            part = []

    def _lanes(self, draw: ImageDraw.ImageDraw, frames: Sequence[SampledFrame]) -> None:
        """Draw the spans of the most frequent tracks."""
        seen: dict[int, list[int]] = {}
        for number, frame in enumerate(frames):
            for face in frame.faces:
                seen.setdefault(face.track_id, []).append(number)
        chosen = sorted(sorted(seen, key=lambda track: -len(seen[track]))[:_LANES])
        top = self._lane_top
        for lane, track in enumerate(chosen):
            y = top + lane * 5.5 * self._unit
            numbers = np.asarray(seen[track])
            for run in np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1):
                start, end = self._x(frames[run[0]].pts_us), self._x(frames[run[-1]].pts_us)
                draw.rectangle((start, y, max(end, start + 1), y + 3.5 * self._unit), fill=track_colour(track))
        self._lane_bottom = top + max(1, len(chosen)) * 5.5 * self._unit

    def _ticks(self, draw: ImageDraw.ImageDraw) -> None:
        first, last = (time / 1e6 for time in self._span_us)
        room = max(2, int((self._right - self._left) / (90 * self._unit)))
        step = next((step for step in _STEPS_S if (last - first) / step <= room), _STEPS_S[-1])
        for number in range(int(np.ceil(first / step)), int(last / step) + 1):
            x = self._x(round(number * step * 1e6))
            draw.line((x, self._bottom, x, self._bottom + 4 * self._unit), fill=MUTED)
            words = clock_text(round(number * step * 1e6))
            words = words[:-4] if step >= 1 else words[:-2]
            anchor = "lm" if x < self._left + 12 * self._unit else "rm" if x > self._right - 12 * self._unit else "mm"
            text(draw, (x, self._bottom + 11 * self._unit), words, 10.5 * self._unit, MUTED, anchor)


def check_columns(columns: Sequence[str]) -> None:
    """Check that columns can be plotted.

    Raises:
        UsageError: a column cannot be plotted, or there are more than four.
    """
    unknown = [column for column in columns if column not in PLOTTED]
    if unknown:
        raise UsageError(f"--plot {unknown[0]}: cannot be plotted; choose from: {', '.join(PLOTTED)}")
    if len(columns) > len(_COLOURS):
        raise UsageError(f"--plot: {len(columns)} columns; give at most {len(_COLOURS)}, which stay legible")


def _plain(bound: float) -> str:
    return f"{bound:.2g}"
