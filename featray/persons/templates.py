"""Persons. Build one template per track from the rows of `embeddings` and `faces`, one row group at a time.

A template is the mean of a track's embeddings, weighted by their quality, scaled to length 1. Values are rounded to
multiples of 2^-30, which float64 adds without rounding, so sums do not depend on how rows are spread over files.

Memory holds the templates and one row group: 1.6 GB for a million tracks of 128 numbers.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from featray.faces.embedder import unit
from featray.persons.cluster import Tracks
from featray.persons.keys import TrackKeys, packed, unpacked

EMBEDDING_COLUMNS = ("video_id", "track_id", "quality", "embedding")
FACE_COLUMNS = ("video_id", "track_id", "frame_index")

_FINEST: Final = 2.0**30
"""About 9 digits for vectors of length 1; leaves room for 2^23 embeddings per track."""

_Floats = NDArray[np.float64]
_Ints = NDArray[np.int64]


class Templates:
    """Accumulates embeddings per track, and the frames in which tracks are on screen."""

    def __init__(self) -> None:
        self._videos: dict[str, int] = {}
        self._sums: list[tuple[_Ints, _Floats, _Floats]] = []
        self._spans: list[tuple[_Ints, _Ints, _Ints]] = []
        self._width = 0

    def add_embeddings(self, rows: pa.Table) -> None:
        """Add rows with EMBEDDING_COLUMNS.

        Raises:
            ValueError: the embeddings differ in width, or a value is not finite.
        """
        if not rows.num_rows:
            return
        lengths = pc.unique(pc.list_value_length(rows["embedding"])).to_pylist()
        if len(lengths) > 1:
            raise ValueError(f"embeddings of {' and '.join(map(str, lengths[:3]))} numbers")
        vectors = rows["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        vectors = vectors.reshape(rows.num_rows, -1).astype(np.float64)
        quality = rows["quality"].to_numpy().astype(np.float64)
        if not (np.isfinite(vectors).all() and np.isfinite(quality).all()):
            raise ValueError("an embedding or its quality is not a number")
        self._width = self._width or vectors.shape[1]
        if vectors.shape[1] != self._width:
            raise ValueError(f"embeddings of {vectors.shape[1]} numbers, where others have {self._width}")
        keys, order, begins = _grouped(self._keys(rows))
        weighted = np.rint(vectors * quality[:, None] * _FINEST) / _FINEST
        weights = np.rint(quality * _FINEST) / _FINEST
        sums = np.add.reduceat(weighted[order], begins, axis=0)
        self._sums.append((keys, sums, np.add.reduceat(weights[order], begins)))

    def add_faces(self, rows: pa.Table) -> None:
        """Add rows with FACE_COLUMNS."""
        if rows.num_rows:
            frames = rows["frame_index"].to_numpy().astype(np.int64)
            self._spans.append(_spans(self._keys(rows), frames, frames))

    def tracks(self) -> tuple[TrackKeys, Tracks, int]:
        """Return the keys and tracks that have an embedding, and the number of tracks without; consumes the added rows.

        A track has no embedding if none of its sampled faces was good enough.
        """
        videos = sorted(self._videos)
        rank = np.empty(len(videos), np.int64)
        rank[[self._videos[video] for video in videos]] = np.arange(len(videos))
        keys, templates, weights = self._templates(rank)
        seen, first, last = self._seen(rank)
        place = np.minimum(np.searchsorted(seen, keys), max(len(seen) - 1, 0))
        known = seen[place] == keys if len(seen) else np.zeros(len(keys), np.bool_)
        video, track_id = unpacked(keys)
        tracks = Tracks(
            video=video,
            track_id=track_id,
            start=np.where(known, first[place], 0) if len(seen) else np.zeros(len(keys), np.int64),
            end=np.where(known, last[place], 0) if len(seen) else np.zeros(len(keys), np.int64),
            templates=templates,
            weights=weights,
        )
        return TrackKeys(videos, keys), tracks, len(seen) - int(known.sum())

    def _keys(self, rows: pa.Table) -> _Ints:
        """Return the key of each row, with videos numbered in order of first appearance."""
        videos = rows["video_id"].combine_chunks().dictionary_encode()
        codes = [self._videos.setdefault(video, len(self._videos)) for video in videos.dictionary.to_pylist()]
        video = np.array(codes, np.int64)[videos.indices.to_numpy()]
        keys: _Ints = packed(video, rows["track_id"].to_numpy().astype(np.int64))
        return keys

    def _templates(self, rank: _Ints) -> tuple[_Ints, NDArray[np.float32], _Floats]:
        """Return keys, templates and weights of all tracks; sums are kept only for tracks in several row groups."""
        if not self._sums:
            return np.zeros(0, np.int64), np.zeros((0, 1), np.float32), np.zeros(0)
        every = [_ranked(keys, rank) for keys, _, _ in self._sums]
        keys, place, count = np.unique(np.concatenate(every), return_inverse=True, return_counts=True)
        templates, weights = np.zeros((len(keys), self._width), np.float32), np.zeros(len(keys))
        several = np.flatnonzero(count > 1)
        extra = np.zeros((len(several), self._width))
        ends = np.cumsum([len(some) for some in every])
        while self._sums:
            of_part, sums, some = self._sums.pop()
            at = place[ends[len(self._sums)] - len(of_part) : ends[len(self._sums)]]
            alone = count[at] == 1
            templates[at[alone]] = unit(sums[alone])
            extra[np.searchsorted(several, at[~alone])] += sums[~alone]
            weights[at] += some
        templates[several] = unit(extra)
        return keys, templates, weights

    def _seen(self, rank: _Ints) -> tuple[_Ints, _Ints, _Ints]:
        """Return the keys of all tracks that have faces, and the first and last frame of each."""
        if not self._spans:
            nothing = np.zeros(0, np.int64)
            return nothing, nothing, nothing
        keys, first, last = (np.concatenate(some) for some in zip(*self._spans, strict=True))
        self._spans = []
        return _spans(_ranked(keys, rank), first, last)


def _ranked(keys: _Ints, rank: _Ints) -> _Ints:
    """Return keys with videos renumbered by rank."""
    video, track_id = unpacked(keys)
    ranked: _Ints = packed(rank[video], track_id)
    return ranked


def _grouped(keys: _Ints) -> tuple[_Ints, _Ints, _Ints]:
    """Return the distinct keys, the order that sorts rows by key, and where each key's rows begin in it."""
    order = np.argsort(keys, kind="stable")
    sorted_keys = keys[order]
    begins = np.flatnonzero(np.r_[True, sorted_keys[1:] != sorted_keys[:-1]])
    return sorted_keys[begins], order, begins


def _spans(keys: _Ints, first: _Ints, last: _Ints) -> tuple[_Ints, _Ints, _Ints]:
    distinct, order, begins = _grouped(keys)
    return distinct, np.minimum.reduceat(first[order], begins), np.maximum.reduceat(last[order], begins)
