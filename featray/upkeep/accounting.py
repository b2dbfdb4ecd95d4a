"""Upkeep. The rules that rows must satisfy, as SQL over DuckDB views; each query finds the rows that break a rule.

A rule is asked about some commits at a time: a commit holds whole videos, so nothing but
"once over all commits" needs more than one. Views: the tables, `all_runs`
and `committed(commit, video_id, uri, work_key, status, frames, faces)`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from featray.config_identify import EMBEDDING_WIDTHS
from featray.errors import ErrorCode
from featray.names import EMOTION_NAMES_7
from featray.schema import (
    DERIVED_TABLES,
    FACE_TABLES,
    PER_VIDEO_TABLES,
    PRIVATE_TABLES,
    SORT_KEYS,
    Column,
    columns_of,
)

KEYS: Final[dict[str, tuple[str, ...]]] = {
    **dict.fromkeys((*FACE_TABLES, *PRIVATE_TABLES), ("video_id", "frame_index", "face_index")),
    "frames": ("video_id", "frame_index"),
    "videos": ("video_id",),
    "runs": ("run_id",),
    "erasures": ("erasure_id",),
    "tracks": ("derivation", "video_id", "track_id"),
    "persons": ("video_id", "track_id"),
    "events": ("derivation", "video_id", "track_id", "event_id"),
}
"""Columns that must be unique within a partition, by table."""

PRESENT: Final = frozenset("dataset release video_id frame_index pts_us face_index run_id track_id".split())
"""Columns that must not be null in any table; others may be null."""

PRESENT_DERIVED: Final = frozenset(
    "derivation event_id kind start_us peak_us end_us frames open_start open_end".split()
)
"""Columns that must not be null in derived tables, in addition to PRESENT."""

MAY_BE_NULL: Final[dict[str, set[str]]] = {
    "erasures": {"track_id"},
    **{table: {"pts_us"} for table in (*FACE_TABLES, *PRIVATE_TABLES, "frames")},
}
"""Exceptions to PRESENT: the erasure of a whole video has no track, and a picture may have no time."""

_ROUNDING = 1e-6
"""Tolerance for float32 at the ends of a range."""

SOFTMAX_BOUND: Final = {"fp32": 1e-4, "bf16": 0.05}
"""Largest distance from 1 of the sum of seven rounded shares: seven half steps of the arithmetic, plus a reserve."""


@dataclass(frozen=True)
class Rule:
    """One rule of the accounting.

    Attributes:
        needs: tables that the rule reads, with the table searched for the broken row last; the rule is skipped if the
            release does not write one of them.
        sql: selects `video_id`, `frame_index`, `face_index` and `text` for each violation.
    """

    needs: tuple[str, ...]
    sql: str


def row_rules(table: str, columns: set[str], precision: str) -> dict[str, str]:
    """Return a condition on the rows for each column of a table that states a range, and for the softmax's sum."""
    if table == "persons":
        return _rules_of_persons(columns)
    rules = {}
    present = (PRESENT - MAY_BE_NULL.get(table, set())) | (PRESENT_DERIVED if table in DERIVED_TABLES else set())
    for column in columns_of(table):
        # The 270 statistics columns of `tracks` are derived from `faces`, so they are recomputed instead.
        if column.name in columns and not (table == "tracks" and pa.types.is_floating(column.type)):
            condition = _condition(column, present=column.name in present)
            if condition:
                rules[column.name] = condition
    shares = [f"emotion_{name}" for name in EMOTION_NAMES_7]
    if columns.issuperset(shares):
        bound = SOFTMAX_BOUND.get(precision, SOFTMAX_BOUND["bf16"])
        total = " + ".join(f"CAST({name} AS DOUBLE)" for name in shares)
        rules["emotion_sum"] = f"coalesce(abs({total} - 1) <= {bound}, true)"
    if table == "videos" and columns.issuperset(("uri", "member")):
        # As in identity.video_id; erasing a video by its name would erase another one.
        rules["video_id_of_uri"] = "video_id = left(sha256(coalesce(uri || '#' || member, uri)), 16)"
    if table == "faces":
        rules["box"] = "box_x1 <= box_x2 AND box_y1 <= box_y2"
        rules["face_px_is_shorter_side"] = "abs(least(box_x2 - box_x1, box_y2 - box_y1) - face_px) <= 0.01"
    if table == "embeddings":
        lengths = " ".join(f"WHEN '{name}' THEN len(embedding) = {width}" for name, width in EMBEDDING_WIDTHS.items())
        rules["embedding_length"] = f"CASE embedder {lengths} ELSE true END"
        rules["embedding"] = "abs(sqrt(list_sum(list_transform(embedding, lambda x: x * x))) - 1) <= 0.001"
    if table == "events":
        rules["times"] = "start_us <= peak_us AND peak_us <= end_us"
    if table == "frames":
        rules["status_and_faces"] = "(status = 'ok') = (faces > 0)"
        rules["pts_us"] = "pts_us IS NOT NULL" + (" OR source_name IS NOT NULL" if "source_name" in columns else "")
    return rules


PERSON_ID: Final = "p-[0-9a-f]{12}"
"""The form of a `person_id`."""


def _rules_of_persons(columns: set[str]) -> dict[str, str]:
    always = {"video_id", "track_id", "similarity"}
    rules = {c.name: _condition(c, present=c.name in always) for c in columns_of("persons") if c.name in columns}
    rules["person_id"] = f"regexp_full_match(person_id, '{PERSON_ID}')"
    rules["previous"] = f"(previous IS NULL OR regexp_full_match(previous, '{PERSON_ID}'))"
    return {name: rule for name, rule in rules.items() if rule}


def _condition(column: Column, *, present: bool) -> str | None:
    name = column.name
    parts = [f'"{name}" IS NOT NULL'] if present else []
    limits = _limits(column)
    if limits:
        parts.append(limits)
    elif pa.types.is_floating(column.type):
        parts.append(f"isfinite({name})")
    elif pa.types.is_timestamp(column.type):  # the range that Python supports; quoted because `at` is an SQL keyword
        parts.append(
            f"\"{name}\" BETWEEN TIMESTAMPTZ '0001-01-02 00:00:00+00' AND TIMESTAMPTZ '9999-12-30 00:00:00+00'"
        )
    if not parts:
        return None
    condition = " AND ".join(parts)
    return condition if present else f'("{name}" IS NULL OR ({condition}))'


def _limits(column: Column) -> str | None:
    name, text = column.name, column.range
    if between := re.fullmatch(r"\[(-?[\d.]+), (-?[\d.]+|pi)\]", text):
        high = "pi()" if between[2] == "pi" else between[2]
        return f"isfinite({name}) AND {name} BETWEEN {between[1]} - {_ROUNDING} AND {high} + {_ROUNDING}"
    if least := re.fullmatch(r">= (-?[\d.]+)", text):
        finite = f"isfinite({name}) AND " if pa.types.is_floating(column.type) else ""
        return f"{finite}{name} >= {least[1]}"
    if count := re.fullmatch(r"(\d+) values", text):
        return f"len({name}) = {count[1]} AND len(list_filter({name}, lambda x: x IS NULL OR NOT isfinite(x))) = 0"
    if " | " in text:
        choices = ", ".join(f"'{choice}'" for choice in text.split(" | "))
        return f"CAST({name} AS VARCHAR) IN ({choices})"
    return None


def order_rule(table: str) -> str:
    """Return SQL that selects rows of view `one_file` that are out of order."""
    keys = ", ".join(SORT_KEYS[table])
    return (
        f"SELECT * FROM (SELECT *, row({keys}) AS here, lag(row({keys})) OVER (ORDER BY file_row_number) AS before "
        "FROM one_file) WHERE before > here"
    )


def twice_rule(table: str) -> str:
    """Return SQL that selects duplicate keys."""
    keys = KEYS[table]
    named = ", ".join(n if n in keys else f"NULL AS {n}" for n in ("video_id", "frame_index", "face_index"))
    text = f"'appears ' || count(*) || ' times in {table}' AS text"
    return f"SELECT {named}, {text} FROM {table} GROUP BY {', '.join(keys)} HAVING count(*) > 1"


_PER_VIDEO = """
    SELECT v.video_id, NULL AS frame_index, NULL AS face_index,
           'videos.{column} is ' || coalesce(v.{column}, -1) || ', {what} ' || coalesce(n, 0) AS text
    FROM videos v LEFT JOIN (SELECT video_id, {count} AS n FROM {table} GROUP BY video_id) USING (video_id)
    WHERE v.{column} IS DISTINCT FROM coalesce(n, 0)
"""


def _per_video(column: str, table: str, count: str, what: str) -> Rule:
    sql = _PER_VIDEO.format(column=column, table=table, count=count, what=what)
    return Rule(("videos", table), sql)


def _same_faces(table: str) -> Rule:
    """Return the rule that a table of faces has the same rows, times and tracks as `faces`."""
    sql = f"""
        SELECT coalesce(f.video_id, t.video_id) AS video_id, coalesce(f.frame_index, t.frame_index) AS frame_index,
               coalesce(f.face_index, t.face_index) AS face_index,
               CASE WHEN t.video_id IS NULL THEN 'is in faces and not in {table}'
                    WHEN f.video_id IS NULL THEN 'is in {table} and not in faces'
                    ELSE 'has a different pts_us, track_id or run_id in {table} than in faces' END AS text
        FROM faces f FULL JOIN {table} t USING (video_id, frame_index, face_index)
        WHERE t.video_id IS NULL OR f.video_id IS NULL
           OR (f.pts_us, f.track_id, f.run_id) IS DISTINCT FROM (t.pts_us, t.track_id, t.run_id)
    """
    return Rule(("faces", table), sql)


def _known_video(table: str) -> Rule:
    sql = f"""
        SELECT DISTINCT video_id, NULL AS frame_index, NULL AS face_index,
               'has rows in {table} and none in videos' AS text
        FROM {table} ANTI JOIN videos USING (video_id)
    """
    return Rule(("videos", table), sql)


def _known_run(table: str) -> Rule:
    sql = f"""
        SELECT any_value(video_id) AS video_id, NULL AS frame_index, NULL AS face_index,
               '{table}.run_id ' || coalesce(run_id, 'null') || ' is not in runs, ' || count(*) || ' rows' AS text
        FROM {table} ANTI JOIN all_runs USING (run_id) GROUP BY run_id
    """
    return Rule((table,), sql)


_FACES_OF_FRAMES = """
    SELECT coalesce(f.video_id, n.video_id) AS video_id, coalesce(f.frame_index, n.frame_index) AS frame_index,
           NULL AS face_index,
           CASE WHEN f.video_id IS NULL THEN 'has faces and no row in frames'
                WHEN f.faces IS DISTINCT FROM coalesce(n.faces, 0)
                THEN 'frames.faces is ' || coalesce(CAST(f.faces AS VARCHAR), 'null') || ', rows in faces '
                     || coalesce(n.faces, 0)
                ELSE 'has a different pts_us in faces than in frames' END AS text
    FROM frames f FULL JOIN (
        SELECT video_id, frame_index, count(*) AS faces, min(pts_us) AS first_us, max(pts_us) AS last_us
        FROM faces GROUP BY video_id, frame_index
    ) n USING (video_id, frame_index)
    WHERE f.video_id IS NULL OR f.faces <> coalesce(n.faces, 0)
       OR (n.video_id IS NOT NULL
           AND (n.first_us IS DISTINCT FROM f.pts_us OR n.last_us IS DISTINCT FROM f.pts_us))
"""

_REPEATS = """
    SELECT f.video_id, f.frame_index, NULL AS face_index,
           'frames.repeats is ' || f.repeats || ', which is not an earlier frame with repeats null' AS text
    FROM frames f LEFT JOIN frames first ON (first.video_id, first.frame_index) = (f.video_id, f.repeats)
    WHERE f.repeats IS NOT NULL
      AND (first.video_id IS NULL OR first.repeats IS NOT NULL OR first.frame_index >= f.frame_index)
"""

_TIMES = """
    SELECT video_id, frame_index, NULL AS face_index, 'pts_us is before that of frame ' || before AS text
    FROM (SELECT video_id, frame_index, pts_us, lag(frame_index) OVER of_video AS before,
                 lag(pts_us) OVER of_video AS before_us
          FROM frames WINDOW of_video AS (PARTITION BY video_id ORDER BY frame_index))
    WHERE pts_us < before_us
"""

_STATUS = """
    SELECT video_id, NULL AS frame_index, NULL AS face_index,
           'status ' || v.status || ', error_code ' || coalesce(v.error_code, 'null') || ', '
           || coalesce(e.n, 0) || ' errors rows, ' || v.frames_sampled || ' frames are inconsistent' AS text
    FROM videos v LEFT JOIN (
        SELECT video_id, count(*) AS n, list(error_code) AS codes FROM errors GROUP BY video_id
    ) e USING (video_id)
    WHERE NOT CASE v.status
        WHEN 'ok' THEN v.error_code IS NULL AND e.n IS NULL
        WHEN 'partial' THEN v.frames_sampled > 0 AND coalesce(list_contains(e.codes, v.error_code), false)
        WHEN 'failed' THEN least(v.frames_sampled, v.frames_decoded) = 0
             AND coalesce(list_contains(e.codes, v.error_code), false)
        ELSE false END
"""

_URI_OF_ERROR = """
    SELECT DISTINCT e.video_id, NULL AS frame_index, NULL AS face_index,
           'has another uri in errors than in videos' AS text
    FROM errors e JOIN videos v USING (video_id) WHERE e.uri IS DISTINCT FROM v.uri
"""

_TRUNCATED = """
    SELECT v.video_id, NULL AS frame_index, NULL AS face_index,
           'truncated is ' || coalesce(v.truncated::VARCHAR, 'null') || ', which contradicts its errors rows' AS text
    FROM videos v
    WHERE coalesce(v.truncated, false) <> (v.video_id IN (SELECT video_id FROM errors WHERE error_code = 'truncated'))
"""

_CODES = f"""
    SELECT video_id, NULL AS frame_index, NULL AS face_index,
           'errors.error_code ' || coalesce(error_code, 'null') || ' is not a known code' AS text
    FROM errors WHERE error_code IS NULL OR error_code NOT IN ({", ".join(f"'{code}'" for code in ErrorCode)})
"""

_COMMITTED = """
    SELECT coalesce(c.video_id, v.video_id) AS video_id, NULL AS frame_index, NULL AS face_index,
           CASE WHEN v.video_id IS NULL THEN 'is in commit ' || c.commit || ' and not in videos'
                WHEN c.video_id IS NULL THEN 'is in videos and in no commit'
                ELSE 'commit ' || c.commit || ' says ' || c.status || ', ' || c.frames || ' frames, ' || c.faces
                     || ' faces; videos says ' || v.status || ', ' || v.frames_sampled || ', ' || v.faces
                     || CASE WHEN c.work_key IS DISTINCT FROM v.work_key THEN ', a different work_key' ELSE '' END
                     || CASE WHEN c.uri IS DISTINCT FROM v.uri THEN ', a different uri' ELSE '' END END AS text
    FROM committed c FULL JOIN videos v USING (video_id)
    WHERE v.video_id IS NULL OR c.video_id IS NULL OR (c.status, c.frames, c.faces, c.work_key, c.uri)
          IS DISTINCT FROM (v.status, v.frames_sampled, v.faces, v.work_key, v.uri)
"""

_TRACKS = """
    SELECT coalesce(t.video_id, f.video_id) AS video_id, NULL AS frame_index, NULL AS face_index,
           'track ' || coalesce(t.track_id, f.track_id, -1)
           || ', derivation ' || coalesce(t.derivation, f.derivation, '')
           || CASE WHEN t.video_id IS NULL THEN ': is in faces and not in tracks'
                   WHEN f.video_id IS NULL THEN ': is in tracks and not in faces'
                   ELSE ': has different frames or times in tracks than in faces' END AS text
    FROM (
        SELECT derivation, video_id, track_id, count(*) AS n, min(pts_us) AS first_us, max(pts_us) AS last_us
        FROM faces JOIN derived_videos USING (video_id) GROUP BY derivation, video_id, track_id
        HAVING last_us IS NOT NULL -- pictures without times have none
    ) f FULL JOIN tracks t USING (derivation, video_id, track_id)
    WHERE (f.n, f.first_us, f.last_us) IS DISTINCT FROM (t.frames, t.start_us, t.end_us)
"""

_EVENTS = """
    SELECT e.video_id, NULL AS frame_index, NULL AS face_index,
           'event ' || coalesce(e.event_id, -1) || ' of track ' || coalesce(e.track_id, -1) || ', derivation '
           || coalesce(e.derivation, '')
           || CASE WHEN t.video_id IS NULL THEN ': its track is not in tracks'
                   ELSE ': is not within its track' END AS text
    FROM events e LEFT JOIN tracks t USING (derivation, video_id, track_id)
    WHERE t.video_id IS NULL OR e.start_us < t.start_us OR e.end_us > t.end_us
"""

_EMBEDDINGS = """
    SELECT e.video_id, e.frame_index, e.face_index,
           CASE WHEN f.video_id IS NULL THEN 'is in embeddings and not in faces'
                ELSE 'has a different pts_us, track_id or run_id in embeddings than in faces' END AS text
    FROM embeddings e LEFT JOIN faces f USING (video_id, frame_index, face_index)
    WHERE f.video_id IS NULL
       OR (f.pts_us, f.track_id, f.run_id) IS DISTINCT FROM (e.pts_us, e.track_id, e.run_id)
"""

_PERSONS = """
    SELECT p.video_id, NULL AS frame_index, NULL AS face_index,
           'track ' || p.track_id || ' is in persons and '
           || CASE WHEN f.n IS NULL THEN 'not in faces' ELSE 'has no embedding' END AS text
    FROM persons p
    LEFT JOIN (SELECT video_id, track_id, count(*) AS n FROM faces GROUP BY ALL) f USING (video_id, track_id)
    LEFT JOIN (SELECT video_id, track_id, count(*) AS n FROM embeddings GROUP BY ALL) e USING (video_id, track_id)
    WHERE f.n IS NULL OR e.n IS NULL
"""

_WITHOUT_PERSON = """
    SELECT e.video_id, NULL AS frame_index, NULL AS face_index,
           'track ' || e.track_id || ' has embeddings and is not in persons' AS text
    FROM (SELECT DISTINCT video_id, track_id FROM embeddings) e ANTI JOIN persons USING (video_id, track_id)
"""

_ONE_AT_ONCE = """
    SELECT video_id, min(frame_index) AS frame_index, NULL AS face_index,
           'tracks ' || track || ' and ' || other || ' are both of person ' || any_value(person_id)
           || ', and both in ' || count(*) || ' frames' AS text
    FROM (
        SELECT video_id, frame_index, person_id, min(track_id) AS track, max(track_id) AS other
        FROM faces JOIN persons USING (video_id, track_id) GROUP BY ALL HAVING track <> other
    ) GROUP BY video_id, track, other
"""

NAMED_TWICE: Final = """
    SELECT min(video_id) AS video_id, 'person ' || person_id || ' has ' || count(DISTINCT name) || ' names' AS text
    FROM all_persons GROUP BY person_id HAVING count(DISTINCT name) > 1
"""
"""Select persons with several names, in all commits."""

UNPUBLISHED_PERSONS: Final = "SELECT 1 AS found FROM all_persons ANTI JOIN committed_videos USING (video_id) LIMIT 1"
"""Select a row if `persons` names a video that was dropped since; this is not damage, and no other rule detects it."""

EVERY_PERSON: Final = Rule(("persons", "embeddings"), _WITHOUT_PERSON)
"""Rule for a table `persons` that was made from the present tracks; an older one lacks those of newer videos."""

PERSON_RULES: Final = (
    Rule(("faces", "embeddings", "persons"), _PERSONS),
    Rule(("faces", "persons"), _ONE_AT_ONCE),
)
"""Rules between `persons` and tracks. If tracks have changed since `persons` was made, it must be rebuilt."""

RULES: Final[tuple[Rule, ...]] = (
    *(Rule((table,), twice_rule(table)) for table in KEYS if table not in ("runs", "erasures", "persons")),
    _per_video("frames_sampled", "frames", "count(*)", "rows in frames"),
    _per_video("frames_with_face", "frames", "count_if(faces > 0)", "frames with a face"),
    _per_video("faces", "faces", "count(*)", "rows in faces"),
    _per_video("tracks", "faces", "count(DISTINCT track_id)", "tracks in faces"),
    Rule(("frames", "faces"), _FACES_OF_FRAMES),
    Rule(("frames",), _REPEATS),
    Rule(("frames",), _TIMES),
    _same_faces("blendshapes"),
    _same_faces("mesh"),
    *(_known_video(table) for table in ("faces", "frames", "errors")),
    *(_known_run(table) for table in PER_VIDEO_TABLES),
    Rule(("errors", "videos"), _STATUS),
    Rule(("errors", "videos"), _TRUNCATED),
    Rule(("videos", "errors"), _URI_OF_ERROR),
    Rule(("errors",), _CODES),
    Rule(("videos",), _COMMITTED),
    Rule(("faces", "tracks"), _TRACKS),
    Rule(("tracks", "events"), _EVENTS),
    Rule(("faces", "embeddings"), _EMBEDDINGS),
)
"""All rules across rows; rules for single rows are in `row_rules`."""
