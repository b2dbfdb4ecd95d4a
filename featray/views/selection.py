"""Views. Read the published rows of one video: its row, its sampled frames and their faces."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featray.errors import OutputError, UsageError
from featray.names import MESH_VERTICES
from featray.tables.database import literal, read_rows
from featray.tables.named import PLACE, is_named, not_named, several_named, short_place
from featray.tables.provenance import StoredConfig, read_config, read_unusable
from featray.tables.query import run_sql
from featray.video.clock import LATEST_US

PICTURE_US: Final = 1_000_000
"""Interval between pictures without times when they are shown."""

TIME_US: Final = f"coalesce(pts_us, frame_index::BIGINT * {PICTURE_US})"
"""SQL expression for the time at which a frame is shown."""


@dataclass(frozen=True)
class VideoRow:
    """One video of one release.

    Attributes:
        dataset, release, video_id, uri, member, size_bytes, content_id: as in the `videos` table.
        width, height: size of the upright frame in px; None if no frame was decoded.
        weights_trained: whether the facial numbers carry meaning.
        column: `input.column` of the run that made the rows.
        unusable: columns that the run's checkpoint does not estimate; their values carry no meaning.
        input_places: input places in the config of that run.
        squared, tone_mapped: conversions applied to frames; None in rows of versions that had neither.
        extra: the other columns of the manifest that listed it, as JSON.
        sequences: settings of sequences in the config of that run.
    """

    dataset: str
    release: str
    video_id: str
    uri: str
    member: str | None
    size_bytes: int
    content_id: str
    width: int | None
    height: int | None
    weights_trained: bool
    column: str | None
    input_places: tuple[str, ...] = ()
    squared: bool | None = None
    tone_mapped: bool | None = None
    unusable: tuple[str, ...] = ()
    extra: str | None = None
    sequences: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return its name: the last part of its place."""
        return (self.member or self.uri).rstrip("/").rsplit("/", 1)[-1]

    @property
    def label(self) -> str:
        """Return what people are shown: its name and its folder."""
        return short_place(self.member or self.uri)

    @property
    def where(self) -> str:
        """Return the SQL condition that selects its rows."""
        return " AND ".join(f"{key} = {literal(getattr(self, key))}" for key in ("dataset", "release", "video_id"))


_LARGEST: Final = 1e6
"""The largest number that is drawn; pictures are smaller, and drawing far beyond one takes minutes, or fails."""


def _is_usable(value: float | None) -> bool:
    return value is not None and abs(value) <= _LARGEST  # false also for NaN


@dataclass(frozen=True)
class Face:
    """A row of `faces`, with its mesh if requested.

    Attributes:
        row: values by column name.
        mesh_xyz: float32 `[478, 3]`, x and y in px of the upright frame; else None.
    """

    row: dict[str, Any]
    mesh_xyz: NDArray[np.float32] | None = None

    def __getitem__(self, column: str) -> float:
        """Return a number of the row.

        Raises:
            OutputError: it is missing, not finite, or larger than any that featray writes.
        """
        value = self.row[column]
        if not _is_usable(value):
            raise self.damaged(column, value)
        return float(value)

    def damaged(self, column: str, value: object) -> OutputError:
        """Return the error about a value that no row of featray has."""
        where = f"frame {self.row.get('frame_index')}, face {self.row.get('face_index')}"
        shown = "null" if value is None else f"{value:.3g}" if isinstance(value, int | float) else "malformed"
        return OutputError(f"faces: {where}: {column} is {shown}, so the row is damaged; run `featray verify`")

    @property
    def track_id(self) -> int:
        """Return the id of the track."""
        track: int | None = self.row["track_id"]
        if track is None or track < 0:
            raise self.damaged("track_id", track)
        return track

    @property
    def landmarks_xy(self) -> NDArray[np.float64] | None:
        """Return the five landmarks, float64 `[5, 2]`, in px of the upright frame; None for boxes without landmarks."""
        points = self.row["landmarks5"]
        if points is None:
            return None
        if len(points) != 10 or not all(map(_is_usable, points)):
            raise self.damaged("landmarks5", points)
        return np.asarray(points, np.float64).reshape(5, 2)

    @property
    def box_xyxy(self) -> tuple[float, float, float, float]:
        """Return the box, in px of the upright frame."""
        x1, y1, x2, y2 = self["box_x1"], self["box_y1"], self["box_x2"], self["box_y2"]
        if x2 < x1 or y2 < y1:
            raise self.damaged(*("box_x2", x2) if x2 < x1 else ("box_y2", y2))
        return x1, y1, x2, y2

    @property
    def area_px(self) -> float:
        """Return the area of the box, in px²."""
        x1, y1, x2, y2 = self.box_xyxy
        return (x2 - x1) * (y2 - y1)


@dataclass(frozen=True)
class SampledFrame:
    """A row of `frames` with its faces, best score first."""

    frame_index: int
    pts_us: int
    status: str
    faces: tuple[Face, ...]

    def face(self, track_id: int | None) -> Face | None:
        """Return the face of a track; None if it is not in the frame."""
        return next((face for face in self.faces if face.track_id == track_id), None)


def find_video(
    connection: duckdb.DuckDBPyConnection, name: str, dataset: str | None = None, release: str | None = None
) -> VideoRow:
    """Return the video with this id, URI, or end of a URI such as `face.mp4`, optionally in one dataset or release.

    Raises:
        UsageError: there is no such video, or more than one.
        OutputError: its row is damaged.
    """
    condition = is_named(name)
    if dataset is not None:
        condition += f" AND dataset = {literal(dataset)}"
    if release is not None:
        condition += f" AND release = {literal(release)}"
    columns = f"*, {PLACE} AS place"
    rows = _rows(connection, f"SELECT {columns} FROM videos WHERE {condition} ORDER BY dataset, release, video_id")
    if not rows:
        raise not_named(connection, name)
    if len(rows) > 1:
        raise _ambiguous(name, rows)
    row = rows[0]
    for column in ("dataset", "release", "video_id", "uri", "run_id"):
        if row[column] is None:
            which = row["video_id"] or row["uri"]
            raise OutputError(f"videos: {which}: {column} is null, so the row is damaged; run `featray verify`")
    runs = _rows(
        connection, f"SELECT weights_trained, unusable, config FROM runs WHERE run_id = {literal(row['run_id'])}"
    )
    known = {name: row[name] for name in VideoRow.__annotations__ if name in row}
    config = _stored(runs[0]["config"]) if runs else None
    return VideoRow(
        **known,
        weights_trained=bool(runs and runs[0]["weights_trained"]),
        column=config.column if config else None,
        input_places=config.places if config else (),
        unusable=read_unusable(runs[0]["unusable"]) if runs else (),
        sequences=config.sequences if config else {},
    )


def _ambiguous(name: str, rows: list[dict[str, Any]]) -> UsageError:
    if len({row["video_id"] for row in rows}) > 1:
        return several_named(name, {row["video_id"]: row["place"] for row in rows})
    found = ", ".join(f"{row['dataset']}/{row['release']}" for row in rows[:5])
    return UsageError(f"--video {name}: is in {len(rows)} releases: {found}; select one by --dataset and --release")


def read_frames(
    connection: duckdb.DuckDBPyConnection, video: VideoRow, start_us: int | None, end_us: int | None, *, mesh: bool
) -> list[SampledFrame]:
    """Return the sampled frames with a time in `[start_us, end_us]`, in order, with their faces.

    Pictures without times are spaced one second apart.

    Args:
        connection: connection from `tables.query.connect`.
        video: video to read.
        start_us: the earliest presentation time; None for no bound.
        end_us: the latest presentation time; None for no bound.
        mesh: whether to read meshes too.

    Raises:
        OutputError: a frame has no index or an impossible time, or a mesh is incomplete.
    """
    condition = video.where
    condition += "" if start_us is None else f" AND {TIME_US} >= {start_us}"
    condition += "" if end_us is None else f" AND {TIME_US} <= {end_us}"
    order = "ORDER BY frame_index, face_index"
    faces = run_sql(
        connection, f"SELECT * REPLACE ({TIME_US} AS pts_us) FROM faces WHERE {condition} {order}"
    ).read_all()
    meshes = None
    if mesh:
        meshes = run_sql(connection, f"SELECT mesh_xyz FROM mesh WHERE {condition} {order}").read_all()
    by_frame = _faces_by_frame(faces, meshes if meshes is not None and meshes.num_rows == faces.num_rows else None)
    columns = f"frame_index, {TIME_US} AS pts_us, status"
    frames = _rows(connection, f"SELECT {columns} FROM frames WHERE {condition} ORDER BY frame_index")
    for frame in frames:
        if frame["frame_index"] is None or abs(frame["pts_us"]) > LATEST_US:
            where = f"frame {frame['frame_index']} at {frame['pts_us']} µs"
            raise OutputError(f"frames: {where}: no video has it, so the row is damaged; run `featray verify`")
    return [SampledFrame(**frame, faces=tuple(by_frame.get(frame["frame_index"], ()))) for frame in frames]


def read_persons(connection: duckdb.DuckDBPyConnection, video: VideoRow) -> dict[int, str]:
    """Return the `person_id` of each track that has one."""
    rows = _rows(connection, f"SELECT track_id, person_id FROM persons WHERE {video.where} AND person_id IS NOT NULL")
    return {row["track_id"]: row["person_id"] for row in rows}


def _faces_by_frame(faces: pa.Table, meshes: pa.Table | None) -> dict[int, list[Face]]:
    xyz = None
    if meshes is not None:
        flat = meshes["mesh_xyz"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        if flat.size != meshes.num_rows * MESH_VERTICES * 3 or not np.all(np.abs(flat) <= _LARGEST):
            raise OutputError("mesh: a row is damaged; run `featray verify`, or leave the mesh out with --draw boxes")
        xyz = flat.reshape(-1, MESH_VERTICES, 3).astype(np.float32, copy=False)
    found: dict[int, list[Face]] = {}
    for number, row in enumerate(row for batch in faces.to_batches() for row in batch.to_pylist()):
        found.setdefault(row["frame_index"], []).append(Face(row, None if xyz is None else xyz[number]))
    return found


def prominent_track(frames: list[SampledFrame]) -> int | None:
    """Return the track that fills most of the picture over all frames; None if there are no faces."""
    area: dict[int, float] = {}
    for frame in frames:
        for face in frame.faces:
            area[face.track_id] = area.get(face.track_id, 0.0) + face.area_px
    return min(area, key=lambda track: (-area[track], track), default=None)


def _rows(connection: duckdb.DuckDBPyConnection, sql: str) -> list[dict[str, Any]]:
    return read_rows(run_sql(connection, sql))


def _stored(config: str | None) -> StoredConfig | None:
    try:
        return read_config(config)
    except ValueError:  # rows can be shown without it; only a source in a Parquet file may not be found
        return None
