"""Views. Read the tracks of a person, and select the best faces of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import duckdb
import numpy as np
import pyarrow as pa

from featray.config_identify import IdentifyConfig
from featray.errors import UsageError
from featray.faces.cadence import qualities
from featray.tables.database import literal, read_rows
from featray.tables.persons import DOUBTFUL, LIST_PERSONS
from featray.tables.query import run_sql
from featray.views.selection import TIME_US, Face

FACES: Final = 3
"""Faces shown per track: one from each third of its time, so a track that switches to somebody else shows both."""

_NEEDED: Final = (
    "frame_index", "face_index", "landmarks5", "crop_x", "crop_y", "crop_side", "face_px", "sharpness", "in_frame",
)  # fmt: skip


@dataclass(frozen=True)
class FaceAt:
    """A face, and its time."""

    face: Face
    frame_index: int
    pts_us: int


@dataclass(frozen=True)
class PersonTrack:
    """A track of a person.

    Attributes:
        dataset, release, video_id, track_id: identify the track.
        person_id, similarity, margin, previous, name: as in `persons`.
        start_us, end_us: times of its first and last face.
        faces: faces of good quality, in time order.
    """

    dataset: str
    release: str
    video_id: str
    track_id: int
    person_id: str
    similarity: float
    margin: float | None
    previous: str | None
    name: str | None
    start_us: int
    end_us: int
    faces: tuple[FaceAt, ...]

    @property
    def is_doubtful(self) -> bool:
        """Return whether another person is nearly as close."""
        return self.margin is not None and self.margin < DOUBTFUL


def is_person(person: str) -> str:
    """Return the SQL condition that selects rows of `persons` with this id or name."""
    return f"(person_id = {literal(person)} OR name = {literal(person)})"


def count_tracks(connection: duckdb.DuckDBPyConnection, person: str, dataset: str | None) -> tuple[int, int]:
    """Return how many tracks a person has, and in how many videos.

    Raises:
        UsageError: there is no person with this id or name.
    """
    sql = (
        f"SELECT count(*) AS tracks, count(DISTINCT (dataset, release, video_id)) AS videos FROM {_of(person, dataset)}"
    )
    found = read_rows(run_sql(connection, sql))[0]
    if not found["tracks"]:
        raise UsageError(
            f"--person {person}: no person has this id or name; list them with {LIST_PERSONS}; "
            "`featray persons OUT` finds them, after a run with identify.enabled"
        )
    return int(found["tracks"]), int(found["videos"])


def read_tracks(
    connection: duckdb.DuckDBPyConnection, person: str, dataset: str | None, most: int
) -> Iterator[PersonTrack]:
    """Yield the least certain tracks of a person, with the best faces of each.

    Doubtful tracks come first, by their margin, then the others, by similarity to the person's centre.

    Args:
        connection: connection from `tables.query.connect`.
        person: an id or a name.
        dataset: only tracks of this dataset; None for all.
        most: maximum number of tracks.
    """
    order = (
        f"CASE WHEN margin < {DOUBTFUL} THEN margin END NULLS LAST, similarity, dataset, release, video_id, track_id"
    )
    names = "dataset, release, video_id, track_id, person_id, similarity, margin, previous, name"
    chosen = f"SELECT {names} FROM {_of(person, dataset)} ORDER BY {order} LIMIT {most}"
    for row in read_rows(run_sql(connection, chosen)):
        where = " AND ".join(f"{name} = {literal(row[name])}" for name in ("dataset", "release", "video_id"))
        where += f" AND track_id = {row['track_id']}"
        columns = ", ".join([*_NEEDED, f"{TIME_US} AS pts_us"])
        faces = run_sql(connection, f"SELECT {columns} FROM faces WHERE {where} ORDER BY frame_index").read_all()
        if faces.num_rows:
            times = faces["pts_us"]
            yield PersonTrack(**row, start_us=times[0].as_py(), end_us=times[-1].as_py(), faces=tuple(_best(faces)))


def _of(person: str, dataset: str | None) -> str:
    return f"persons WHERE {is_person(person)}" + ("" if dataset is None else f" AND dataset = {literal(dataset)}")


def _best(faces: pa.Table) -> Iterator[FaceAt]:
    """Yield the face with the best embedding quality from each third of a track's time; the larger if equal."""
    times = faces["pts_us"].to_numpy()
    part = np.minimum(FACES * (times - times[0]) // max(int(times[-1] - times[0]), 1), FACES - 1)
    quality, size = qualities(faces, IdentifyConfig()), faces["face_px"].to_numpy()
    for number in range(FACES):
        rows = np.flatnonzero(part == number)
        if len(rows):
            row = faces.slice(int(rows[np.lexsort((-size[rows], -quality[rows]))[0]]), 1).to_pylist()[0]
            yield FaceAt(Face(row), row["frame_index"], row["pts_us"])
