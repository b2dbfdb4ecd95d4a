"""Persons. Cluster tracks with similar templates into persons, unless they are on screen at the same time.

The clustering is agglomerative and works in rounds. Each round finds the nearest neighbours of all cluster centres and
joins clusters along these pairs (`joining`) until no pair reaches the threshold. The next round searches neighbours of
the new centres. The clustering ends when a round joins nothing. Clusters are compared by their centres, so a chain of
look-alikes does not join two people.

The result is deterministic: it depends on the tracks alone and not on their order in files, because tracks are sorted
by key first and ties are broken by key.

Besides the tracks, memory is about 2 KB per track of 128 numbers: sums, the index, and pairs of neighbours.
Measurements are in tests/benchmarks/RESULTS.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from featray.faces.embedder import unit
from featray.persons.joining import at_once, blocks_of_groups, distinct, following, join, pair_keys, row_cosines
from featray.persons.neighbours import neighbours

NEIGHBOURS: Final = 16
"""Neighbours examined per cluster and round; rounds repeat until no pair is left to join."""


@dataclass(frozen=True)
class Tracks:
    """Tracks to cluster, in the order of their keys.

    Attributes:
        video: int64 `[n]`, number of the video of each track; numbers are in the order of `video_id`.
        track_id: int64 `[n]`, ascending within a video.
        start, end: int64 `[n]`, first and last frame with the track's face; below 2^32.
        templates: float32 `[n, width]`, of length 1.
        weights: float64 `[n]`, above 0: total quality of the embeddings in each template.
    """

    video: NDArray[np.int64]
    track_id: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    templates: NDArray[np.float32]
    weights: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.video)


def cluster(tracks: Tracks, threshold: float) -> NDArray[np.int64]:
    """Return the person of each track, int64 `[n]`: the position of the person's first track.

    Args:
        tracks: sorted by video and track.
        threshold: minimum cosine of the centres of two clusters that are one person.

    Raises:
        UsageError: there are too many tracks to compare all pairs, and no index is installed.
    """
    first = cluster_of = np.arange(len(tracks))
    apart = at_once(tracks.video, tracks.start, tracks.end)
    follow = following(tracks.video, tracks.start, tracks.end)
    centres = tracks.templates
    sums: NDArray[np.float32] | None = None
    while len(first) > 1:
        near = distinct(np.concatenate([_near(centres, threshold), follow]))
        if sums is None:
            sums = tracks.templates * tracks.weights[:, None].astype(np.float32)
        del centres
        to = join(sums, near, follow, apart, threshold)
        kept, number = np.unique(to, return_inverse=True)
        if len(kept) == len(first):
            break
        follow, apart = (distinct(_renumbered(keys, number, len(first), len(kept))) for keys in (follow, apart))
        sums, first, cluster_of = sums[kept], first[kept], number[cluster_of]
        centres = unit(sums)
    return first[cluster_of]


def _near(centres: NDArray[np.float32], threshold: float) -> NDArray[np.int64]:
    """Return the keys of pairs of centres that reach the threshold, among the nearest neighbours of each centre."""
    # Search slightly below the threshold: cosines are recomputed pair by pair, so their last digits do not depend on
    # how the search forms blocks.
    found = neighbours(centres, len(centres)).pairs(centres, NEIGHBOURS + 1, threshold - 1e-5)
    count = len(centres)
    return np.concatenate([pair_keys(one, other, count) for one, other in found])


def _renumbered(keys: NDArray[np.int64], number: NDArray[np.int64], before: int, now: int) -> NDArray[np.int64]:
    one, other = np.divmod(keys, before)
    return pair_keys(number[one], number[other], now)


@dataclass(frozen=True)
class Fit:
    """Fit of tracks to their persons.

    Attributes:
        similarity: float32 `[n]`, cosine of a track's template and its person's centre.
        margin: float32 `[n]`, similarity minus the cosine with the nearest other person's centre; NaN if there is no
            other person. If the index was used, it may have missed the nearest centre, so the margin may be too large.
    """

    similarity: NDArray[np.float32]
    margin: NDArray[np.float32]


def centres_of(tracks: Tracks, index: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the centres of persons, `[p, width]` of length 1.

    Args:
        tracks: all tracks.
        index: int `[n]`, person of each track, 0 to p - 1.
    """
    sums = np.empty((int(index.max()) + 1, tracks.templates.shape[1]), np.float32)
    for persons, some, begins in blocks_of_groups(index):
        weighted = tracks.templates[some] * tracks.weights[some, None]
        sums[persons] = np.add.reduceat(weighted, begins, axis=0)
    return unit(sums)


def fit(tracks: Tracks, person: NDArray[np.int64]) -> Fit:
    """Return how well tracks fit the persons that `cluster` returned.

    Raises:
        UsageError: as `cluster`.
    """
    index = np.unique(person, return_inverse=True)[1]
    nearest = np.full(len(tracks), np.nan, np.float32)
    if not len(tracks):
        return Fit(nearest, nearest)
    centres = centres_of(tracks, index)
    similarity = row_cosines(tracks.templates, centres, np.arange(len(tracks)), index)
    if len(centres) > 1:
        for track, other in neighbours(centres, len(tracks)).pairs(tracks.templates, 2, -2.0):
            beside = other != index[track]
            one, other = track[beside], other[beside]
            np.fmax.at(nearest, one, row_cosines(tracks.templates, centres, one, other))
    return Fit(similarity, similarity - nearest)
