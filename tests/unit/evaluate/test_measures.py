"""Measures compared with scikit-learn, textbook layouts and planted values."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from featray.evaluate import measures as m

EXACT = 1e-9


@pytest.fixture
def rng():
    return np.random.default_rng(20260301)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_f1_is_scikit_learns(rng, share):
    truth, said = (rng.random(3000) < share).astype(float), (rng.random(3000) < share).astype(float)
    assert m.f1_of(m.f1_rows(truth, said).sum(0)) == pytest.approx(f1_score(truth, said), abs=EXACT)


def test_macro_f1_is_the_mean_over_units_that_have_one(rng):
    truth, said = (rng.random((4, 500)) < 0.2).astype(float), (rng.random((4, 500)) < 0.3).astype(float)
    truth[3], said[3] = 0, 0  # nothing to detect, and nothing detected: no F1
    counts = np.stack([m.f1_rows(t, s).sum(0) for t, s in zip(truth, said, strict=True)])
    expected = np.mean([f1_score(t, s) for t, s in zip(truth[:3], said[:3], strict=True)])
    assert np.isnan(m.f1_of(counts[3]))
    assert m.macro_f1_of(counts) == pytest.approx(expected, abs=EXACT)


def test_rows_without_a_label_add_nothing(rng):
    truth = np.array([1, 0, np.nan, 1, np.nan])
    said = np.array([1, 1, 1, 0, 0])
    assert m.f1_rows(truth, said).sum(0).tolist() == [1, 1, 1]
    assert m.confusion_rows(truth, said, 2).sum() == 3
    assert m.moment_rows(truth, said).sum(0)[0] == 3
    assert m.error_rows(truth).sum(0).tolist() == [2, 3]


@pytest.mark.parametrize("classes", [7, 3])
def test_emotions_are_scikit_learns(rng, classes):
    """A class that occurs in neither is left out of the mean, as in scikit-learn."""
    truth, said = rng.integers(0, classes, 800), rng.integers(0, classes, 800)
    matrix = m.confusion_rows(truth, said, 7).sum(0)
    np.testing.assert_array_equal(matrix[:, :7], confusion_matrix(truth, said, labels=range(7)))
    assert m.accuracy_of(matrix) == pytest.approx(accuracy_score(truth, said), abs=EXACT)
    assert m.class_macro_f1_of(matrix) == pytest.approx(f1_score(truth, said, average="macro"), abs=EXACT)


def test_nothing_said_is_wrong(rng):
    truth, said = rng.integers(0, 7, 400), rng.integers(0, 7, 400).astype(float)
    said[:100] = np.nan
    matrix = m.confusion_rows(truth, said, 7).sum(0)
    as_eighth = np.where(np.isnan(said), 7, said)
    assert m.accuracy_of(matrix) == pytest.approx(accuracy_score(truth, as_eighth), abs=EXACT)
    expected = f1_score(truth, as_eighth, average=None, labels=range(7))
    np.testing.assert_allclose(m.class_f1_of(matrix), expected, atol=EXACT)


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_ccc_is_lins(rng, offset):
    x = rng.normal(size=700) + offset
    y = 0.6 * (x - offset) + 0.5 * rng.normal(size=700) + 0.2 + offset
    expected = 2 * np.cov(x, y, bias=True)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
    assert m.ccc_of(m.moment_rows(x, y).sum(0)) == pytest.approx(expected, abs=EXACT)


def test_ccc_by_hand():
    """Means 2 and 3, variances 2/3, covariance 2/3: 2 * 2/3 / (2/3 + 2/3 + 1) = 4/7."""
    assert m.ccc_of(m.moment_rows([1, 2, 3], [2, 3, 4]).sum(0)) == pytest.approx(4 / 7, abs=EXACT)
    # ICC(3,1) ignores a constant difference between raters.
    assert m.icc_of(m.moment_rows([1, 2, 3], [2, 3, 4]).sum(0)) == pytest.approx(1, abs=EXACT)


def test_icc_is_that_of_the_analysis_of_variance(rng):
    """The mean squares of a two-way layout by Shrout and Fleiss, written out."""
    ratings = rng.normal(size=(50, 1)) + 0.7 * rng.normal(size=(50, 2)) + [0, 0.4]
    rows, raters, grand = ratings.mean(1), ratings.mean(0), ratings.mean()
    between = 2 * ((rows - grand) ** 2).sum() / 49
    error = ((ratings - rows[:, None] - raters + grand) ** 2).sum() / 49
    found = m.icc_of(m.moment_rows(*ratings.T).sum(0))
    assert found == pytest.approx((between - error) / (between + error), abs=EXACT)


@pytest.mark.parametrize("values", [[0.3] * 20, [0.3], []])
def test_what_does_not_vary_has_no_agreement(values):
    sums = m.moment_rows(values, values).sum(0)
    assert np.isnan(m.icc_of(sums)) and np.isnan(m.ccc_of(sums))


@pytest.mark.parametrize("angle", [0.0, 1e-7, 0.5, 7.05, 90, 179.9999, 180])
def test_angles_that_were_planted(angle, rng):
    axis = np.cross(gaze := rng.normal(size=3), rng.normal(size=3))
    axis, gaze = axis / np.linalg.norm(axis), gaze / np.linalg.norm(gaze)
    turned = np.cos(np.radians(angle)) * gaze + np.sin(np.radians(angle)) * np.cross(axis, gaze)
    assert m.angles_between_deg([3 * gaze], [0.1 * turned]) == pytest.approx([angle], abs=EXACT)


def test_a_vector_without_length_has_no_angle():
    assert np.isnan(m.angles_between_deg([[0, 0, 0]], [[0, 0, 1]])).all()


def test_turns_go_the_shorter_way():
    truth = np.radians([170, -10, 0])
    said = np.radians([-170, 20, 180])
    np.testing.assert_allclose(m.turn_deg(truth, said), [20, 30, 180], atol=EXACT)


def test_means_of_means_leave_out_what_has_no_rows():
    assert m.mean_of_means(np.array([[6.0, 3], [0, 0], [4, 1]])) == pytest.approx(3)
