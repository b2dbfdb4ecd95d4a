"""Report. The section "What happened": events by kind, and for some videos a timeline."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from html import escape
from typing import Any, Final

from featray.errors import OutputError
from featray.findings.recorded import recorded_derivation
from featray.names import AU_NAMES_20
from featray.report.plots import BLUE, MUTED, PALE, RED, RULE, Plot
from featray.report.scope import Scope
from featray.tables.database import literal
from featray.tables.derived import derivation_of
from featray.tables.named import short_place
from featray.video.clock import LATEST_US
from featray.views.happenings import kind_name
from featray.views.times import clock_text

STRIPS: Final = 12
_SHOWN: Final = 400
"""Maximum events per strip, longest first: an hour of episodes would make the page slow without adding information."""

_WIDTH: Final = 1000
_LEFT: Final = 92
_LANE: Final = 15
_TELLING: Final = (
    ("smile", "#4d8f2f"),
    ("emotion_happy", "#b98300"),
    ("emotion_sad", "#3f62b5"),
    ("emotion_surprise", "#7d4bb3"),
    ("emotion_fear", "#2b8f74"),
    ("emotion_disgust", "#5f7a2b"),
    ("emotion_anger", RED),
    ("nod", "#7d4bb3"),
    ("shake", "#7d4bb3"),
    ("gaze_away", "#b35c00"),
    ("blink", MUTED),
)
_OWN_COLOUR: Final = "#b0307d"


@dataclass(frozen=True)
class Strip:
    """The name of a video, and a timeline of its events."""

    name: str
    plot: Plot
    left_out: int


@dataclass(frozen=True)
class Happened:
    """Events of a release.

    Attributes:
        derivation: the derivation that they belong to.
        minutes: minutes that faces were seen, over all tracks.
        kinds: one row per kind, the most common first; its `minutes` are those of the tracks searched for the kind.
        strips: timelines of some videos.
        videos: number of videos with tracks.
    """

    derivation: str
    minutes: float
    kinds: list[dict[str, Any]]
    strips: list[Strip]
    videos: int


_KIND = "regexp_replace(coalesce(kind, ''), '[[:cntrl:]]', ' ', 'g')"
"""An event's kind as SQL; in an output from elsewhere it may be null, or contain control characters."""

_TIMED: Final = f"start_us BETWEEN {-LATEST_US} AND end_us AND end_us <= {LATEST_US}"
"""SQL condition for the rows that have a place on a timeline; not true of damaged ones."""


def read_happened(scope: Scope, *, blur: bool) -> Happened | None:
    """Return the events of the release's latest derivation; None if there is none."""
    totals = scope.row(
        "SELECT coalesce(sum(seen_s), 0) / 60 AS minutes, count(DISTINCT video_id) AS videos, "
        "max(derivation) AS derivation FROM in_tracks"
    )
    if not totals["videos"]:
        return None
    kinds = scope.rows(
        f"SELECT {_KIND} AS kind, count(*) AS events, count(DISTINCT video_id) AS videos, "
        "median((end_us::DOUBLE - start_us) / 1e6) FILTER (NOT open_start AND NOT open_end) AS seconds, "
        "count(*) FILTER (open_start OR open_end) AS cut_off FROM in_events GROUP BY ALL ORDER BY events DESC, kind"
    )
    chosen = scope.rows(
        "SELECT t.video_id, any_value(coalesce(v.member, v.uri, video_id)) AS place, min(start_us) AS start_us, "
        "max(end_us) AS end_us FROM in_tracks t JOIN in_videos v USING (video_id) "
        f"WHERE {_TIMED} GROUP BY t.video_id ORDER BY hash(t.video_id), t.video_id LIMIT {STRIPS}"
    )
    minutes = _minutes(scope)
    kinds = [kind | {"minutes": minutes.get(kind["kind"], totals["minutes"])} for kind in kinds]
    ids = ", ".join(literal(row["video_id"]) for row in chosen) or "NULL"
    events = scope.rows(
        f"SELECT video_id, track_id, {_KIND} AS kind, start_us, end_us, peak, "
        "count(*) OVER (PARTITION BY video_id) AS n "
        f"FROM in_events WHERE video_id IN ({ids}) AND {_TIMED} AND peak IS NOT NULL QUALIFY row_number() OVER "
        f"(PARTITION BY video_id ORDER BY end_us - start_us DESC, start_us, kind, track_id) <= {_SHOWN}"
    )
    seen = scope.rows(
        f"SELECT video_id, start_us, end_us FROM in_tracks WHERE video_id IN ({ids}) AND {_TIMED} ORDER BY start_us"
    )
    strips = [_strip(row, events, seen, blur=blur) for row in chosen]
    return Happened(totals["derivation"], float(totals["minutes"]), kinds, strips, totals["videos"])


def _minutes(scope: Scope) -> dict[str, float]:
    """Return the minutes of the tracks that were searched, for the kinds that are not searched for in every track."""
    moves = "true"
    derived = (file for file in scope.published.committed if derivation_of(file.path) == scope.published.shown)
    with suppress(OutputError, StopIteration):  # damaged: `verify` tells
        derivation = recorded_derivation(scope.published.partition, next(derived))
        if derivation is not None:
            moves = f"faces_per_s >= {derivation.config.movements.least_faces_per_s}"
    found = scope.row(
        "SELECT coalesce(sum(seen_s) FILTER (blinks IS NOT NULL), 0) / 60 AS blink, "
        f"coalesce(sum(seen_s) FILTER ({moves}), 0) / 60 AS nod FROM in_tracks"
    )
    return {**found, "shake": found["nod"]}


def _strip(video: dict[str, Any], events: list[dict[str, Any]], seen: list[dict[str, Any]], *, blur: bool) -> Strip:
    mine = [event for event in events if event["video_id"] == video["video_id"]]
    tracks = [one for one in seen if one["video_id"] == video["video_id"]]
    lanes = [("face", PALE, tracks)]
    known = {kind for kind, _ in _TELLING} | set(AU_NAMES_20)
    for kind, colour in _TELLING:
        lanes.append((kind_name(kind), colour, [event for event in mine if event["kind"] == kind]))
    for kind in sorted({event["kind"] for event in mine} - known):
        lanes.append((kind, _OWN_COLOUR, [event for event in mine if event["kind"] == kind]))
    lanes.append(("action units", BLUE, [event for event in mine if event["kind"] in AU_NAMES_20]))
    lanes = [lane for lane in lanes if lane[2]]
    name = video["video_id"] if blur else short_place(video["place"])
    said = ", ".join(f"{label}: {len(found)}" for label, _, found in lanes[1:]) or "no events"
    svg = _svg(lanes, int(video["start_us"]), int(video["end_us"]))
    return Strip(name, Plot(svg, f"What happened in {name}. {said}"), mine[0]["n"] - len(mine) if mine else 0)


def _svg(lanes: list[tuple[str, str, list[dict[str, Any]]]], first_us: int, last_us: int) -> str:
    """Return lanes of bars above a time axis. Action units share a lane, which is darker where several overlap."""
    height, span = len(lanes) * _LANE + 20, max(1, last_us - first_us)

    def x(time_us: int) -> float:
        return _LEFT + (_WIDTH - _LEFT - 4) * (time_us - first_us) / span

    parts = [f'<svg aria-hidden="true" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}">']
    for number in range(5):
        time = first_us + span * number // 4
        anchor = ("start", "middle", "middle", "middle", "end")[number]
        parts.append(f'<path d="M{x(time):.1f} 0V{height - 16}" stroke="{RULE}" fill="none"/>')
        parts.append(
            f'<text x="{x(time):.1f}" y="{height - 4}" font-size="11" fill="{MUTED}" text-anchor="{anchor}">'
            f"{clock_text(time)}</text>"
        )
    for row, (label, colour, found) in enumerate(lanes):
        y = row * _LANE
        parts.append(
            f'<text x="{_LEFT - 8}" y="{y + 11}" font-size="11.5" fill="#1f2733" text-anchor="end">'
            f"{escape(label[:16])}</text>"
        )
        shade = ' fill-opacity="0.3"' if label == "action units" else ""
        parts.append(f'<g fill="{colour}"{shade}>')
        for one in found:
            start, end = x(one["start_us"]), x(one["end_us"])
            title = "" if "kind" not in one else f"<title>{escape(_told(one))}</title>"
            parts.append(
                f'<rect x="{start:.1f}" y="{y + 2}" width="{max(end - start, 1.5):.1f}" height="{_LANE - 4}">'
                f"{title}</rect>"
            )
        parts.append("</g>")
    return "".join([*parts, "</svg>"])


def _told(event: dict[str, Any]) -> str:
    seconds = (event["end_us"] - event["start_us"]) / 1e6
    when = f"{clock_text(int(event['start_us']))}, {seconds:.2f} s"
    return f"{event['kind']}, track {event['track_id']}: {when}, peak {event['peak']:.2f}"
