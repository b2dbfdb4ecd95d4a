"""Views. `featray export --events`: a video's events for the annotation tools ELAN and Praat, and as tables.

Times are presentation times of the stream, as in the tables. An event with a single sample lasts one millisecond,
because both tools support no shorter interval.
"""

from __future__ import annotations

import mimetypes
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa

from featray.errors import OutputError, UsageError, printable
from featray.tables.database import read_rows
from featray.tables.query import run_sql
from featray.views.selection import VideoRow

LEAST_MS: Final = 1


def read_events(connection: duckdb.DuckDBPyConnection, video: VideoRow | None, track_id: int | None) -> pa.Table:
    """Return the rows of `events`, with their times also in seconds; of one video, or of all.

    Raises:
        UsageError: the output has no derived rows.
    """
    conditions = [video.where] if video else []
    conditions += [] if track_id is None else [f"track_id = {track_id}"]
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    seconds = ", ".join(f"{name}_us / 1e6 AS {name}_seconds" for name in ("start", "peak", "end"))
    if not run_sql(connection, "SELECT 1 FROM tracks LIMIT 1").read_all().num_rows:
        raise UsageError("--events: this output has no derived rows; make them with `featray derive OUT`")
    sql = f"SELECT *, {seconds} FROM events {where} ORDER BY dataset, release, derivation, video_id, track_id, event_id"
    return run_sql(connection, sql).read_all()


def write_elan(events: pa.Table, video: VideoRow, path: Path) -> None:
    """Write an .eaf file with one tier per kind of event and track, linked to the video.

    Raises:
        UsageError: the library is not installed.
    """
    eaf = _library("Elan").Eaf(author="featray")
    eaf.remove_tier("default")
    if video.member is None:
        kind = mimetypes.guess_type(video.uri)[0] or "video/mp4"
        eaf.add_linked_file(_plain(video.uri), mimetype=kind)
    for tier, spans in _tiers(events).items():
        eaf.add_tier(tier)
        for start_ms, end_ms, text in spans:
            eaf.add_annotation(tier, start_ms, end_ms, text)
    eaf.to_file(str(path))


def write_textgrid(events: pa.Table, path: Path) -> None:
    """Write a TextGrid for Praat, with one interval tier per kind of event and track.

    Raises:
        UsageError: the library is not installed, or there are no events, which a TextGrid cannot represent.
    """
    tiers = _tiers(events)
    if not tiers:
        raise UsageError("--events textgrid: there are no events, and a TextGrid needs at least one tier")
    last_ms = max(end_ms for spans in tiers.values() for _, end_ms, _ in spans)
    grid = _library("Praat").TextGrid(xmin=0, xmax=last_ms / 1000)
    for name, spans in tiers.items():
        tier = grid.add_tier(name.replace('"', '""'))  # the library escapes only the texts
        for start_ms, end_ms, text in spans:
            tier.add_interval(start_ms / 1000, end_ms / 1000, text, check=False)  # the check compares all pairs
    grid.to_file(str(path))


def _tiers(events: pa.Table) -> dict[str, list[tuple[int, int, str]]]:
    """Return the intervals of each tier, in ms, sorted and not overlapping; negative start times become 0.

    Raises:
        OutputError: a row lacks a required value.
    """
    tiers: dict[str, list[tuple[int, int, str]]] = {}
    if any(events[name].null_count for name in ("track_id", "kind", "start_us", "end_us", "peak")):
        raise OutputError(
            "events: a row has no kind, times or peak, so featray did not write it; `featray verify` names the file"
        )
    for row in sorted(read_rows(events.to_reader()), key=lambda row: (row["track_id"], row["kind"], row["start_us"])):
        start_ms = max(round(row["start_us"] / 1000), 0)
        end_ms = max(round(row["end_us"] / 1000), start_ms + LEAST_MS)
        spans = tiers.setdefault(_plain(f"{row['kind']} track {row['track_id']}"), [])
        if spans:
            start_ms = max(start_ms, spans[-1][1])
            end_ms = max(end_ms, start_ms + LEAST_MS)
        spans.append((start_ms, end_ms, _text(row)))
    return tiers


def _text(row: dict[str, Any]) -> str:
    """Return the text of an interval."""
    peak = f"peak {row['peak']:.3g}"
    opened = [
        words for words, is_open in (("begins unseen", row["open_start"]), ("ends unseen", row["open_end"])) if is_open
    ]
    return _plain(", ".join(part for part in (row["side"], row["variant"], peak, *opened) if part))


def _plain(text: str) -> str:
    """Return text on one line that is valid in XML, because names in the output are not trusted."""
    return " ".join(printable(text).translate(_NO_CHARACTERS).split())


_NO_CHARACTERS: Final = dict.fromkeys((0xFFFE, 0xFFFF), "\N{REPLACEMENT CHARACTER}")


def _library(name: str) -> Any:
    try:
        import pympi
    except ImportError:
        raise UsageError(
            "--events elan and textgrid need pympi-ling; install it with: pip install 'featray[annotations]'"
        ) from None
    return getattr(pympi, name)
