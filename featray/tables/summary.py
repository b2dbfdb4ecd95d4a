"""Tables. The view `summary`: one row per video, with its main track and all its tracks, for statistics packages.

The columns of a manifest (`videos.extra`: participant, condition) become columns of the view. Finding them requires
reading rows, so that happens when the view is used, not whenever an output is opened.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from itertools import islice
from types import MappingProxyType
from typing import Final

import duckdb

from featray.schema import TRACKS, VIDEOS

log = logging.getLogger(__name__)

MOST_KEYS: Final = 500
"""Limit on manifest columns; with more, creating the view would take longer than the query."""

_KEY: Final = ("dataset", "release", "derivation", "video_id")
TECHNICAL: Final = ("extra", "size_bytes", "content_id", "work_key", "sar", "time_base", "bytes_read", "run_id")
"""Columns of `videos` that the view omits."""
_OF_TRACK: Final = tuple(column.name for column in TRACKS if column.name not in _KEY)
AVERAGED: Final = tuple(name for name in _OF_TRACK if name.endswith(("_mean", "_active")) or name == "gaze_on_camera")
SUMMED: Final = tuple(
    name for name in _OF_TRACK if name.endswith("_episodes") or name in ("frames", "seen_s", "blinks")
)
"""Columns of `tracks` of which the view has the sum over all tracks; of those in `AVERAGED` it has the mean."""
_NAMES: Final = frozenset(
    name.casefold()
    for name in (
        *_KEY,
        *_OF_TRACK,
        "person_id",
        *(column.name for column in VIDEOS),
        *(f"all_{name}" for name in (*AVERAGED, *SUMMED, "blinks_per_min")),
    )
)


def summary_view(extra: Mapping[str, str] = MappingProxyType({}), *, person: bool = True) -> str:
    """Return the SQL of the view.

    It has the columns of `videos`; the columns of `tracks` for the track with the most time (the first if equal); and
    `all_<column>` over all tracks: means and shares weighted by `seen_s`, counts and times summed. Videos without faces
    have a row too.

    Args:
        extra: keys of `videos.extra` that become columns, with the columns' names.
        person: whether to say who the main track is; not where the path field `person_id` does.
    """
    averaged = [
        f"sum({n} * CAST(seen_s AS DOUBLE)) / sum(CASE WHEN {n} IS NOT NULL THEN CAST(seen_s AS DOUBLE) END) AS all_{n}"
        for n in AVERAGED
    ]
    summed = [f"sum({name}) AS all_{name}" for name in SUMMED]
    rate = "60 * sum(blinks) / sum(CASE WHEN blinks IS NOT NULL THEN CAST(seen_s AS DOUBLE) END) AS all_blinks_per_min"
    key = ", ".join(_KEY)
    spread = "".join(
        f", json_extract_string(v.extra, {_pointer(key)}) AS {_quoted(name)}" for key, name in extra.items()
    )
    technical = ", ".join(TECHNICAL)
    return f"""
        WITH main AS (
            SELECT * FROM tracks QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY seen_s DESC, track_id) = 1
        ), every AS (
            SELECT {key}, {", ".join([*summed, *averaged, rate])} FROM tracks GROUP BY {key}
        )
        SELECT v.dataset, v.release, main.derivation, v.video_id{spread},
               v.* EXCLUDE (dataset, release, video_id, {technical}),
               {", ".join(f"main.{name}" for name in (*_OF_TRACK, *(("person_id",) if person else ())))},
               every.* EXCLUDE ({key})
        FROM (SELECT * REPLACE (CASE WHEN json_valid(extra) THEN extra END AS extra) FROM videos) v
        LEFT JOIN main USING (dataset, release, video_id)
        LEFT JOIN every ON (every.dataset, every.release, every.derivation, every.video_id)
                           = (main.dataset, main.release, main.derivation, main.video_id)
    """


def spread_summary(connection: duckdb.DuckDBPyConnection) -> None:
    """Recreate the view with a column for each key of `videos.extra`; reads only that column of `videos`.

    A key with the name of another column becomes `extra_<key>`. At most `MOST_KEYS` keys are used.
    """
    sql = "SELECT extra FROM videos WHERE extra IS NOT NULL GROUP BY extra ORDER BY min(video_id)"
    texts = connection.sql(sql).to_arrow_table()["extra"].to_pylist()
    fields = connection.view("videos").columns
    taken = {*_NAMES, *(name.casefold() for name in fields)}
    person = not any(name.casefold() == "person_id" for name in fields)
    columns: dict[str, str] = {}
    keys = dict.fromkeys(key for text in texts for key in _keys(text) if key)
    if len(keys) > MOST_KEYS:
        log.warning("summary: manifests have %d columns; only the first %d are shown", len(keys), MOST_KEYS)
    for key in islice(keys, MOST_KEYS):
        name = key
        while name.casefold() in taken:
            name = f"extra_{name}"
        taken.add(name.casefold())
        columns[key] = name
    connection.execute(f"CREATE OR REPLACE VIEW summary AS {summary_view(columns, person=person)}")


def _keys(text: str) -> list[str]:
    """Return the keys of `videos.extra`, which is untrusted."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return []
    return [key for key in found if _NO_NAME.search(key) is None] if isinstance(found, dict) else []


_NO_NAME: Final = re.compile("[\0\ud800-\udfff]")
"""Characters that SQL cannot express: zero bytes, and halves of surrogate pairs."""


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _pointer(key: str) -> str:
    """Return the key as a JSON pointer in an SQL literal."""
    return "'/" + key.replace("~", "~0").replace("/", "~1").replace("'", "''") + "'"
