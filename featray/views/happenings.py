"""Views. Select the events of a video to draw, with their colours, rows and strongest peaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import duckdb

from featray.errors import OutputError, printable
from featray.names import AU_NAMES_20, EMOTION_NAMES_7
from featray.tables.database import read_rows
from featray.tables.query import run_sql
from featray.video.clock import LATEST_US
from featray.views.canvas import MUTED, WARNING, Colour
from featray.views.panel import EMOTION_COLOURS
from featray.views.selection import SampledFrame, VideoRow

_AU_COLOUR: Final[Colour] = (120, 208, 255)
_OWN_COLOUR: Final[Colour] = (244, 114, 182)
COLOURS: Final[dict[str, Colour]] = {
    **dict.fromkeys(AU_NAMES_20, _AU_COLOUR),
    **{f"emotion_{name}": EMOTION_COLOURS[name] for name in EMOTION_NAMES_7},
    "smile": (155, 229, 100),
    "blink": MUTED,
    "gaze_away": WARNING,
    **dict.fromkeys(("nod", "shake"), (186, 130, 246)),
}
"""Colours of the built-in kinds; user-defined kinds share another colour."""

_SHOWN_FIRST: Final = ("smile", *(f"emotion_{name}" for name in EMOTION_NAMES_7), "nod", "shake", "gaze_away")
_SHOWN_LAST: Final = ("AU43", "blink")
"""Shown last, because closed eyes are not an expression."""


@dataclass(frozen=True)
class Event:
    """A row of `events`, with the columns that are drawn."""

    track_id: int
    kind: str
    start_us: int
    peak_us: int
    end_us: int
    peak: float

    @property
    def name(self) -> str:
        """Return its name in a picture."""
        return kind_name(self.kind)

    @property
    def colour(self) -> Colour:
        """Return the colour of its kind."""
        return COLOURS.get(self.kind, _OWN_COLOUR)


def kind_name(kind: str) -> str:
    """Return the name of a kind of event in a picture."""
    return kind.removeprefix("emotion_").replace("_", " ")


def read_video_events(connection: duckdb.DuckDBPyConnection, video: VideoRow) -> list[Event]:
    """Return the events of a video from the current derivation, by track and start; none in older outputs.

    Raises:
        OutputError: an event has no track, time or peak, or an impossible one.
    """
    columns = ", ".join(Event.__annotations__)
    sql = f"SELECT {columns} FROM events WHERE {video.where} ORDER BY track_id, start_us, kind"
    return [_event(row) for row in read_rows(run_sql(connection, sql))]


def _event(row: dict[str, Any]) -> Event:
    for column in ("track_id", "start_us", "peak_us", "end_us", "peak"):
        if row[column] is None or not abs(row[column]) <= LATEST_US:  # NaN is not smaller either
            shown = "null" if row[column] is None else row[column]
            raise OutputError(f"events: {column} is {shown}, so a row is damaged; run `featray verify`")
    return Event(**{**row, "kind": " ".join(printable(row["kind"] or "").split())})


def _rank(event: Event) -> tuple[int, float, int, str]:
    group = 0 if event.kind in _SHOWN_FIRST else 2 if event.kind in _SHOWN_LAST else 1
    return group, -event.peak, event.start_us, event.kind


def in_rows(events: Sequence[Event], most: int) -> list[tuple[int, Event]]:
    """Place events into at most `most` rows without overlaps, the most informative first.

    Returns:
        Row and event, by start; events without room are left out.
    """
    taken: list[list[tuple[int, int]]] = [[] for _ in range(most)]
    placed = []
    for event in sorted(events, key=_rank):
        for row, spans in enumerate(taken):
            if all(event.end_us < start or event.start_us > end for start, end in spans):
                spans.append((event.start_us, event.end_us))
                placed.append((row, event))
                break
    return sorted(placed, key=lambda item: (item[1].start_us, item[0]))


def strongest_peaks(
    frames: Sequence[SampledFrame], events: Sequence[Event], track_id: int | None, most: int
) -> dict[int, list[str]]:
    """Return the peak frames of a track's strongest events, one per kind, and the kinds that peak in them.

    Args:
        frames: frames that can be shown.
        events: events of the video.
        track_id: track to show.
        most: maximum number of frames.

    Returns:
        Names of kinds, by `frame_index`.
    """
    of_time = {frame.pts_us: frame for frame in frames if frame.face(track_id) is not None}
    found: dict[int, list[str]] = {}
    kinds: set[str] = set()
    for event in sorted((event for event in events if event.track_id == track_id), key=_rank):
        frame = of_time.get(event.peak_us)
        if frame is None or event.kind in kinds:
            continue
        if frame.frame_index not in found and len(found) == most:
            continue
        kinds.add(event.kind)
        found.setdefault(frame.frame_index, []).append(event.name)
    return found
