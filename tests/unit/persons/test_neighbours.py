"""The index of lists finds nearly all neighbours of exact search, and the same ones with any number of threads."""

import sys

import numpy as np
import pytest

from featray.errors import UsageError
from featray.faces.embedder import unit
from featray.persons import neighbours as module
from featray.persons.agreement import agreement
from featray.persons.cluster import cluster, fit
from featray.persons.neighbours import AllPairs, InvertedLists, neighbours
from tests.fixtures.made_tracks import crowd, groups


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(4)
    people = np.repeat(unit(rng.normal(size=(150, 32))), 20, axis=0)
    return unit(people + 0.5 * rng.normal(size=people.shape) / 32**0.5)


def found(index, vectors, most, floor):
    return {
        pair
        for one, other in index.pairs(vectors, most, floor)
        for pair in zip(one.tolist(), other.tolist(), strict=True)
    }


def test_exact_search_by_hand(vectors):
    cosine = vectors @ vectors.T
    nearest = {(i, j) for i, row in enumerate(np.argsort(-cosine, axis=1)[:, :5]) for j in row.tolist()}
    assert found(AllPairs(vectors), vectors, 5, -2.0) == nearest
    assert found(AllPairs(vectors), vectors, 5, 0.8) == {(i, j) for i, j in nearest if cosine[i, j] >= 0.8}
    assert found(AllPairs(vectors[:3]), vectors[:2], 7, -2.0) == {(i, j) for i in range(2) for j in range(3)}


def test_lists_miss_little_and_threads_do_not_count(vectors):
    faiss = pytest.importorskip("faiss", reason="needs the extra persons")
    exact, before = found(AllPairs(vectors), vectors, 10, 0.5), faiss.omp_get_max_threads()
    try:
        several = []
        for threads in (1, 2, 3):
            faiss.omp_set_num_threads(threads)
            several.append(found(InvertedLists(vectors), vectors, 10, 0.5))
    finally:
        faiss.omp_set_num_threads(before)
    assert several[0] == several[1] == several[2] and len(several[0] & exact) > 0.97 * len(exact)


def test_persons_are_the_same_by_lists(monkeypatch):
    pytest.importorskip("faiss", reason="needs the extra persons")
    tracks, truth = crowd(3, 60, 20, 0.7)
    exact = cluster(tracks, 0.6)
    monkeypatch.setattr(module, "EXACT_UP_TO", 100)
    assert isinstance(neighbours(tracks.templates, len(tracks)), InvertedLists)
    listed = cluster(tracks, 0.6)
    assert agreement(listed, truth).b_cubed_f > 0.99 and len(groups(listed) & groups(exact)) > 55
    margin, exact_margin = fit(tracks, listed).margin, fit(tracks, exact).margin
    assert np.isfinite(margin).all() and np.corrcoef(margin, exact_margin)[0, 1] > 0.9


def test_without_the_index_many_tracks_are_one_line(monkeypatch, vectors):
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setattr(module, "EXACT_UP_TO", 100)
    with pytest.raises(UsageError, match=r"3,000 tracks are too many .* pip install 'featray\[persons\]'"):
        neighbours(vectors, len(vectors))
