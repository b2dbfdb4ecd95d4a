"""Persons. Find the vectors nearest to a vector, by comparing all pairs or, for many vectors, with an index.

Invariant: the same vectors in the same order have the same neighbours, regardless of the number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from featray.errors import UsageError, counted

EXACT_UP_TO: Final = 50_000
"""Largest number of vectors compared pair by pair: half a minute on two cores; time grows with the square."""

_BLOCK_BYTES: Final = 128 << 20
"""Memory for the similarities of one block."""

_LISTS_A_ROOT: Final = 4
"""The number of lists is this factor times the square root of the number of vectors, as faiss advises for a million."""

_SEARCHED: Final = 8
"""Lists searched per query vector."""

_STEPS: Final = 8
"""Iterations of k-means: the lists need not be optimal, and each iteration costs a third of the search."""

_TRAINED_ON: Final = 40
"""Training vectors per list: fewer are too few for faiss, and more do not change the result."""


class Neighbours(Protocol):
    """Vectors that can be searched for neighbours."""

    def pairs(
        self, queries: NDArray[np.float32], most: int, floor: float
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield blocks of pairs: the index of a query and the index of a vector near it.

        Args:
            queries: `[m, width]`, of length 1.
            most: maximum number of neighbours per query; the nearest are returned.
            floor: minimum cosine, accurate to about 1e-6.
        """
        ...


def neighbours(vectors: NDArray[np.float32], asked: int) -> Neighbours:
    """Prepare vectors for searching.

    Args:
        vectors: `[n, width]`, of length 1, to search.
        asked: number of queries that will follow.

    Raises:
        UsageError: there are too many vectors to compare all pairs, and faiss is not installed.
    """
    return AllPairs(vectors) if len(vectors) * asked <= EXACT_UP_TO**2 else InvertedLists(vectors)


class AllPairs:
    """Exact search that compares every vector."""

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        self._vectors = vectors

    def pairs(
        self, queries: NDArray[np.float32], most: int, floor: float
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield blocks of pairs as `Neighbours.pairs` does."""
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
    """Return the positions of at most `most` pairs per query, those with the largest cosines; queries are sorted."""
    begins = np.flatnonzero(np.r_[True, query[1:] != query[:-1]]) if len(query) else query
    if not len(query) or np.diff(np.r_[begins, len(query)]).max() <= most:
        return np.arange(len(query))
    order = np.lexsort((-cosine, query))
    rank = np.arange(len(query)) - np.repeat(begins, np.diff(np.r_[begins, len(query)]))
    return order[rank < most]


class InvertedLists:
    """Approximate search with faiss IndexIVFFlat, which searches only the lists whose centres are nearest."""

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
        """Yield blocks of pairs as `Neighbours.pairs` does; some of the nearest may be missed."""
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
            f"{counted(count, 'track')} are too many to compare all pairs (limit {EXACT_UP_TO:,}); install an index: "
            "pip install 'featray[persons]'"
        ) from None
    return faiss
