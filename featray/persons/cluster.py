"""Persons. Tracks with similar templates become one person, unless they were on screen at once.

Agglomerative: the most similar pair of clusters is joined first, and clusters are compared by their centres, so that a
chain of look-alikes does not join two people. Deterministic: the result follows from the tracks alone, whatever their
order, since they are sorted by their keys first and ties are settled by them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from featray.faces.embedder import unit

NEIGHBOURS: Final = 32
"""So many neighbours of a cluster are looked at in a round; rounds go on until none is left to join."""

_BLOCK: Final = 2048
"""Rows whose similarities to all others are in memory at once: 2048 x a million x 4 bytes are 8 GB, so less then."""

_BLOCK_BYTES: Final = 256 << 20


@dataclass(frozen=True)
class Tracks:
    """Tracks to be told apart, in the order of their keys.

    Attributes:
        video: int64 `[n]`, which video each is of; numbers are in the order of `video_id`.
        track_id: int64 `[n]`, ascending within a video.
        start, end: int64 `[n]`, first and last frame with its face.
        templates: float32 `[n, width]`, of length 1.
        weights: float64 `[n]`, above 0: how much each rests on.
    """

    video: NDArray[np.int64]
    track_id: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    templates: NDArray[np.float32]
    weights: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.video)


class _Clusters:
    """Clusters that grow: their sums, and when their tracks are on screen."""

    def __init__(self, tracks: Tracks) -> None:
        self.of = np.arange(len(tracks))
        self.sums = tracks.templates * tracks.weights[:, None]
        self._spans: list[dict[int, list[tuple[int, int]]]] = [
            {video: [(start, end)]}
            for video, start, end in zip(tracks.video.tolist(), tracks.start.tolist(), tracks.end.tolist(), strict=True)
        ]

    def root(self, i: int) -> int:
        while self.of[i] != i:
            self.of[i] = self.of[self.of[i]]
            i = int(self.of[i])
        return i

    def similarity(self, one: int, other: int) -> float:
        a, b = self.sums[one], self.sums[other]
        return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))

    def may_join(self, one: int, other: int) -> bool:
        """Return whether no track of the one is on screen at the same time as one of the other."""
        here, there = self._spans[one], self._spans[other]
        if len(here) > len(there):
            here, there = there, here
        return not any(
            start <= last and first <= end
            for video, spans in here.items()
            for first, last in there.get(video, ())
            for start, end in spans
        )

    def join(self, one: int, other: int) -> int:
        """Join two roots; the lower number stays."""
        keep, gone = min(one, other), max(one, other)
        self.of[gone] = keep
        self.sums[keep] += self.sums[gone]
        for video, spans in self._spans[gone].items():
            self._spans[keep].setdefault(video, []).extend(spans)
        self._spans[gone] = {}
        return keep


def cluster(tracks: Tracks, threshold: float) -> NDArray[np.int64]:
    """Return which person each track is of, int64 `[n]`: the position of the person's first track.

    Args:
        tracks: sorted by video and track.
        threshold: cosine of two clusters' centres from which on they are one person.
    """
    clusters = _Clusters(tracks)
    joined = True
    while joined:
        roots = np.flatnonzero(clusters.of == np.arange(len(tracks)))
        centres = unit(clusters.sums[roots])
        joined = False
        for one, other in _closest_first(centres, threshold):
            a, b = clusters.root(int(roots[one])), clusters.root(int(roots[other]))
            if a != b and clusters.similarity(a, b) >= threshold and clusters.may_join(a, b):
                clusters.join(a, b)
                joined = True
    return np.array([clusters.root(i) for i in range(len(tracks))], np.int64)


def _closest_first(centres: NDArray[np.float32], threshold: float) -> Iterator[tuple[int, int]]:
    """Yield pairs of centres with at least this cosine, the most similar first, ties by number."""
    found = [pairs for block in _blocks(len(centres)) if len(pairs := _near(centres, block, threshold))]
    if not found:
        return
    pairs = np.concatenate(found)
    pairs = pairs[np.lexsort((pairs["other"], pairs["one"], -pairs["cosine"]))]
    yield from zip(pairs["one"].tolist(), pairs["other"].tolist(), strict=True)


_PAIR: Final = np.dtype([("one", np.int64), ("other", np.int64), ("cosine", np.float32)])


def _near(centres: NDArray[np.float32], block: slice, threshold: float) -> NDArray[np.void]:
    """Pairs of a block's centres and those behind them, of each the nearest `NEIGHBOURS`."""
    cosine = centres[block] @ centres[block.start :].T
    rows = np.arange(cosine.shape[0])
    cosine[np.tri(*cosine.shape, dtype=np.bool_)] = -1
    if cosine.shape[1] > NEIGHBOURS:
        kept = np.argpartition(-cosine, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    else:
        kept = np.broadcast_to(np.arange(cosine.shape[1]), cosine.shape)
    values = cosine[rows[:, None], kept]
    one, place = np.nonzero(values >= threshold)
    pairs = np.empty(len(one), _PAIR)
    pairs["one"], pairs["other"], pairs["cosine"] = (
        one + block.start,
        kept[one, place] + block.start,
        values[one, place],
    )
    return pairs


def _blocks(count: int) -> Iterator[slice]:
    rows = max(1, min(_BLOCK, _BLOCK_BYTES // (4 * max(count, 1))))
    return (slice(start, min(start + rows, count)) for start in range(0, count, rows))


@dataclass(frozen=True)
class Fit:
    """How well tracks fit their persons.

    Attributes:
        similarity: float32 `[n]`, cosine of a track's template and its person's centre.
        margin: float32 `[n]`, that minus the cosine with the nearest other person's centre; NaN if there is none.
    """

    similarity: NDArray[np.float32]
    margin: NDArray[np.float32]


def fit(tracks: Tracks, person: NDArray[np.int64]) -> Fit:
    """Return how well tracks fit the persons that `cluster` gave."""
    roots, index = np.unique(person, return_inverse=True)
    sums = np.zeros((len(roots), tracks.templates.shape[1]))
    np.add.at(sums, index, tracks.templates * tracks.weights[:, None])
    centres = unit(sums)
    similarity = np.empty(len(tracks), np.float32)
    margin = np.full(len(tracks), np.nan, np.float32)
    for block in _blocks(len(tracks)):
        cosine = tracks.templates[block] @ centres.T
        rows, own = np.arange(len(cosine)), index[block]
        similarity[block] = cosine[rows, own]
        if len(roots) > 1:
            cosine[rows, own] = -np.inf
            margin[block] = similarity[block] - cosine.max(axis=1)
    return Fit(similarity, margin)
