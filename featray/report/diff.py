"""Report. Compare two releases of one dataset face by face.

Faces are matched by their boxes within the same frame of the same bytes: each is the other's best match, with an IoU of
at least 0.5. If the releases sample differently, only the frames that both sampled are compared.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import Any, Final

import duckdb

from featray.errors import UsageError
from featray.persons.agreement import agreement
from featray.report.distributions import FEATURES
from featray.report.scope import MEMORY
from featray.tables.database import execute, literal, read_rows
from featray.tables.layout import Output, list_partitions
from featray.tables.published import Published, read_steadily
from featray.tables.query import connect, run_sql
from featray.views.selection import PICTURE_US

MOST_FACES: Final = 5_000_000
"""With more faces, a sample of whole videos is compared: a joined row holds both sides and does not stream."""

_SAME_FACE: Final = 0.5


@dataclass(frozen=True)
class Worst:
    """The face for which a feature changed most."""

    video_id: str
    frame_index: int
    pts_us: int
    a: float
    b: float


@dataclass(frozen=True)
class Shift:
    """The change of a feature over the matched faces; differences are b - a.

    Attributes:
        column: column of `faces`.
        mean_a, mean_b: means.
        shift: mean difference.
        mean_abs: mean absolute difference.
        q50_abs, q95_abs: approximate quantiles of the absolute difference.
        correlation: Pearson's; None if a side is constant.
        worst: the face with the largest change.
    """

    column: str
    mean_a: float
    mean_b: float
    shift: float
    mean_abs: float
    q50_abs: float
    q95_abs: float
    correlation: float | None
    worst: Worst


@dataclass(frozen=True)
class Kind:
    """The change in one kind of event over the compared videos.

    Attributes:
        kind: as in `events`.
        a, b: number of events.
        a_met, b_met: number of events that overlap one of the other release in the same video.
    """

    kind: str
    a: int
    b: int
    a_met: int
    b_met: int


@dataclass(frozen=True)
class Derivations:
    """Events and tracks of two releases, compared over the same videos.

    Attributes:
        a, b: derivations; if they differ, so do the settings of the events.
        tracks_a, tracks_b: number of tracks.
        seen_s_a, seen_s_b: seconds that faces were seen.
        faces_per_s_a, faces_per_s_b: faces per second in the median track, which decides what it is searched for.
        kinds: kinds of events, the most common first.
    """

    a: str
    b: str
    tracks_a: int
    tracks_b: int
    seen_s_a: float
    seen_s_b: float
    faces_per_s_a: float | None
    faces_per_s_b: float | None
    kinds: list[Kind]


@dataclass(frozen=True)
class Who:
    """Persons of two releases, compared over tracks whose faces match; ids are of one release and say nothing.

    Attributes:
        persons_a, persons_b: how many there are over the compared videos.
        tracks: pairs of tracks with a person in both, each with the one that most of its faces match.
        b_cubed_f: how far the two agree on which tracks are of one person; 1 is the same.
    """

    persons_a: int
    persons_b: int
    tracks: int
    b_cubed_f: float


@dataclass(frozen=True)
class Diff:
    """The comparison of two releases.

    Attributes:
        dataset, release_a, release_b: the dataset and releases.
        videos_a, videos_b: number of videos in each release.
        videos_both: videos with the same content in both.
        videos_changed: videos in both with different content.
        videos_compared: videos compared; fewer than `videos_both` if there are too many faces.
        frames_both: frames of the compared videos that both releases sampled.
        faces_a, faces_b: faces in those frames.
        matched: number of matched pairs of faces.
        mean_iou: mean IoU of their boxes; None without a pair.
        features: one shift per feature.
        derived: tracks and events; None unless both releases have some.
        who: persons; None unless both releases have some.
    """

    dataset: str
    release_a: str
    release_b: str
    videos_a: int
    videos_b: int
    videos_both: int
    videos_changed: int
    videos_compared: int
    frames_both: int
    faces_a: int
    faces_b: int
    matched: int
    mean_iou: float | None
    features: list[Shift]
    derived: Derivations | None = None
    who: Who | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as plain values."""
        return asdict(self)


def diff_releases(
    output: Output, release_a: str, release_b: str, dataset: str | None = None, most_faces: int = MOST_FACES
) -> Diff:
    """Compare two releases.

    Args:
        output: the output that holds both.
        release_a: the older release.
        release_b: the newer release.
        dataset: the dataset; required if several hold both releases.
        most_faces: with more faces in A, a sample of whole videos is compared.

    Raises:
        UsageError: a release does not exist, or the dataset is ambiguous.
    """
    dataset = _dataset(output, release_a, release_b, dataset)
    releases = (release_a, release_b)
    return read_steadily(output, lambda published: _compare(output, published, dataset, releases, most_faces), releases)


def _compare(
    output: Output, published: list[Published], dataset: str, releases: tuple[str, str], most_faces: int
) -> Diff:
    release_a, release_b = releases
    connection = connect(output, published=published, memory_limit=MEMORY)
    for side, release in (("a", release_a), ("b", release_b)):
        condition = f"dataset = {literal(dataset)} AND release = {literal(release)}"
        for table in ("faces", "frames", "videos", "tracks", "events", "persons"):
            connection.execute(f"CREATE VIEW {side}_{table} AS SELECT * FROM {table} WHERE {condition}")
    videos = _row(connection, _VIDEOS)
    execute(connection, _COMPARED.format(most=most_faces))
    for statement in _MATCHING:
        execute(connection, statement.format(iou=_SAME_FACE))
    counts = _row(connection, _COUNTS)
    features = _shifts(connection) if counts["matched"] else []
    named = {**videos, **counts}
    return Diff(
        dataset, release_a, release_b, **named, features=features, derived=_derived(connection), who=_who(connection)
    )


def _dataset(output: Output, release_a: str, release_b: str, dataset: str | None) -> str:
    partitions = list_partitions(output)
    for release in (release_a, release_b):
        if release not in {one.release for one in partitions}:
            known = ", ".join(sorted({one.release for one in partitions})) or "none"
            raise UsageError(f"{release}: no such release in this output; choose one of {known}")
    there = [{one.dataset for one in partitions if one.release == release} for release in (release_a, release_b)]
    both = sorted(there[0] & there[1])
    if dataset is not None and dataset not in both:
        raise UsageError(f"--dataset {dataset}: does not have both releases; choose one of {', '.join(both) or 'none'}")
    if not both:
        raise UsageError(f"{release_a} and {release_b}: no dataset has both; see `featray status OUT --release all`")
    if dataset is None and len(both) > 1:
        raise UsageError(f"several datasets have both releases; name one with --dataset: {', '.join(both)}")
    return dataset or both[0]


_VIDEOS: Final = """
SELECT (SELECT count(*) FROM a_videos) AS videos_a, (SELECT count(*) FROM b_videos) AS videos_b,
  count(*) FILTER (a.content_id = b.content_id) AS videos_both,
  count(*) FILTER (a.content_id <> b.content_id) AS videos_changed
FROM a_videos a JOIN b_videos b USING (video_id)
"""

# Videos in the order of a hash, up to the limit on compared faces.
_COMPARED: Final = """
CREATE TEMP TABLE compared AS SELECT video_id FROM (
  SELECT video_id, sum(a.faces) OVER (ORDER BY hash(video_id), video_id) - a.faces AS before
  FROM a_videos a JOIN b_videos b USING (video_id) WHERE a.content_id = b.content_id
) WHERE before < {most}
"""

_KEY: Final = "video_id, frame_index, face_index, box_x1 AS x1, box_y1 AS y1, box_x2 AS x2, box_y2 AS y2"
_MATCHING: Final = (
    """CREATE TEMP TABLE shared AS SELECT video_id, frame_index FROM a_frames SEMI JOIN compared USING (video_id)
    SEMI JOIN b_frames USING (video_id, frame_index)""",
    *(
        f"CREATE TEMP TABLE boxes_{side} AS SELECT {_KEY} FROM {side}_faces "
        "SEMI JOIN shared USING (video_id, frame_index)"
        for side in "ab"
    ),
    """CREATE TEMP TABLE pairs AS SELECT *, o / (area - o) AS iou FROM (
      SELECT video_id, frame_index, a.face_index AS face_a, b.face_index AS face_b,
        (a.x2 - a.x1) * (a.y2 - a.y1) + (b.x2 - b.x1) * (b.y2 - b.y1) AS area,
        greatest(0, least(a.x2, b.x2) - greatest(a.x1, b.x1))
          * greatest(0, least(a.y2, b.y2) - greatest(a.y1, b.y1)) AS o
      FROM boxes_a a JOIN boxes_b b USING (video_id, frame_index)
    ) WHERE o / (area - o) >= {iou}""",
    """CREATE TEMP TABLE matched AS SELECT * FROM pairs
    QUALIFY row_number() OVER (PARTITION BY video_id, frame_index, face_a ORDER BY iou DESC, face_b) = 1
      AND row_number() OVER (PARTITION BY video_id, frame_index, face_b ORDER BY iou DESC, face_a) = 1""",
)

_COUNTS: Final = """
SELECT (SELECT count(*) FROM compared) AS videos_compared, (SELECT count(*) FROM shared) AS frames_both,
  (SELECT count(*) FROM boxes_a) AS faces_a, (SELECT count(*) FROM boxes_b) AS faces_b,
  (SELECT count(*) FROM matched) AS matched, (SELECT avg(iou) FROM matched) AS mean_iou
"""


# Of each track of A the track of B with the most of its faces, if that has most of its own faces there too.
_SAME_TRACKS: Final = """
SELECT a.person_id AS a, b.person_id AS b FROM (
  SELECT m.video_id, fa.track_id AS track_a, fb.track_id AS track_b, count(*) AS n
  FROM matched m JOIN a_faces fa ON (fa.video_id, fa.frame_index, fa.face_index) = (m.video_id, m.frame_index, face_a)
  JOIN b_faces fb ON (fb.video_id, fb.frame_index, fb.face_index) = (m.video_id, m.frame_index, face_b)
  GROUP BY m.video_id, fa.track_id, fb.track_id
  QUALIFY row_number() OVER (PARTITION BY m.video_id, track_a ORDER BY n DESC, track_b) = 1
    AND row_number() OVER (PARTITION BY m.video_id, track_b ORDER BY n DESC, track_a) = 1
) same JOIN a_persons a ON (a.video_id, a.track_id) = (same.video_id, track_a)
  JOIN b_persons b ON (b.video_id, b.track_id) = (same.video_id, track_b)
"""


def _who(connection: duckdb.DuckDBPyConnection) -> Who | None:
    persons = _row(
        connection,
        "SELECT "
        + ", ".join(
            f"(SELECT count(DISTINCT person_id) FROM {side}_persons SEMI JOIN compared USING (video_id)) AS {side}"
            for side in "ab"
        ),
    )
    pairs = run_sql(connection, _SAME_TRACKS).read_all()
    if not persons["a"] or not persons["b"] or not pairs.num_rows:
        return None
    found = agreement(*(pairs[side].to_numpy(zero_copy_only=False).astype(str) for side in "ab"))
    return Who(persons["a"], persons["b"], pairs.num_rows, found.b_cubed_f)


def _derived(connection: duckdb.DuckDBPyConnection) -> Derivations | None:
    facts: dict[str, Any] = {}
    for side in "ab":
        facts |= _row(
            connection,
            f"SELECT max(derivation) AS {side}, count(*) AS tracks_{side}, sum(seen_s::DOUBLE) AS seen_s_{side}, "
            f"median(faces_per_s::DOUBLE) AS faces_per_s_{side} "
            f"FROM {side}_tracks SEMI JOIN compared USING (video_id)",
        )
    if facts["a"] is None or facts["b"] is None:
        return None
    parts = []
    for side, other in (("a", "b"), ("b", "a")):
        met = (
            f"EXISTS (SELECT 1 FROM {other}_events o WHERE o.video_id = e.video_id AND o.kind = e.kind "
            "AND o.start_us <= e.end_us AND o.end_us >= e.start_us)"
        )
        parts.append(
            f"SELECT kind, count(*) AS n_{side}, count(*) FILTER ({met}) AS met_{side} FROM {side}_events e "
            "SEMI JOIN compared USING (video_id) GROUP BY kind"
        )
    rows = read_rows(
        run_sql(
            connection,
            f"SELECT kind, coalesce(n_a, 0) AS a, coalesce(n_b, 0) AS b, coalesce(met_a, 0) AS a_met, "
            f"coalesce(met_b, 0) AS b_met FROM ({parts[0]}) FULL JOIN ({parts[1]}) USING (kind) "
            "ORDER BY a + b DESC, kind",
        )
    )
    return Derivations(**facts, kinds=[Kind(**row) for row in rows])


def _shifts(connection: duckdb.DuckDBPyConnection) -> list[Shift]:
    wanted = []
    for number, feature in enumerate(FEATURES):
        a, b = f"a.{feature.column}::DOUBLE", f"b.{feature.column}::DOUBLE"
        time = f"coalesce(a.pts_us, m.frame_index::BIGINT * {PICTURE_US})"
        place = f"{{'video_id': m.video_id, 'frame_index': m.frame_index, 'pts_us': {time}, 'a': {a}, 'b': {b}}}"
        wanted.append(
            f"{{'mean_a': avg({a}), 'mean_b': avg({b}), 'shift': avg({b} - {a}), 'mean_abs': avg(abs({b} - {a})), "
            f"'q': approx_quantile(abs({b} - {a}), [0.5, 0.95]), "
            # A side without spread has no correlation; DuckDB would answer with NaN.
            f"'correlation': CASE WHEN stddev_pop({a}) > 0 AND stddev_pop({b}) > 0 THEN corr({a}, {b}) END, "
            f"'worst': max_by({place}, abs({b} - {a}))}} AS c{number}"
        )
    row = _row(
        connection,
        f"SELECT {', '.join(wanted)} FROM matched m "
        "JOIN a_faces a ON a.video_id = m.video_id AND a.frame_index = m.frame_index AND a.face_index = m.face_a "
        "JOIN b_faces b ON b.video_id = m.video_id AND b.frame_index = m.frame_index AND b.face_index = m.face_b",
    )
    found = []
    for number, feature in enumerate(FEATURES):
        one = row[f"c{number}"]
        if one["q"] is None:  # no difference is a number: a column of nulls, NaN or infinities
            continue
        # For zeros, DuckDB's approx_quantile answers with the smallest positive float.
        q50, q95 = (0.0 if value <= sys.float_info.min else value for value in one.pop("q"))
        worst = Worst(**one.pop("worst"))
        found.append(Shift(feature.column, q50_abs=q50, q95_abs=q95, worst=worst, **one))
    return found


def _row(connection: duckdb.DuckDBPyConnection, sql: str) -> dict[str, Any]:
    return read_rows(run_sql(connection, sql))[0]
