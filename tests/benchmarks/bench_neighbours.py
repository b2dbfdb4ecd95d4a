"""Libraries for nearest neighbours compared: python tests/benchmarks/bench_neighbours.py LIBRARY N [THREADS].

LIBRARY is `faiss-ivf`, `faiss-hnsw`, `usearch`, `hnswlib` or `exact`; each is installed by hand, featray needs only
the first. Searches the 16 nearest of each of N made-up tracks (`made_up` of bench_persons): CPU seconds to build
and to search, peak memory, recall against exact search on 500 of them, and whether a second build finds the same.
"""

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from featray.persons.neighbours import AllPairs, InvertedLists
from tests.benchmarks.bench_persons import made_up

K = 16
ASKED = 500


def listed(index: AllPairs | InvertedLists, vectors: np.ndarray) -> np.ndarray:
    """Return neighbours in the format of the other libraries, `[n, K]`."""
    pairs = np.concatenate([np.stack(some, 1) for some in index.pairs(vectors, K, -2.0)])
    return pairs[:, 1].reshape(-1, K)


def faiss_ivf(vectors: np.ndarray, threads: int) -> Callable[[], np.ndarray]:
    """Build lists around centres of k-means, with the settings of featray."""
    import faiss

    faiss.omp_set_num_threads(threads)
    index = InvertedLists(vectors)
    return lambda: listed(index, vectors)


def faiss_hnsw(vectors: np.ndarray, threads: int) -> Callable[[], np.ndarray]:
    """Build a graph of 32 links, and search it as widely as the recall of the others requires."""
    import faiss

    faiss.omp_set_num_threads(threads)
    index = faiss.IndexHNSWFlat(vectors.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction, index.hnsw.efSearch = 80, 64
    index.add(vectors)
    return lambda: index.search(vectors, K)[1]


def usearch(vectors: np.ndarray, threads: int) -> Callable[[], np.ndarray]:
    """Build the same graph."""
    from usearch.index import Index

    index = Index(
        ndim=vectors.shape[1], metric="ip", dtype="f32", connectivity=32, expansion_add=80, expansion_search=64
    )
    index.add(np.arange(len(vectors)), vectors, threads=threads)
    return lambda: index.search(vectors, K, threads=threads).keys.astype(np.int64)


def hnswlib(vectors: np.ndarray, threads: int) -> Callable[[], np.ndarray]:
    """Build the same graph."""
    import hnswlib as library

    index = library.Index(space="ip", dim=vectors.shape[1])
    index.init_index(max_elements=len(vectors), ef_construction=80, M=32, random_seed=1)
    index.set_ef(64)
    index.add_items(vectors, num_threads=threads)
    return lambda: index.knn_query(vectors, K, num_threads=threads)[0].astype(np.int64)


def exact(vectors: np.ndarray, threads: int) -> Callable[[], np.ndarray]:
    """Search all pairs."""

    index = AllPairs(vectors)
    return lambda: listed(index, vectors)


LIBRARIES = {"faiss-ivf": faiss_ivf, "faiss-hnsw": faiss_hnsw, "usearch": usearch, "hnswlib": hnswlib, "exact": exact}


def main() -> None:
    """Measure one library, and print a line."""
    name, count, threads = sys.argv[1], int(sys.argv[2]), int((*sys.argv[3:], "2")[0])
    tracks, _ = made_up(count)
    vectors = tracks.templates
    before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.process_time()
    search = LIBRARIES[name](vectors, threads)
    built = time.process_time()
    found = search()
    searched = time.process_time()
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before_mb
    some = np.random.default_rng(0).choice(count, min(ASKED, count), replace=False)
    truth = np.argpartition(-(vectors[some] @ vectors.T), K, axis=1)[:, :K]
    recall = np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(found[some], truth, strict=True)])
    again = LIBRARIES[name](vectors, threads)()
    same = (np.sort(found, axis=1) == np.sort(again, axis=1)).all(axis=1).mean()
    print(
        f"{name}, {count:,} vectors, {threads} threads: CPU to build {built - start:.1f} s, "
        f"to search {searched - built:.1f} s, {peak_mb:,.0f} MB more, recall {recall:.4f}, "
        f"the same in a second build: {same:.2%} of the tracks",
        flush=True,
    )


if __name__ == "__main__":
    main()
