"""Evaluate. Join labels to faces: by video, then by time, position or picture, then by place in the frame.

Every label gets exactly one fate, and every fate is counted: unmatched labels are reported, never dropped silently.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featray.errors import OutputError, UsageError, counted
from featray.evaluate.labels import Labels
from featray.evaluate.matching import (
    BY_FRAME,
    BY_PICTURE,
    BY_TIME,
    CHOSEN,
    FATE_OF,
    FATES,
    MISSED,
    RESOLVE_VIDEOS,
    Fate,
)
from featray.evaluate.measures import Floats
from featray.names import AU_NAMES_20, EMOTION_NAMES_7
from featray.report.scope import Scope
from featray.tables.database import execute

LEAST_IOU: Final = 0.3
"""Minimum IoU of a labelled and a detected box: people include more or less forehead and chin than a detector."""

EXAMPLES: Final = 3

SCORES: Final = (
    *AU_NAMES_20, *(f"emotion_{name}" for name in EMOTION_NAMES_7), "valence", "arousal", "gaze_yaw", "gaze_pitch",
    "pose_pitch", "pose_yaw", "pose_roll",
)  # fmt: skip
QUALITY: Final = ("face_px", "sharpness", "in_frame", "score")


@dataclass(frozen=True)
class Joined:
    """Labels with their matched faces; all arrays are `[n]`, in the labels' order.

    Attributes:
        fates: values of Fate.
        video_ids: id of the video if it is known, else None.
        frames: `frame_index` if the frame is known, else -1.
        faces: columns of `faces`, float64; NaN without a matched face.
        several_faces: labels without a place, matched to the best-scoring of several faces.
        examples: up to three names per fate.
    """

    fates: NDArray[np.object_]
    video_ids: NDArray[np.object_]
    frames: NDArray[np.int64]
    faces: dict[str, Floats]
    several_faces: int
    examples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """Return the number of labels per fate, without fates that no label has."""
        return {str(fate): int(count) for fate in Fate if (count := (self.fates == fate).sum())}


def join_labels(
    scope: Scope, labels: Labels, *, least_iou: float = LEAST_IOU, tolerance_us: int | None = None
) -> Joined:
    """Find each label's face.

    Args:
        scope: the release.
        labels: the human labels.
        least_iou: minimum IoU for a labelled box and a detected face to match.
        tolerance_us: maximum distance of a label's time from a frame's; None: half the video's mean frame interval.

    Raises:
        OutputError: the tables have a row twice.
        UsageError: no label has a frame, or labels name pictures but the release was made from videos.
    """
    connection = scope.connection
    if labels.columns.kind == "picture" and not _has_source_names(scope):
        raise UsageError(
            f"{labels.where}: names pictures ({labels.columns.moment}), but release {scope.release} was made from "
            "videos; give frames (frame_index) or times (pts_us, time_s)"
        )
    connection.register("label_rows", _rows_of(labels))
    names = sorted({name for name in labels.videos if name is not None})
    clean = [name.replace("\\", "/").removeprefix("./").rstrip("/") for name in names]
    connection.register(
        "label_videos", pa.table({"name": pa.array(names, pa.string()), "clean": pa.array(clean, pa.string())})
    )
    for statement in RESOLVE_VIDEOS:
        execute(connection, statement)
    kind = labels.columns.kind
    if kind == "time":
        tolerance = "half_us" if tolerance_us is None else str(int(tolerance_us))
        execute(connection, BY_TIME.format(tolerance=tolerance))
    else:
        execute(connection, BY_FRAME if kind == "frame" else BY_PICTURE)
    place = "box" if labels.columns.box else "point" if labels.columns.point else "none"
    execute(connection, f"CREATE OR REPLACE TEMP TABLE chosen AS {CHOSEN[place].format(iou=least_iou)}")
    return _read(scope, labels)


def _has_source_names(scope: Scope) -> bool:
    known = any(row["column_name"] == "source_name" for row in scope.rows("DESCRIBE in_frames"))
    return known and bool(scope.rows("SELECT 1 FROM in_frames WHERE source_name IS NOT NULL LIMIT 1"))


def _rows_of(labels: Labels) -> pa.Table:
    count = len(labels)
    is_picture = labels.columns.kind == "picture"
    columns: dict[str, Any] = {
        "row": pa.array(np.arange(count)),
        "name": pa.array(labels.videos.tolist(), pa.string()),
        "moment": pa.array(np.zeros(count, np.int64) if is_picture else labels.moments),
        "picture": pa.array(labels.moments.tolist() if is_picture else [None] * count, pa.string()),
    }
    places = labels.boxes if labels.boxes is not None else np.full((count, 0), np.nan)
    for column in range(4):
        values = places[:, column] if column < places.shape[1] else np.full(count, np.nan)
        columns[f"p{column}"] = pa.array(values, pa.float64(), from_pandas=True)
    return pa.table(columns)


def _read(scope: Scope, labels: Labels) -> Joined:
    columns = (*SCORES, *QUALITY)
    values = ", ".join(f"f.{name}::DOUBLE AS {name}" for name in columns)
    table = scope.connection.sql(
        f"""SELECT {FATE_OF} AS fate, t.video_id, coalesce(t.frame_index, -1)::BIGINT AS frame,
        fate = '{Fate.FOUND}' AND t.faces > 1 AND t.p0 IS NULL AS alone, {values}
        FROM timed t LEFT JOIN chosen c ON c.row = t.row LEFT JOIN in_faces f
          ON f.video_id = t.video_id AND f.frame_index = t.frame_index AND f.face_index = c.face_index
        ORDER BY t.row"""
    ).to_arrow_table()
    if len(table) != len(labels):
        raise OutputError(f"{scope.dataset}/{scope.release}: has videos, frames or faces twice; run `featray verify`")
    fates = np.asarray(table["fate"].to_pylist(), object)
    met = fates == Fate.FOUND
    faces = {name: np.where(met, table[name].to_numpy(), np.nan) for name in columns}
    joined = Joined(
        fates=fates,
        video_ids=np.asarray(table["video_id"].to_pylist(), object),
        frames=table["frame"].to_numpy(),
        faces=faces,
        several_faces=int(table["alone"].to_numpy().sum()),
        examples={str(fate): _examples(labels, fates == fate) for fate in set(fates) - {Fate.FOUND}},
    )
    if not set(fates) & {Fate.FOUND, *MISSED}:
        raise UsageError(
            f"{labels.where}: none of {counted(len(labels), 'row')} has a frame: {in_words(joined)}{_others(scope)}"
        )
    return joined


def _others(scope: Scope) -> str:
    rows = scope.rows(f"SELECT place FROM places ORDER BY place LIMIT {EXAMPLES}")
    return f"; {scope.dataset}, {scope.release} has {', '.join(row['place'].rsplit('/', 1)[-1] for row in rows)}, ..."


def _examples(labels: Labels, chosen: NDArray[np.bool_]) -> list[str]:
    rows = np.flatnonzero(chosen)
    alone = all(labels.videos[row] is None for row in rows[:1])
    names = [labels.moments[row] if alone else labels.videos[row] for row in rows[: 100 * EXAMPLES]]
    return list(dict.fromkeys(map(str, names)))[:EXAMPLES]


def in_words(joined: Joined) -> str:
    """Return the fates of labels that matched no face, on one line."""
    parts = []
    for fate, count in joined.counts.items():
        if fate != Fate.FOUND:
            parts.append(f"{count:,} {FATES[Fate(fate)]} ({', '.join(joined.examples[fate])})")
    return "; ".join(parts)
