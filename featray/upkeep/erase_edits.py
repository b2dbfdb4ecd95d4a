"""Upkeep. The row edits of an erasure, by table; pure functions over Arrow tables."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from numpy.typing import NDArray

from featray import identity
from featray.schema import DERIVED_TABLES, FACE_TABLES, PERSON_TABLES, PRIVATE_TABLES
from featray.tables.commits import Commit, read_manifests
from featray.tables.layout import Partition
from featray.tables.provenance import read_config
from featray.tables.rewrite import Edit, open_parquet


@dataclass(frozen=True)
class TrackFaces:
    """The faces of one track.

    Attributes:
        video_id, track_id: identify the track.
        frames: int64 `[n]`, frame indices that lose faces, ascending.
        lost: int64 `[n]`, number of faces that each of these frames loses.
        emptied: number of these frames that have no other face.
    """

    video_id: str
    track_id: int
    frames: NDArray[np.int64]
    lost: NDArray[np.int64]
    emptied: int

    @property
    def rows(self) -> int:
        """Return the number of faces of the track."""
        return int(self.lost.sum())

    def edits(self) -> dict[str, Edit]:
        """Return the edits that remove the track and keep counts consistent."""
        return {
            **dict.fromkeys((*FACE_TABLES, *DERIVED_TABLES, *PRIVATE_TABLES, *PERSON_TABLES), self._faces),
            "frames": self._frames,
            "videos": self._videos,
        }

    def _of_video(self, rows: pa.Table) -> NDArray[np.bool_]:
        is_of_it = pc.fill_null(pc.equal(rows["video_id"], self.video_id), False)
        mask: NDArray[np.bool_] = is_of_it.to_numpy(zero_copy_only=False)
        return mask

    def _faces(self, rows: pa.Table) -> pa.Table:
        gone = self._of_video(rows) & (rows["track_id"].to_numpy() == self.track_id)
        return rows.filter(pa.array(~gone)) if gone.any() else rows

    def _frames(self, rows: pa.Table) -> pa.Table:
        if not len(self.frames):
            return rows
        indices = pc.fill_null(rows["frame_index"], -1).to_numpy().astype(np.int64)
        position = np.minimum(np.searchsorted(self.frames, indices), len(self.frames) - 1)
        hit = self._of_video(rows) & (self.frames[position] == indices)
        if not hit.any():
            return rows
        faces = rows["faces"].to_numpy() - np.where(hit, self.lost[position], 0)
        status = pc.if_else(pa.array(hit & (faces == 0)), "no_face", rows["status"])
        return _with(_with(rows, "faces", pa.array(faces)), "status", status)

    def _videos(self, rows: pa.Table) -> pa.Table:
        hit = self._of_video(rows)
        if not hit.any() or not self.rows:
            return rows
        for name, lost in (("faces", self.rows), ("frames_with_face", self.emptied), ("tracks", 1)):
            rows = _with(rows, name, pa.array(rows[name].to_numpy() - np.where(hit, lost, 0)))
        return rows


def read_track(partition: Partition, commits: list[Commit], video_id: str, track_id: int) -> TrackFaces:
    """Find a track's faces in the files of commits."""
    every, of_track = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for file in (file for commit in commits for file in commit.files if file.table == "faces"):
        place = partition.output.root.child(file.path)
        with open_parquet(place) as opened:
            for group in range(opened.num_row_groups):
                rows = opened.read_row_group(group, columns=["video_id", "frame_index", "track_id"])
                rows = rows.filter(pc.equal(rows["video_id"], video_id))
                every.append(rows["frame_index"].to_numpy())
                of_track.append(rows.filter(pc.equal(rows["track_id"], track_id))["frame_index"].to_numpy())
    frames, lost = np.unique(np.concatenate(of_track).astype(np.int64), return_counts=True)
    all_frames, faces = np.unique(np.concatenate(every).astype(np.int64), return_counts=True)
    emptied = int((faces[np.searchsorted(all_frames, frames)] == lost).sum())
    return TrackFaces(video_id, track_id, frames, lost, emptied)


def counted(edit: Edit, removed: dict[str, int], table: str) -> Edit:
    """Return an edit that also counts the rows it removes."""

    def counting(rows: pa.Table) -> pa.Table:
        edited = edit(rows)
        removed[table] = removed.get(table, 0) + rows.num_rows - edited.num_rows
        return edited

    return counting


def uris_of(partition: Partition, commits: list[Commit], video_id: str) -> set[str]:
    """Return the video's URIs from tables and open shards, if it is a separate file.

    The name of a shard file is shared by many videos.
    """
    found = {
        video.uri
        for manifest in read_manifests(partition)
        for video in manifest.videos
        if video.video_id == video_id and video.member is None
    }
    for file in (file for commit in commits for file in commit.files if file.table == "videos"):
        place = partition.output.root.child(file.path)
        with open_parquet(place) as opened:
            for group in range(opened.num_row_groups):
                rows = opened.read_row_group(group, columns=["video_id", "uri", "member"])
                rows = rows.filter(pc.equal(rows["video_id"], video_id)).to_pylist()
                found |= {row["uri"] for row in rows if row["member"] is None and row["uri"] is not None}
    return found


def forget_uri(config: str, uris: set[str], video_id: str) -> str:
    """Return a run's config (YAML) without the name of the video's file; unchanged if it does not contain it.

    Returns an empty string for a config that cannot be parsed.
    """
    try:
        stored = read_config(config)
    except ValueError:
        return ""  # it may name the person
    kept = [f"erased:{video_id}" if _names(given, uris) or _has_id(given, video_id) else given for given in stored.uris]
    if kept == stored.uris:
        return config
    data = stored.data
    data["input"]["uris"] = kept
    text: str = yaml.safe_dump(data, sort_keys=False)
    return text


def _names(given: str, uris: set[str]) -> bool:
    """Return whether an entry of `input.uris` is, or may be, one of these URIs.

    A relative path started from a folder that is no longer known: the run's working directory or the user's home. It
    matches every file whose path ends in it, because the person's name must not remain anywhere. If it was a different
    file of the same name, only the name is lost.
    """
    if given in uris:
        return True
    paths = {posixpath.normpath(uri.removeprefix("file://")) for uri in uris if uri.startswith("file://")}
    path = posixpath.normpath(re.sub("^(file|local):(//)?", "", given))
    if path.startswith("/"):
        return path in paths
    end = "/" + re.sub(r"^(~[^/]*/|(\.\./)+)", "", path)
    return any(known.endswith(end) for known in paths)


def _has_id(given: str, wanted: str) -> bool:
    """Return whether an entry of `input.uris` is the file with this id, even if its URI is no longer stored."""
    path = re.sub("^(file|local):(//)?", "", given)
    return wanted in map(identity.video_id, (given, f"file://{path}", f"file://{posixpath.normpath(path)}"))


def forget_uri_edit(uris: set[str], video_id: str) -> Edit:
    """Return the edit that applies `forget_uri` to rows of `runs`."""

    def edit(rows: pa.Table) -> pa.Table:
        before = rows["config"].to_pylist()
        after = [forget_uri(config, uris, video_id) for config in before]
        return rows if after == before else _with(rows, "config", pa.array(after, pa.string()))

    return edit


def _with(rows: pa.Table, name: str, values: pa.Array) -> pa.Table:
    position = rows.column_names.index(name)
    field = rows.schema.field(name)
    return rows.set_column(position, field, values.cast(field.type))
