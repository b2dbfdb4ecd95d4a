"""Tracks of one person are joined, tracks on screen at once never are, and the order of the work has no effect."""

from dataclasses import fields

import numpy as np
import pytest

from featray.faces.embedder import unit
from featray.persons import cluster as module
from featray.persons import joining, neighbours
from featray.persons.agreement import agreement
from featray.persons.cluster import Tracks, cluster, fit
from tests.fixtures.made_tracks import crowd, groups, tracks


def test_people_are_found():
    found, truth = crowd(1, 60, 12, 0.6)
    result = agreement(cluster(found, 0.6), truth)
    assert result.b_cubed_f > 0.99 and result.precision > 0.99 and result.recall > 0.99


def test_the_order_of_tracks_does_not_count():
    found, _ = crowd(2, 30, 8, 0.9)
    order = np.random.default_rng(5).permutation(len(found))
    shuffled = Tracks(*(getattr(found, field.name)[order] for field in fields(Tracks)))
    before = groups(cluster(found, 0.55))
    after = {tuple(sorted(order[list(group)])) for group in groups(cluster(shuffled, 0.55))}
    assert after == before and 30 < len(before) < 240


def test_blocks_and_rounds_do_not_count(monkeypatch):
    found, _ = crowd(3, 20, 10, 0.7)
    whole = groups(cluster(found, 0.6))
    monkeypatch.setattr(neighbours, "_BLOCK_BYTES", 4 * 7 * len(found))
    monkeypatch.setattr(joining, "_ROWS", 7)
    assert groups(cluster(found, 0.6)) == whole
    monkeypatch.setattr(module, "NEIGHBOURS", 3)
    assert groups(cluster(found, 0.6)) == whole


def test_two_that_are_on_screen_at_once_are_never_one():
    same = np.tile(unit(np.ones((1, 8))), (4, 1))
    at_once = tracks(same, video=[0, 0, 0, 1], start=[0, 5, 6, 0], end=[5, 9, 9, 9])
    person = cluster(at_once, 0.9)
    assert person[0] != person[1] and person[1] != person[2] and len(np.unique(person)) == 2
    after = tracks(same, video=[0, 0, 0, 1], start=[0, 6, 12, 0], end=[5, 11, 19, 9])
    assert len(np.unique(cluster(after, 0.9))) == 1


def test_what_was_joined_keeps_apart_what_its_parts_keep_apart():
    """0 and 1 are joined first; then 2, which was on screen with 1, is as near to them as possible."""
    a = unit(np.array([[1.0, 0.0], [1.0, 0.001], [1.0, 0.01]]))
    found = tracks(a, video=[0, 1, 1], start=[0, 0, 3], end=[5, 5, 9])
    person = cluster(found, 0.9)
    assert person.tolist() == [0, 0, 2]


def test_a_chain_of_look_alikes_is_not_one_person():
    angles = np.deg2rad([0, 20, 40, 60, 80])
    chain = np.column_stack([np.cos(angles), np.sin(angles)])
    assert len(np.unique(cluster(tracks(chain), np.cos(np.deg2rad(21))))) > 1


def test_who_is_in_the_same_scene_goes_before_a_stranger_who_is_as_near():
    """Track 1 is a little nearer to 2, of another video, than to 0, which it follows; 0 and 2 are not similar."""
    angles = np.deg2rad([0, 20, 39])
    found = np.column_stack([np.cos(angles), np.sin(angles)])
    threshold = np.cos(np.deg2rad(22))
    assert cluster(tracks(found, video=[0, 1, 2]), threshold).tolist() == [0, 1, 1]
    one_scene = tracks(found, video=[0, 0, 1], start=[0, 6, 0])
    assert cluster(one_scene, threshold).tolist() == [0, 0, 2]


def test_many_equal_tracks_are_joined_in_few_steps(monkeypatch):
    """Copies of one video are at equal distances; if ties were broken by number, each step would join only two."""
    steps = []
    stars = joining._stars
    monkeypatch.setattr(joining, "_stars", lambda *some: steps.append(1) or stars(*some))
    assert set(cluster(tracks(np.tile(unit(np.ones((1, 8))), (2000, 1))), 0.9).tolist()) == {0}
    assert len(steps) < 60


@pytest.mark.parametrize("count", [0, 1])
def test_few_tracks(count):
    few = tracks(np.ones((count, 4)) / 2)
    assert cluster(few, 0.9).tolist() == list(range(count))
    assert np.isnan(fit(few, cluster(few, 0.9)).margin).all()


def test_how_well_they_fit():
    found = tracks(unit(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])))
    result = fit(found, np.array([0, 0, 2]))
    assert result.similarity.tolist() == [1, 1, 1] and result.margin.tolist() == [1, 1, 1]
    worse = fit(found, np.array([0, 1, 0]))
    half = 0.5**0.5
    assert np.allclose(worse.similarity, [half, 1, half]) and np.allclose(worse.margin, [half - 1, 1 - half, half])
