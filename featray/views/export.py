"""Views. `featray export`: time series and events of a video, and one row per video, in formats of other tools."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from featray.errors import UsageError, printable
from featray.schema import BLENDSHAPES, FACES, KEY, arrow_schema
from featray.store.location import locate_beside
from featray.store.scratch import scratch_folder
from featray.store.storage import upload
from featray.tables.database import literal
from featray.tables.layout import Output
from featray.tables.published import Published, of_dataset, read_steadily
from featray.tables.query import connect, has_synthetic_weights, run_sql
from featray.views.annotations import read_events, write_elan, write_textgrid
from featray.views.openface import openface_table
from featray.views.selection import VideoRow, find_video

_JOIN: Final = "(dataset, release, video_id, frame_index, face_index)"
_ONLY_BLENDSHAPES: Final = ", ".join(c.name for c in BLENDSHAPES if c.name not in {f.name for f in FACES})
_ONLY_FACES: Final = ", ".join(f"faces.{c.name}" for c in FACES if c not in KEY)
_LANDMARKS: Final = ("right_eye", "left_eye", "nose_tip", "right_mouth_corner", "left_mouth_corner")


@dataclass(frozen=True)
class ExportSettings:
    """Settings of an export.

    Attributes:
        video: id, URI or end of a URI; for events, empty for all videos.
        style: csv, parquet, openface or fex; for events csv, elan or textgrid.
        release, dataset: names, needed if there are several.
        track_id: only this track; None for all.
        safe_csv: put `'` before texts that spreadsheets interpret as formulas.
        derivation: derivation of events and summary; None for the latest.
    """

    video: str
    style: str
    release: str | None = None
    dataset: str | None = None
    track_id: int | None = None
    safe_csv: bool = False
    derivation: str | None = None


@dataclass(frozen=True)
class Exported:
    """An export that was written: its number of rows, and whether a run of its releases had synthetic weights."""

    rows: int
    synthetic_weights: bool


def write_export(output: Output, path: str | None, settings: ExportSettings) -> Exported:
    """Write the rows of a video.

    Args:
        output: output with the tables.
        path: file to write; None for standard output.
        settings: what to export, and in which format.

    Raises:
        UsageError: no such video or track; parquet without a path.
        StorageError: the tables cannot be read, or the file cannot be written.
    """
    if path is None and settings.style == "parquet":
        raise UsageError("--format parquet: needs --out FILE; only text can be written to the terminal")

    def read(published: list[Published]) -> tuple[pa.Table, bool]:
        connection = connect(output, published=of_dataset(published, settings.dataset))
        video = find_video(connection, settings.video, settings.dataset)
        if settings.track_id is not None:
            _check_track(connection, video, settings.track_id)
        return _STYLES[settings.style](connection, video, settings.track_id), not video.weights_trained

    table, synthetic = read_steadily(output, read, settings.release)
    return Exported(_write(table, output, path, settings), synthetic)


def write_events(output: Output, path: str | None, settings: ExportSettings) -> Exported:
    """Write events; arguments and errors as for `write_export`.

    Styles: csv; elan and textgrid, which need a video and a `path`.
    """
    if settings.style != "csv" and (path is None or not settings.video):
        missing = "--out FILE" if settings.video else "--video, because it writes one file per video"
        raise UsageError(f"--events {settings.style}: needs {missing}")

    def read(published: list[Published]) -> tuple[VideoRow | None, pa.Table, bool]:
        connection = connect(output, published=of_dataset(published, settings.dataset))
        video = find_video(connection, settings.video, settings.dataset) if settings.video else None
        if settings.track_id is not None and video is not None:
            _check_track(connection, video, settings.track_id)
        synthetic = has_synthetic_weights(connection) if video is None else not video.weights_trained
        return video, read_events(connection, video, settings.track_id), synthetic

    video, table, synthetic = read_steadily(output, read, settings.release, settings.derivation)
    return Exported(_write(table, output, path, settings, video), synthetic)


def write_summary(output: Output, path: str | None, settings: ExportSettings) -> Exported:
    """Write the view `summary`, one row per video; arguments and errors as for `write_export`. Styles: csv, parquet."""
    if path is None and settings.style == "parquet":
        raise UsageError("--summary parquet: needs --out FILE; only text can be written to the terminal")
    where = "" if settings.dataset is None else f"WHERE dataset = {literal(settings.dataset)}"
    sql = f"SELECT * FROM summary {where} ORDER BY dataset, release, video_id"

    def read(published: list[Published]) -> tuple[pa.Table, bool]:
        connection = connect(output, published=of_dataset(published, settings.dataset))
        return run_sql(connection, sql).read_all(), has_synthetic_weights(connection)

    table, synthetic = read_steadily(output, read, settings.release, settings.derivation)
    return Exported(_write(table, output, path, settings), synthetic)


def _write(
    table: pa.Table, output: Output, path: str | None, settings: ExportSettings, video: VideoRow | None = None
) -> int:
    if path is None:
        write_csv(table, sys.stdout, safe=settings.safe_csv)
        return int(table.num_rows)
    target = locate_beside(path, output.root)
    with scratch_folder("export") as folder:
        local = Path(folder) / "export"
        if settings.style == "parquet":
            pq.write_table(table, local, compression="zstd")
        elif settings.style == "elan" and video is not None:
            write_elan(table, video, local)
        elif settings.style == "textgrid":
            write_textgrid(table, local)
        else:
            with local.open("w", newline="", encoding="utf-8") as file:
                write_csv(table, file, safe=settings.safe_csv)
        upload(str(local), target)
    return int(table.num_rows)


def _joined(
    connection: duckdb.DuckDBPyConnection, video: VideoRow, track_id: int | None, *, mesh: bool = False
) -> pa.Table:
    """Return `faces`, `seconds`, published `blendshapes`, and `person_id`, with the tables' column comments.

    With `mesh`, also `mesh_xyz`, null for faces that the table `mesh` lacks.
    """
    blendshapes = _has(connection, "blendshapes", video)
    joined = f" JOIN blendshapes USING {_JOIN}" if blendshapes else ""
    keys = "dataset, release, video_id, frame_index, faces.pts_us, faces.pts_us / 1e6 AS seconds"
    columns = f"{keys}, {_ONLY_FACES}{f', {_ONLY_BLENDSHAPES}' if blendshapes else ''}, who.person_id"
    columns += ", mesh_xyz" if mesh else ""
    faces = f"(SELECT * FROM faces WHERE {video.where}{_of_track(track_id)}) AS faces"
    joined += f" LEFT JOIN (SELECT {_JOIN[1:-1]}, mesh_xyz FROM mesh) AS mesh USING {_JOIN}" if mesh else ""
    who = f"(SELECT track_id, person_id FROM persons WHERE {video.where}) AS who"
    joined += f" LEFT JOIN {who} ON who.track_id = faces.track_id"
    table = run_sql(connection, f"SELECT {columns} FROM {faces}{joined} ORDER BY frame_index, face_index").read_all()
    known = {field.name: field for name in ("persons", "mesh", "blendshapes", "faces") for field in arrow_schema(name)}
    seconds = pa.field("seconds", pa.float64(), metadata={"comment": "presentation time [s]", "unit": "s"})
    return table.cast(pa.schema([known.get(name, seconds) for name in table.column_names]))


def _as_csv(connection: duckdb.DuckDBPyConnection, video: VideoRow, track_id: int | None) -> pa.Table:
    """Return the rows of `_joined` with the five landmarks in separate columns."""
    table = _joined(connection, video, track_id)
    place = table.column_names.index("landmarks5")
    points = table["landmarks5"]
    table = table.remove_column(place)
    names = [f"{name}_{axis}" for name in _LANDMARKS for axis in "xy"]
    for number, name in enumerate(names):
        table = table.add_column(place + number, name, pc.list_element(points, number))
    return table


def _as_openface(connection: duckdb.DuckDBPyConnection, video: VideoRow, track_id: int | None) -> pa.Table:
    faces = f"SELECT * FROM faces WHERE {video.where}{_of_track(track_id)}"
    points = ""
    if _has(connection, "mesh", video):
        faces = f"SELECT faces.*, points_xy FROM ({faces}) AS faces JOIN dlib68 USING {_JOIN}"
        points = ", points_xy"
    values = ", ".join(f"faces.{c.name}" for c in FACES if c not in KEY and c.name != "run_id")
    sql = (
        f"SELECT frames.frame_index, frames.pts_us, {values}{points} "
        f"FROM (SELECT * FROM frames WHERE {video.where}) AS frames "
        f"LEFT JOIN ({faces}) AS faces USING (frame_index) ORDER BY frames.frame_index, track_id"
    )
    rows = run_sql(connection, sql).read_all()
    tracks = pc.unique(rows["track_id"].drop_null()).to_pylist()
    return openface_table(rows, track_id if track_id is not None else tracks[0] if len(tracks) == 1 else -1)


def _as_fex(connection: duckdb.DuckDBPyConnection, video: VideoRow, track_id: int | None) -> pa.Table:
    from featray.views.fex import fex_columns

    table = _joined(connection, video, track_id, mesh=_has(connection, "mesh", video))
    for name, value in (("uri", video.uri), ("width", video.width), ("height", video.height)):
        table = table.append_column(name, pa.repeat(value, table.num_rows))
    frame, _ = fex_columns(table.drop_columns(["landmarks5"]))
    return pa.Table.from_pandas(frame, preserve_index=False)


_STYLES: Final[dict[str, Callable[[duckdb.DuckDBPyConnection, VideoRow, int | None], pa.Table]]] = {
    "csv": _as_csv,
    "parquet": _joined,
    "openface": _as_openface,
    "fex": _as_fex,
}


def _of_track(track_id: int | None) -> str:
    return "" if track_id is None else f" AND track_id = {track_id}"


def _has(connection: duckdb.DuckDBPyConnection, table: str, video: VideoRow) -> bool:
    found = run_sql(connection, f"SELECT 1 FROM {table} WHERE {video.where} LIMIT 1").read_all()
    return bool(found.num_rows)


def _check_track(connection: duckdb.DuckDBPyConnection, video: VideoRow, track_id: int) -> None:
    sql = f"SELECT DISTINCT track_id FROM faces WHERE {video.where} ORDER BY track_id"
    there = run_sql(connection, sql).read_all()["track_id"].to_pylist()
    if track_id not in there:
        known = ", ".join(map(str, there[:20])) or "none"
        raise UsageError(f"--track {track_id}: not in {video.name}; it has: {known}")


def write_csv(table: pa.Table, file: IO[str], *, safe: bool = False) -> None:
    """Write CSV; a float has the digits that distinguish it from its neighbours, a null is empty.

    Args:
        table: the rows.
        file: file to write to. If it is a terminal, control sequences are escaped.
        safe: put `'` before texts that begin like a formula, the marker that spreadsheets use for text.
    """
    terminal = file.isatty()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_texts(pa.array(table.column_names, pa.string()), safe=safe, terminal=terminal))
    for batch in table.to_batches(max_chunksize=4096):
        columns: list[list[Any]] = [_texts(column, safe=safe, terminal=terminal) for column in batch.columns]
        writer.writerows(zip(*columns, strict=True))


def _texts(column: pa.Array, *, safe: bool, terminal: bool) -> list[str]:
    texts = ["" if value is None else value for value in column.cast(pa.string()).to_pylist()]
    if not pa.types.is_string(column.type) and not pa.types.is_large_string(column.type):
        return texts
    if safe:
        texts = [without_formula(text) for text in texts]
    return [printable(text) for text in texts] if terminal else texts


def without_formula(text: str) -> str:
    """Return a cell's text, with `'` before it if a spreadsheet would evaluate it."""
    return f"'{text}" if text.startswith(_FORMULA) else text


_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
"""First characters of cells that a spreadsheet may evaluate."""
