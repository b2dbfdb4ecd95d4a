"""Persons. From rows of `embeddings` and `faces` to one template a track, a file at a time.

A template is the mean of a track's embeddings, weighted by their quality, scaled to length 1. Memory is that of the
templates: some 600 bytes a track at 128 numbers, and one file's rows.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featray.faces.embedder import unit
from featray.persons.cluster import Tracks
from featray.persons.naming import Key

EMBEDDING_COLUMNS = ("video_id", "track_id", "quality", "embedding")
FACE_COLUMNS = ("video_id", "track_id", "frame_index")


class Templates:
    """Adds up embeddings by track, and notes when tracks are on screen."""

    def __init__(self) -> None:
        self._sums: dict[Key, NDArray[np.float64]] = {}
        self._weights: dict[Key, float] = {}
        self._spans: dict[Key, tuple[int, int]] = {}
        self._width = 0

    def add_embeddings(self, rows: pa.Table) -> None:
        """Add rows with EMBEDDING_COLUMNS.

        Raises:
            ValueError: their embeddings are not all of one width, or no numbers.
        """
        if not rows.num_rows:
            return
        vectors = rows["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        vectors = vectors.reshape(rows.num_rows, -1).astype(np.float64)
        quality = rows["quality"].to_numpy().astype(np.float64)
        if not (np.isfinite(vectors).all() and np.isfinite(quality).all()):
            raise ValueError("an embedding or its quality is no number")
        self._width = self._width or vectors.shape[1]
        if vectors.shape[1] != self._width:
            raise ValueError(f"embeddings of {vectors.shape[1]} numbers, where others have {self._width}")
        keys = list(zip(rows["video_id"].to_pylist(), rows["track_id"].to_pylist(), strict=True))
        known = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        place = np.array([known[key] for key in keys])
        sums, weights = np.zeros((len(known), vectors.shape[1])), np.zeros(len(known))
        np.add.at(sums, place, vectors * quality[:, None])
        np.add.at(weights, place, quality)
        for key, i in known.items():
            before = self._sums.get(key)
            self._sums[key] = sums[i] if before is None else before + sums[i]
            self._weights[key] = self._weights.get(key, 0.0) + float(weights[i])

    def add_faces(self, rows: pa.Table) -> None:
        """Add rows with FACE_COLUMNS."""
        grouped = rows.group_by(["video_id", "track_id"]).aggregate([("frame_index", "min"), ("frame_index", "max")])
        names = ("video_id", "track_id", "frame_index_min", "frame_index_max")
        for video, track, first, last in zip(*(grouped[name].to_pylist() for name in names), strict=True):
            start, end = self._spans.get((video, track), (first, last))
            self._spans[video, track] = min(start, first), max(end, last)

    def tracks(self) -> tuple[list[Key], Tracks]:
        """Return the tracks that have an embedding, sorted, with their keys."""
        keys = sorted(self._sums)
        videos = {video: i for i, video in enumerate(sorted({key[0] for key in keys}))}
        spans = np.array([self._spans.get(key, (0, 0)) for key in keys], np.int64).reshape(-1, 2)
        sums = np.array([self._sums[key] for key in keys]) if keys else np.zeros((0, 1))
        return keys, Tracks(
            video=_ints(videos[key[0]] for key in keys),
            track_id=_ints(key[1] for key in keys),
            start=spans[:, 0],
            end=spans[:, 1],
            templates=unit(sums),
            weights=np.array([self._weights[key] for key in keys], np.float64),
        )

    @property
    def without(self) -> int:
        """Tracks without an embedding: none of their faces was seen well enough at the right time."""
        return len(self._spans.keys() - self._sums.keys())


def _ints(values: Iterable[int]) -> NDArray[np.int64]:
    return np.fromiter(values, np.int64)
