"""Persons. Which vectors are nearest to a vector: all of them are looked at, or, where they are many, lists of some.

What must stay true: the same vectors in the same order give the same neighbours, however many threads there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from featray.errors import UsageError

EXACT_UP_TO: Final = 50_000
"""Vectors that are compared pair by pair: half a minute on two cores, and more by the square of their number."""

_BLOCK_BYTES: Final = 128 << 20
"""Similarities that are in memory at once."""

_LISTS_A_ROOT: Final = 4
"""So many times the square root of the number of vectors is the number of lists: as faiss advises for a million."""

_SEARCHED: Final = 8
"""Lists that are searched for a vector's neighbours."""

_STEPS: Final = 8
"""Of k-means: the lists need not be the best ones, and each step costs as much as a third of the search."""

_TRAINED_ON: Final = 40
"""Vectors a list that the lists are made from: fewer are too few for faiss, more change no result."""


class Neighbours(Protocol):
    """Vectors among which neighbours are looked for."""

    def pairs(
        self, queries: NDArray[np.float32], most: int, floor: float
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield pairs of the number of a query and the number of a vector that is near it, in blocks.

        Args:
            queries: `[m, width]`, of length 1.
            most: so many of a query, the nearest ones.
            floor: only those with this cosine and more; it is met to some 1e-6.
        """
        ...


def neighbours(vectors: NDArray[np.float32], asked: int) -> Neighbours:
    """Make vectors `[n, width]` of length 1 ready to be searched.

    Args:
        vectors: among which neighbours are looked for.
        asked: for how many vectors they will be.

    Raises:
        UsageError: there are too many to compare each with each, and faiss is not installed.
    """
    return AllPairs(vectors) if len(vectors) * asked <= EXACT_UP_TO**2 else InvertedLists(vectors)


class AllPairs:
    """Every vector is looked at."""

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        self._vectors = vectors

    def pairs(
        self, queries: NDArray[np.float32], most: int, floor: float
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield pairs as the Protocol says."""
        count = len(self._vectors)
        rows = max(1, _BLOCK_BYTES // (4 * max(count, 1)))
        for start in range(0, len(queries), rows):
            cosine = queries[start : start + rows] @ self._vectors.T
            if floor <= -1 and count > most:
                vector = np.argpartition(cosine, count - most, axis=1)[:, count - most :].ravel()
                yield np.repeat(np.arange(start, start + len(cosine)), most), vector
                continue
            query, vector = np.nonzero(cosine >= floor)
            kept = _nearest(query, cosine[query, vector], most)
            yield query[kept] + start, vector[kept]


def _nearest(query: NDArray[np.int64], cosine: NDArray[np.float32], most: int) -> NDArray[np.int64]:
    """Places of at most so many pairs of each query, those with the largest cosine; queries are in order."""
    begins = np.flatnonzero(np.r_[True, query[1:] != query[:-1]]) if len(query) else query
    if not len(query) or np.diff(np.r_[begins, len(query)]).max() <= most:
        return np.arange(len(query))
    order = np.lexsort((-cosine, query))
    rank = np.arange(len(query)) - np.repeat(begins, np.diff(np.r_[begins, len(query)]))
    return order[rank < most]


class InvertedLists:
    """Vectors in lists around centres, of which the nearest few are searched: faiss, IndexIVFFlat."""

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        faiss = _faiss(len(vectors))
        count, width = vectors.shape
        lists = max(1, min(round(_LISTS_A_ROOT * count**0.5), count // _TRAINED_ON))
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, lists, faiss.METRIC_INNER_PRODUCT)
        index.cp.max_points_per_centroid = _TRAINED_ON
        index.cp.niter = _STEPS
        index.cp.seed = 1
        index.train(vectors)
        index.add(vectors)
        index.nprobe = min(_SEARCHED, lists)
        self._index = index

    def pairs(
        self, queries: NDArray[np.float32], most: int, floor: float
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield pairs as the Protocol says; of the nearest, some may be missed."""
        rows = max(1, _BLOCK_BYTES // (12 * most))
        for start in range(0, len(queries), rows):
            cosine, found = self._index.search(queries[start : start + rows], most)
            query, place = np.nonzero((found >= 0) & (cosine >= floor))
            yield query + start, found[query, place]


def _faiss(count: int) -> Any:
    try:
        import faiss
    except ImportError:
        raise UsageError(
            f"{count:,} tracks are too many to compare each with each (up to {EXACT_UP_TO:,} are); install an index: "
            "pip install 'featray[persons]'"
        ) from None
    return faiss
