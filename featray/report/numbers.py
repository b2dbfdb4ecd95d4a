"""Report. The counts of a report: what was processed, what failed, where faces are, how fast it was.

Every query aggregates in DuckDB and returns few rows, whatever the size of the tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from featray.errors import ERROR_MEANINGS
from featray.report.scope import Scope
from featray.schema import TABLES
from featray.tables.database import identifier
from featray.tables.provenance import read_unusable

MOST_FACES_SHOWN: Final = 10
"""Maximum faces per frame that are counted separately; frames with more are added to it."""

VIDEOS_LISTED: Final = 200
RUNS_LISTED: Final = 50
EXAMPLES: Final = 3
_COVERAGE_BINS: Final = 48


@dataclass(frozen=True)
class Coverage:
    """Sampled frames by status and by time within the video.

    Attributes:
        seconds: start of each bin, seconds from the start of the stream's time.
        width_seconds: width of a bin; the last bin holds everything later.
        with_face, no_face, decode_error: number of frames in each bin.
    """

    seconds: list[float]
    width_seconds: float
    with_face: list[int]
    no_face: list[int]
    decode_error: list[int]


@dataclass(frozen=True)
class Numbers:
    """Everything that a report counts; dictionaries are rows of queries.

    Attributes:
        totals: one row over `videos`.
        failures: one row per error code: code, meaning, videos, errors, examples.
        faces_per_frame: number of frames by number of faces.
        repeats_share: share of the frames whose picture repeats the previous one.
        coverage: frames by time within the video.
        frames_share: share of the frames on which the previous three are based.
        formats: container, codec, size and number of videos.
        fields: per path field, its most common values with counts.
        videos: up to VIDEOS_LISTED rows of `videos`.
        runs: rows of `runs`, latest first, up to RUNS_LISTED.
        run_count: number of runs.
        weights_trained: whether facial numbers carry meaning.
        unusable: columns that the weights are known not to estimate.
    """

    totals: dict[str, Any]
    failures: list[dict[str, Any]]
    faces_per_frame: dict[int, int]
    repeats_share: float
    coverage: Coverage
    frames_share: float
    formats: list[dict[str, Any]]
    fields: dict[str, list[dict[str, Any]]]
    videos: list[dict[str, Any]]
    runs: list[dict[str, Any]]
    run_count: int
    weights_trained: bool
    unusable: tuple[str, ...]


def read_numbers(scope: Scope) -> Numbers:
    """Compute all counts of a report."""
    totals = scope.row(_TOTALS)
    sample, share = scope.sample(totals["frames_sampled"])
    frames = scope.rows(
        f"SELECT least(faces, {MOST_FACES_SHOWN}) AS faces, count(*) AS n, count(repeats) AS repeats "
        f"FROM in_frames {sample} GROUP BY 1 ORDER BY 1"
    )
    trained = scope.row(
        "SELECT coalesce(bool_and(weights_trained), false) AS yes, max(unusable) AS unusable, count(*) AS n "
        "FROM in_runs"
    )
    return Numbers(
        totals=totals,
        failures=_failures(scope),
        faces_per_frame={row["faces"]: row["n"] for row in frames},
        repeats_share=sum(row["repeats"] for row in frames) / max(1, sum(row["n"] for row in frames)),
        coverage=_coverage(scope, sample),
        frames_share=share,
        formats=scope.rows(_FORMATS),
        fields=_fields(scope),
        videos=scope.rows(f"SELECT {_VIDEO_COLUMNS} FROM in_videos ORDER BY hash(video_id) LIMIT {VIDEOS_LISTED}"),
        runs=scope.rows(f"SELECT * FROM in_runs ORDER BY started_at DESC LIMIT {RUNS_LISTED}"),
        run_count=trained["n"],
        weights_trained=trained["yes"],
        unusable=read_unusable(trained["unusable"]),
    )


_TOTALS: Final = """
SELECT count(*) AS videos,
  count(*) FILTER (status = 'ok') AS ok, count(*) FILTER (status = 'partial') AS partial,
  count(*) FILTER (status = 'failed') AS failed, count(*) FILTER (truncated) AS truncated,
  coalesce(sum(duration_us), 0)::DOUBLE / 1e6 AS seconds,
  coalesce(sum(size_bytes) FILTER (size_bytes > 0), 0)::BIGINT AS bytes,
  coalesce(sum(frames_decoded), 0)::BIGINT AS frames_decoded,
  coalesce(sum(frames_sampled), 0)::BIGINT AS frames_sampled,
  coalesce(sum(frames_with_face), 0)::BIGINT AS frames_with_face,
  coalesce(sum(faces), 0)::BIGINT AS faces, coalesce(sum(tracks), 0)::BIGINT AS tracks,
  min(published_at) AS first_published, max(published_at) AS last_published
FROM in_videos
"""

_VIDEO_COLUMNS: Final = """video_id, coalesce(uri || '#' || member, uri) AS place, status, error_code,
duration_us / 1e6 AS seconds, width, height, codec, frames_sampled, frames_with_face, faces, tracks"""

_FORMATS: Final = """
SELECT coalesce(container, 'unknown') AS container, coalesce(codec, 'unknown') AS codec,
  coalesce(width || ' × ' || height, 'unknown') AS size, count(*) AS videos
FROM in_videos GROUP BY ALL ORDER BY videos DESC, container, codec, size LIMIT 15
"""


def _failures(scope: Scope) -> list[dict[str, Any]]:
    example = "{'video_id': video_id, 'uri': uri, 'stage': stage, 'message': message}"
    rows = scope.rows(
        f"SELECT error_code, count(*) AS errors, count(DISTINCT video_id) AS videos, "
        f"min_by({example}, video_id || coalesce(unit, 0), {EXAMPLES}) AS examples "
        "FROM in_errors GROUP BY error_code ORDER BY videos DESC, error_code"
    )
    meanings = {str(code): meaning for code, meaning in ERROR_MEANINGS.items()}
    return [{**row, "meaning": meanings.get(row["error_code"], "")} for row in rows]


def _coverage(scope: Scope, sample: str) -> Coverage:
    longest, step = scope.row(
        "SELECT coalesce(quantile_cont(duration_us, 0.99), 0) / 1e6 AS longest, "
        "coalesce(quantile_cont(duration_us / nullif(frames_sampled, 0), 0.9), 0) / 1e6 AS step FROM in_videos"
    ).values()
    # Not narrower than from one sampled frame to the next: every second bin would be empty.
    width = nice_width(max(max(longest, 1.0) / _COVERAGE_BINS, step))
    bins = max(1, min(_COVERAGE_BINS * 2, round(longest / width + 0.5)))
    found = scope.rows(
        f"SELECT greatest(0, least({bins - 1}, floor(pts_us / {width * 1e6})))::INT AS bin, "
        "count(*) FILTER (status = 'ok') AS with_face, count(*) FILTER (status = 'no_face') AS no_face, "
        f"count(*) FILTER (status = 'decode_error') AS decode_error "
        f"FROM (SELECT * FROM in_frames {sample}) WHERE pts_us IS NOT NULL GROUP BY 1"
    )
    by_bin = {row["bin"]: row for row in found}
    counts = {
        name: [by_bin[b][name] if b in by_bin else 0 for b in range(bins)]
        for name in ("with_face", "no_face", "decode_error")
    }
    return Coverage([b * width for b in range(bins)], width, **counts)


def nice_width(width: float) -> float:
    """Round up to 1, 2 or 5 times a power of ten."""
    power = 10.0 ** len(str(int(width))) / 10 if width >= 1 else 0.01
    while True:
        for factor in (1, 2, 5):
            if factor * power >= width:
                return factor * power
        power *= 10


def _fields(scope: Scope) -> dict[str, list[dict[str, Any]]]:
    """Return counts per path field; path fields are the columns of `videos` that are not in the schema."""
    known = {column.name for column in TABLES["videos"]}
    names = [row["column_name"] for row in scope.rows("DESCRIBE in_videos") if row["column_name"] not in known]
    # A file that somebody else wrote may have any number of columns, of any type.
    return {
        name: scope.rows(
            f"""SELECT coalesce(CAST({identifier(name)} AS VARCHAR), '(none)') AS value, count(*) AS videos,
            count(*) FILTER (status <> 'ok') AS not_ok, coalesce(sum(frames_sampled), 0)::BIGINT AS frames,
            coalesce(sum(frames_with_face), 0)::BIGINT AS frames_with_face
            FROM in_videos GROUP BY 1 ORDER BY videos DESC, value LIMIT 25"""
        )
        for name in names[:_FIELDS_SHOWN]
    }


_FIELDS_SHOWN: Final = 20
