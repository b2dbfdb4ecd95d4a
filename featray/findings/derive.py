"""Findings. Derive rows from the files of a commit, a few videos at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from featray.config_derive import DeriveConfig
from featray.errors import OutputError
from featray.findings.asymmetry import MESH_PAIRS, mesh_differences
from featray.findings.batch import Batch, Levels, Read, needed_blendshapes, needed_faces, parse_events
from featray.findings.rows import Rows, floats, same_faces
from featray.findings.samples import Floats, Ints, Samples, lay_out
from featray.names import AU_NAMES_20, MESH_VERTICES

BATCH_ROWS: Final = 100_000
"""Maximum faces per batch of whole videos, about 200 MB. A longer video is a batch of its own."""

_MESH_ROWS: Final = 8_192
_KEYS: Final = ["frame_index", "pts_us", "track_id"]


@dataclass(frozen=True)
class Derivation:
    """The settings of a derivation, and the derivation itself. It can be pickled, to run wherever shards are published.

    Attributes:
        config: the settings.
        neutral: baselines of a shard's videos, by video id, if they come from other videos; see `upkeep/neutral.py`.
        of_tracks: baselines of its tracks, by video id and track, if they come from all faces of a person; see
            `upkeep/person_baselines.py`.
        made_from: digests of their sources by the digest of the person's key; see `Commit.derived_from`.

    Raises:
        ConfigError: an expression in the settings is invalid.
    """

    config: DeriveConfig
    neutral: Mapping[str, Levels] = field(default_factory=dict)
    of_tracks: Mapping[tuple[str, int], Levels] = field(default_factory=dict)
    made_from: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parse_events(self.config)

    @property
    def name(self) -> str:
        """Return the value of the partition `derivation`."""
        return self.config.derivation

    @property
    def crosses_shards(self) -> bool:
        """Return whether rows depend on videos of other shards; a shard then cannot be derived at publishing."""
        return self.config.baseline in ("neutral", "person")

    @property
    def footer(self) -> dict[str, str]:
        """Return the footer of derived files: the settings, from which their rows can be derived again."""
        facts = {"derivation": self.name, "derive": json.dumps(self.config.settings(), sort_keys=True)}
        if self.made_from:  # only a digest: the mapping stays in the commit, since a footer outlives erasures
            made_from = json.dumps(dict(self.made_from), sort_keys=True)
            facts["derived_from"] = hashlib.sha256(made_from.encode()).hexdigest()[:16]
        return facts

    def __call__(self, files: Mapping[str, Sequence[pq.ParquetFile]]) -> Iterator[tuple[str, pa.Table]]:
        """Derive the sorted rows of `tracks` and `events`, without the columns shared by a whole commit.

        Args:
            files: files of a commit, by table: `faces` and `frames`, and `blendshapes` and `mesh` if they exist.

        Yields:
            The name of a table with some of its rows.

        Raises:
            OutputError: the files do not match each other.
        """
        tables = {name: Rows(some) for name, some in files.items() if some}
        if "faces" in tables:
            for batch in video_batches(tables["faces"].counts):
                laid = lay_out_videos(tables["faces"], batch, self.config.gap_s)
                if laid is not None:
                    yield from _derive_videos(tables, laid, self)


def video_batches(counts: Mapping[str, int]) -> Iterator[list[str]]:
    """Yield batches of videos, in the order of their ids."""
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
    """Return the videos whose frames have times. Pictures may have none, and then their order has no meaning."""
    missing = faces.read(videos, ["pts_us"])["pts_us"].is_null().to_numpy()
    if not missing.any():
        return videos
    of = np.repeat(np.arange(len(videos)), [faces.counts[one] for one in videos])
    without = set(of[missing].tolist())
    return [video for number, video in enumerate(videos) if number not in without]


@dataclass(frozen=True)
class Laid:
    """Faces of some videos in the order of their tracks.

    Attributes:
        videos: ids of the videos.
        samples: faces track by track.
        order: int64 `[n]`, row of the table for each sample.
        video: int64 `[n]`, position of the sample's video in `videos`.
        track_id, frame_index: int64 `[n]`.
    """

    videos: list[str]
    samples: Samples
    order: Ints
    video: Ints
    track_id: Ints
    frame_index: Ints


def lay_out_videos(faces: Rows, batch: list[str], gap_s: float) -> Laid | None:
    """Return the samples of a batch of videos; None if none of their frames has a time.

    Raises:
        OutputError: a key is null.
    """
    videos = _with_times(faces, batch)
    if not videos:
        return None
    keys = {name: _whole(faces.read(videos, [name])[name], name) for name in _KEYS}
    video = np.repeat(np.arange(len(videos)), [faces.counts[one] for one in videos])
    order = np.lexsort((keys["frame_index"], keys["track_id"], video))
    video, track_id = video[order], keys["track_id"][order]
    fresh = (video[1:] != video[:-1]) | (track_id[1:] != track_id[:-1])
    samples = lay_out(keys["pts_us"][order], np.concatenate([[0], np.cumsum(fresh)]), gap_s)
    return Laid(videos, samples, order, video, track_id, keys["frame_index"][order])


def _derive_videos(tables: dict[str, Rows], laid: Laid, derivation: Derivation) -> Iterator[tuple[str, pa.Table]]:
    faces, config = tables["faces"], derivation.config
    videos, samples, order = laid.videos, laid.samples, laid.order

    def reader(rows: Rows, columns: tuple[str, ...]) -> Read:
        if len(order) > BATCH_ROWS:
            return lambda name: floats(rows.read(videos, [name])[name])[order]
        held = rows.read(videos, list(columns))  # all at once: remote requests cost more than memory
        return lambda name: floats(held[name])[order]

    shapes, mesh = tables.get("blendshapes"), tables.get("mesh")
    for name, rows in (("blendshapes", shapes), ("mesh", mesh)):
        if rows is not None:
            same_faces(faces, rows, videos, name)
    high = None if mesh is None else {name: values[order] for name, values in _mesh(mesh, videos).items()}
    of_tracks = laid.video[samples.starts]
    batch = Batch(
        samples,
        reader(faces, needed_faces(config)),
        None if shapes is None else reader(shapes, needed_blendshapes(config)),
        None if high is None else high.__getitem__,
        config,
        _given(derivation, [videos[video] for video in of_tracks], laid.track_id[samples.starts].tolist()),
    )
    tracks, events = batch.derive()
    names = pa.array(videos, pa.string()).take(pa.array(of_tracks))
    ids = pa.array(laid.track_id[samples.starts], pa.int32())
    coverage = _coverage(tables.get("frames"), laid)
    tracks = tracks.append_column("video_id", names).append_column("track_id", ids)
    yield "tracks", tracks.append_column("coverage", pa.array(coverage, pa.float32()))
    if events.num_rows:
        of = events["track"]
        events = events.append_column("video_id", names.take(of)).append_column("track_id", ids.take(of))
        yield "events", events.drop_columns(["track"])


def _given(derivation: Derivation, videos: list[str], track_ids: list[int]) -> NDArray[np.float32]:
    """Return baselines of tracks from other faces, float32 `[20, t]`; NaN without one."""
    unknown = (np.nan,) * len(AU_NAMES_20)
    if derivation.config.baseline == "person":
        levels = [derivation.of_tracks.get(key, unknown) for key in zip(videos, track_ids, strict=True)]
    else:
        levels = [derivation.neutral.get(video, unknown) for video in videos]
    return np.array(levels, np.float32).T


def _whole(column: pa.ChunkedArray, name: str) -> Ints:
    """Return a column without nulls, int64 `[n]`.

    Raises:
        OutputError: the column has nulls.
    """
    if column.null_count:
        raise OutputError(f"faces: {name} is null in some rows; run `featray verify`")
    found: Ints = column.to_numpy().astype(np.int64)
    return found


def _mesh(rows: Rows, videos: list[str]) -> dict[str, Floats]:
    """Return asymmetries of the mesh, read a few thousand rows at a time: a row takes 6 KB."""
    found: dict[str, list[Floats]] = {name: [] for name in MESH_PAIRS}
    for piece in rows.pieces(videos, "mesh_xyz", _MESH_ROWS):
        known = piece.is_valid().to_numpy()
        points = pc.list_flatten(piece).to_numpy().reshape(-1, MESH_VERTICES, 3)
        for name, values in mesh_differences(points).items():
            every = np.full(len(known), np.nan, np.float32)
            every[known] = values
            found[name].append(every)
    return {name: np.concatenate(values) for name, values in found.items()}


def _coverage(rows: Rows | None, laid: Laid) -> Floats:
    """Return the share of sampled frames between a track's first and last that contain its face, float32 `[t]`."""
    videos, video, frame_index, samples = laid.videos, laid.video, laid.frame_index, laid.samples
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
