"""Findings. From the files of a commit to its derived rows, some videos at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from featray.config_derive import DeriveConfig
from featray.errors import OutputError
from featray.findings.asymmetry import MESH_PAIRS, mesh_differences
from featray.findings.batch import Batch, Read, needed_blendshapes, needed_faces, parse_events
from featray.findings.rows import Rows, floats, same_faces
from featray.findings.samples import Floats, Ints, Samples, lay_out
from featray.names import MESH_VERTICES

BATCH_ROWS: Final = 100_000
"""Faces of whole videos that are worked on together: some 200 MB at most. A longer video is worked on alone."""

_MESH_ROWS: Final = 8_192
_KEYS: Final = ["frame_index", "pts_us", "track_id"]


@dataclass(frozen=True)
class Derivation:
    """Settings under which rows are derived; pickles, and does the work wherever a shard is published.

    Raises:
        ConfigError: an expression of the settings is none.
    """

    config: DeriveConfig

    def __post_init__(self) -> None:
        parse_events(self.config)

    @property
    def name(self) -> str:
        """The value of the partition `derivation`."""
        return self.config.derivation

    @property
    def footer(self) -> dict[str, str]:
        """What stands in the footers of derived files: the settings, from which their rows can be derived again."""
        return {"derivation": self.name, "derive": json.dumps(self.config.settings(), sort_keys=True)}

    def __call__(self, files: Mapping[str, Sequence[pq.ParquetFile]]) -> Iterator[tuple[str, pa.Table]]:
        """Derive the rows of `tracks` and `events`, sorted, without the columns that a whole commit shares.

        Args:
            files: of a commit, by table: `faces` and `frames`, and `blendshapes` and `mesh` where there are some.

        Yields:
            A table's name with some of its rows.

        Raises:
            OutputError: the files do not go together.
        """
        tables = {name: Rows(some) for name, some in files.items() if some}
        if "faces" in tables:
            for batch in _batches(tables["faces"].counts):
                if videos := _with_times(tables["faces"], batch):
                    yield from _derive_videos(tables, videos, self.config)


def _batches(counts: dict[str, int]) -> Iterator[list[str]]:
    batch: list[str] = []
    rows = 0
    for video in sorted(counts):
        if batch and rows + counts[video] > BATCH_ROWS:
            yield batch
            batch, rows = [], 0
        batch.append(video)
        rows += counts[video]
    if batch:
        yield batch


def _with_times(faces: Rows, videos: list[str]) -> list[str]:
    """Those whose frames have times: pictures need not have any, and then nothing follows from their order."""
    missing = faces.read(videos, ["pts_us"])["pts_us"].is_null().to_numpy()
    if not missing.any():
        return videos
    of = np.repeat(np.arange(len(videos)), [faces.counts[one] for one in videos])
    without = set(of[missing].tolist())
    return [video for number, video in enumerate(videos) if number not in without]


def _derive_videos(tables: dict[str, Rows], videos: list[str], config: DeriveConfig) -> Iterator[tuple[str, pa.Table]]:
    faces = tables["faces"]
    keys = {name: _whole(faces.read(videos, [name])[name], name) for name in _KEYS}
    video = np.repeat(np.arange(len(videos)), [faces.counts[one] for one in videos])
    order = np.lexsort((keys["frame_index"], keys["track_id"], video))
    video, track_id = video[order], keys["track_id"][order]
    fresh = (video[1:] != video[:-1]) | (track_id[1:] != track_id[:-1])
    samples = lay_out(keys["pts_us"][order], np.concatenate([[0], np.cumsum(fresh)]), config.gap_s)

    def reader(rows: Rows, columns: tuple[str, ...]) -> Read:
        if len(order) > BATCH_ROWS:
            return lambda name: floats(rows.read(videos, [name])[name])[order]
        held = rows.read(videos, list(columns))  # at once: where files are far away, requests cost more than memory
        return lambda name: floats(held[name])[order]

    shapes, mesh = tables.get("blendshapes"), tables.get("mesh")
    for name, rows in (("blendshapes", shapes), ("mesh", mesh)):
        if rows is not None:
            same_faces(faces, rows, videos, name)
    high = None if mesh is None else {name: values[order] for name, values in _mesh(mesh, videos).items()}
    batch = Batch(
        samples,
        reader(faces, needed_faces(config)),
        None if shapes is None else reader(shapes, needed_blendshapes(config)),
        None if high is None else high.__getitem__,
        config,
    )
    tracks, events = batch.derive()
    names = pa.array(videos, pa.string()).take(pa.array(video[samples.starts]))
    ids = pa.array(track_id[samples.starts], pa.int32())
    coverage = _coverage(tables.get("frames"), videos, video, keys["frame_index"][order], samples)
    tracks = tracks.append_column("video_id", names).append_column("track_id", ids)
    yield "tracks", tracks.append_column("coverage", pa.array(coverage, pa.float32()))
    if events.num_rows:
        of = events["track"]
        events = events.append_column("video_id", names.take(of)).append_column("track_id", ids.take(of))
        yield "events", events.drop_columns(["track"])


def _whole(column: pa.ChunkedArray, name: str) -> Ints:
    """A column without nulls, int64 `[n]`.

    Raises:
        OutputError: it has some.
    """
    if column.null_count:
        raise OutputError(f"faces: {name} is null in some rows; run `featray verify`")
    found: Ints = column.to_numpy().astype(np.int64)
    return found


def _mesh(rows: Rows, videos: list[str]) -> dict[str, Floats]:
    """Asymmetries of the mesh, of a few thousand rows at a time: a row has 6 KB."""
    found: dict[str, list[Floats]] = {name: [] for name in MESH_PAIRS}
    for piece in rows.pieces(videos, "mesh_xyz", _MESH_ROWS):
        known = piece.is_valid().to_numpy()
        points = pc.list_flatten(piece).to_numpy().reshape(-1, MESH_VERTICES, 3)
        for name, values in mesh_differences(points).items():
            every = np.full(len(known), np.nan, np.float32)
            every[known] = values
            found[name].append(every)
    return {name: np.concatenate(values) for name, values in found.items()}


def _coverage(rows: Rows | None, videos: list[str], video: Ints, frame_index: Ints, samples: Samples) -> Floats:
    """The share of the frames sampled between a track's first and last one that have its face, float32 `[t]`."""
    if rows is None:
        return np.ones(samples.tracks, np.float32)
    counts = [rows.counts.get(one, 0) for one in videos]
    frames = rows.read(videos, ["frame_index"])["frame_index"].to_numpy().astype(np.int64)
    place = (np.repeat(np.arange(len(videos)), counts) << 32) + frames
    starts, ends = samples.starts, samples.starts + samples.counts - 1
    first = np.searchsorted(place, (video[starts] << 32) + frame_index[starts])
    last = np.searchsorted(place, (video[ends] << 32) + frame_index[ends], side="right")
    share: NDArray[np.float64] = samples.counts / np.maximum(last - first, 1)
    return np.minimum(share, 1).astype(np.float32)
