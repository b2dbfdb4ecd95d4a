"""Persons. Join clusters along the pairs of a graph, nearest first, except pairs that must stay apart.

In each step, every cluster chooses its nearest neighbour. Two clusters that choose each other are joined. Clusters that
chose one of the two join in the same step if they are as near to the centre of both; otherwise a person with ten
thousand tracks would take ten thousand steps. Then the centres and the cosines of the remaining pairs are recomputed.

A pair of clusters is one integer key, `lower number * count + higher number`, so pairs sort and compare as integers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from featray.faces.embedder import unit

PREFERENCE: Final = 0.01
"""Added to the cosine of two clusters when choosing the nearest neighbour, if tracks of the two follow each other in a
video: a cut within a scene shows the same people again, so they are preferred over equally similar strangers. It does
not count towards the threshold, because two people in a conversation follow each other all the time. Equal to the
margin below which a track is doubtful."""

FOLLOWING: Final = 4
"""Number of tracks that count as following a track's end: a cut may go to two other people and then back."""

_ROWS: Final = 1 << 16
"""Pairs of vectors in memory at once: 64 MB for 128 numbers each."""

_FRAMES: Final = 1 << 32
"""Upper bound on the frames of a video."""


def pair_keys(one: NDArray[np.int64], other: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return the keys of pairs of clusters, out of `count` clusters; pairs of a cluster with itself are dropped."""
    two = one != other
    one, other = one[two], other[two]
    return np.minimum(one, other) * count + np.maximum(one, other)


def distinct(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the distinct keys, sorted; `keys` is sorted in place."""
    keys.sort()
    return keys[np.r_[True, keys[1:] != keys[:-1]]] if len(keys) else keys


def at_once(video: NDArray[np.int64], start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the pairs of tracks that are on screen at the same time, as sorted keys.

    Args:
        video: int64 `[n]`, video of each track.
        start: int64 `[n]`, first frame of each track.
        end: int64 `[n]`, last frame of each track.
    """
    order, after = _in_time(video, start, end)
    return _pairs(order, np.arange(len(order)) + 1, after)


def following(video: NDArray[np.int64], start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the pairs where one track is among the next to begin in its video after the other ends, as sorted keys."""
    order, after = _in_time(video, start, end)
    of_video = np.searchsorted(video[order], video[order], side="right")
    return _pairs(order, after, np.minimum(after + FOLLOWING, of_video))


def _in_time(
    video: NDArray[np.int64], start: NDArray[np.int64], end: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return tracks in time order and, for each, the position of the first track that begins after its end."""
    order = np.lexsort((start, video))
    begins = video[order] * _FRAMES + start[order]
    return order, np.searchsorted(begins, video[order] * _FRAMES + end[order], side="right")


def _pairs(order: NDArray[np.int64], first: NDArray[np.int64], last: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pair each track with the tracks at positions `first` to `last`, exclusive."""
    counts = np.maximum(last - first, 0)
    one = np.repeat(np.arange(len(order)), counts)
    other = np.arange(len(one)) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
    return distinct(pair_keys(order[one], order[other], len(order)))


def row_cosines(
    left: NDArray[np.float32], right: NDArray[np.float32], one: NDArray[np.int64], other: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the dot products of rows, `[n]`; each is bit-identical whatever the other rows are.

    Args:
        left: float32 `[.., width]`.
        right: float32 `[.., width]`.
        one: int64 `[n]`, row indices into `left`.
        other: int64 `[n]`, row indices into `right`.
    """
    found = np.empty(len(one), np.float32)
    for begin in range(0, len(one), _ROWS):
        some = slice(begin, begin + _ROWS)
        found[some] = np.einsum("ij,ij->i", left[one[some]], right[other[some]])
    return found


def join(
    sums: NDArray[np.float32],
    near: NDArray[np.int64],
    follow: NDArray[np.int64],
    apart: NDArray[np.int64],
    threshold: float,
) -> NDArray[np.int64]:
    """Join clusters, and return the cluster that each is now part of, int64 `[m]`: the lowest number in it.

    Args:
        sums: float32 `[m, width]`, sums of the clusters' templates. Modified in place: the sum of a cluster that grew
            covers all its members; the sum of a cluster that was joined into another is undefined.
        near: keys of pairs that may be joined.
        follow: keys of pairs whose tracks follow each other in a video.
        apart: keys of pairs that must not be joined, directly or through the clusters that they become part of.
        threshold: minimum cosine of the centres of clusters that are joined.
    """
    count = len(sums)
    to = np.arange(count)
    near = _without(near, apart)
    cosine = _cosines(sums, near, count)
    while True:
        alike = cosine >= threshold
        edges = near[alike]
        preferred = np.where(_among(edges, follow), np.float32(PREFERENCE), np.float32(0))
        partner, value = _partners(edges, cosine[alike] + preferred, count)
        goes = _stars(sums, partner, value, apart, threshold)
        moved = np.flatnonzero(goes != np.arange(count))
        if not len(moved):
            return to
        grown = _add(sums, moved, goes)
        to = goes[to]
        near, cosine = _contracted(near, cosine, goes, count)
        follow, apart = (distinct(_moved(keys, goes, count)) for keys in (follow, apart))
        allowed = ~_among(near, apart)
        near, cosine = near[allowed], cosine[allowed]
        changed = grown[near // count] | grown[near % count]
        cosine[changed] = _cosines(sums, near[changed], count)


def _partners(
    edges: NDArray[np.int64], value: NDArray[np.float32], count: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the nearest neighbour of each cluster, int64 `[count]` (itself if it has none), and its value."""
    one, other = np.divmod(edges, count)
    best = np.full(count, -np.inf, np.float32)
    for end in (one, other):
        np.maximum.at(best, end, value)
    # Break ties pseudo-randomly: if ties were broken by number, equal tracks would join one by one.
    lot = _mixed(edges)
    drawn = np.full(count, np.iinfo(np.uint64).max)
    for end in (one, other):
        top = value == best[end]
        np.minimum.at(drawn, end[top], lot[top])
    partner = np.arange(count)
    for end, across in ((one, other), (other, one)):
        chosen = (value == best[end]) & (lot == drawn[end])
        partner[end[chosen]] = across[chosen]
    return partner, best


def _stars(
    sums: NDArray[np.float32],
    partner: NDArray[np.int64],
    value: NDArray[np.float32],
    apart: NDArray[np.int64],
    threshold: float,
) -> NDArray[np.int64]:
    """Return the cluster that each is now part of, int64 `[count]`: the lowest number in it."""
    own = np.arange(len(sums))
    mutual = (partner != own) & (partner[partner] == own)
    goes = np.where(mutual, np.minimum(own, partner), own)
    attached = np.flatnonzero(~mutual & (partner != own) & mutual[partner])
    attached = attached[_near_both(sums, attached, partner, threshold)]
    goes[attached] = goes[partner[attached]]
    nearness = np.where(mutual, np.float32(np.inf), value)
    left, right = np.divmod(apart, len(sums))
    clash = goes[left] == goes[right]
    left, right = left[clash], right[clash]
    later = np.where(nearness[left] >= nearness[right], right, left)
    goes[later] = later
    lowest = own.copy()
    np.minimum.at(lowest, goes, own)
    return lowest[goes]


def _near_both(
    sums: NDArray[np.float32], attached: NDArray[np.int64], partner: NDArray[np.int64], threshold: float
) -> NDArray[np.bool_]:
    """Return which clusters are near the joint centre of their partner and the partner's partner."""
    near = np.empty(len(attached), np.bool_)
    for begin in range(0, len(attached), _ROWS):
        one = attached[begin : begin + _ROWS]
        both = unit(sums[partner[one]] + sums[partner[partner[one]]])
        near[begin : begin + _ROWS] = np.einsum("ij,ij->i", unit(sums[one]), both) >= threshold
    return near


def _mixed(keys: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Map keys to distinct pseudo-random numbers with the last steps of splitmix64 (Steele et al., OOPSLA 2014)."""
    mixed = keys.astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed ^= mixed >> np.uint64(shift)
        mixed *= np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def _add(sums: NDArray[np.float32], moved: NDArray[np.int64], goes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Add the sums of joined clusters to their targets; return which clusters grew."""
    for targets, some, begins in blocks_of_groups(goes[moved]):
        sums[targets] += np.add.reduceat(sums[moved[some]], begins, axis=0)
    grown = np.zeros(len(sums), np.bool_)
    grown[goes[moved]] = True
    return grown


def blocks_of_groups(
    group: NDArray[np.int64],
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """Yield whole groups, in order, in blocks of about `_ROWS` members.

    Args:
        group: int64 `[n]`, group of each member.

    Yields:
        The groups of a block, the positions of their members, group by group, and where each group begins in these.
    """
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(group[order]) != 0]) if len(order) else order
    bounds = np.r_[starts, len(order)]
    step = max(1, len(starts) * _ROWS // max(len(order), 1))
    for begin in range(0, len(starts), step):
        end = min(begin + step, len(starts))
        yield group[order[starts[begin:end]]], order[bounds[begin] : bounds[end]], bounds[begin:end] - bounds[begin]


def _cosines(sums: NDArray[np.float32], keys: NDArray[np.int64], count: int) -> NDArray[np.float32]:
    """Return the cosines of the centres of pairs."""
    one, other = np.divmod(keys, count)
    square = np.empty(len(sums), np.float32)
    for begin in range(0, len(sums), _ROWS):
        some = sums[begin : begin + _ROWS]
        square[begin : begin + _ROWS] = np.einsum("ij,ij->i", some, some)
    length = np.sqrt(np.maximum(square, 1e-24))
    cosine: NDArray[np.float32] = row_cosines(sums, sums, one, other) / (length[one] * length[other])
    return cosine


def _moved(keys: NDArray[np.int64], goes: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    one, other = np.divmod(keys, count)
    return pair_keys(goes[one], goes[other], count)


def _contracted(
    keys: NDArray[np.int64], cosine: NDArray[np.float32], goes: NDArray[np.int64], count: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the distinct pairs between the joined clusters; their cosines are those from before the join."""
    one, other = (goes[end] for end in np.divmod(keys, count))
    two = one != other
    keys, cosine = np.minimum(one, other)[two] * count + np.maximum(one, other)[two], cosine[two]
    order = np.argsort(keys, kind="stable")
    keys, cosine = keys[order], cosine[order]
    new = np.r_[True, keys[1:] != keys[:-1]] if len(keys) else np.zeros(0, np.bool_)
    return keys[new], cosine[new]


def _among(keys: NDArray[np.int64], some: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which keys are in `some`, which is sorted."""
    if not len(some):
        return np.zeros(len(keys), np.bool_)
    place = np.minimum(np.searchsorted(some, keys), len(some) - 1)
    found: NDArray[np.bool_] = some[place] == keys
    return found


def _without(keys: NDArray[np.int64], some: NDArray[np.int64]) -> NDArray[np.int64]:
    return keys[~_among(keys, some)]
