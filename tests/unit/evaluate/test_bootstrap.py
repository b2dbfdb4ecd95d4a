"""Intervals contain the true value as often as they state; resampling draws whole subjects."""

from __future__ import annotations

import numpy as np
import pytest

from featray.evaluate import measures as m
from featray.evaluate.bootstrap import FEW_SUBJECTS, correlation_interval, interval, resample, sum_by


def test_sums_are_by_subject():
    rows = np.arange(24, dtype=float).reshape(4, 3, 2)
    sums = sum_by(rows, np.array([2, 0, 2, 2]), 4)
    assert sums.shape == (4, 6)
    np.testing.assert_array_equal(sums[2], rows[[0, 2, 3]].sum(0).ravel())
    assert not sums[[1, 3]].any()


def test_a_resample_is_of_whole_subjects():
    """With subjects of 1, 10 and 100 rows, the digits of a resample's count show how often each was drawn."""
    counts = resample(np.array([[1.0], [10], [100]]), 4000, seed=3)[:, 0].astype(int)
    times = np.stack([counts // 10**k % 10 for k in range(3)])
    assert set(times.sum(0)) == {3}
    np.testing.assert_allclose(times.mean(1), 1, atol=0.06)
    assert (counts == resample(np.array([[1.0], [10], [100]]), 4000, seed=3)[:, 0]).all()


def test_no_interval_where_there_is_none_to_be_had():
    assert interval(np.zeros(100), subjects=1) is None
    assert interval(np.where(np.arange(100) < 60, np.nan, 1.0), subjects=9) is None
    assert interval(np.where(np.arange(100) < 40, np.nan, 1.0), subjects=9) == (1.0, 1.0)


def _ccc(rng, subjects):
    """Return ratings of people who differ in level: the CCC of all is 2 (1 + 0.3) / (2 (1 + 0.3 + 0.2))."""
    level = rng.normal(size=(subjects, 1))
    shared = level + np.sqrt(0.3) * rng.normal(size=(subjects, 30))
    x, y = (shared + np.sqrt(0.2) * rng.normal(size=(subjects, 30)) for _ in "xy")
    return m.moment_rows(x.ravel(), y.ravel()).reshape(subjects, 30, 6).sum(1), m.ccc_of, 1.3 / 1.5


def _f1(rng, subjects):
    """Return counts of a unit present in 30 % of frames, detected in 80 % of those and in 10 % of the others.

    People differ in their number of frames.
    """
    frames = rng.integers(20, 60, subjects)
    there = rng.binomial(frames, 0.3)
    hits, false = rng.binomial(there, 0.8), rng.binomial(frames - there, 0.1)
    return np.stack([hits, false, there - hits], 1).astype(float), m.f1_of, 0.48 / (0.48 + 0.07 + 0.06)


def _error(rng, subjects):
    """Return angular errors: people differ in their mean, which is 7° overall."""
    own = 7 + 2 * rng.normal(size=(subjects, 1)) + rng.normal(size=(subjects, 25))
    return m.error_rows(own.ravel()).reshape(subjects, 25, 2).sum(1), m.mean_of, 7.0


def _coverage(make, subjects, trials, resamples, seed=11):
    rng, held = np.random.default_rng(seed), 0
    for trial in range(trials):
        sums, value, truth = make(rng, subjects)
        if make is _ccc:
            low, high = correlation_interval(sums, value, resamples, seed=trial)
        else:
            low, high = interval(value(resample(sums, resamples, seed=trial)), subjects)
        held += low <= truth <= high
    return held / trials


def test_a_correlation_has_no_interval_where_nothing_varies():
    same = m.moment_rows(np.ones(9), np.ones(9))
    assert correlation_interval(same, m.ccc_of, 50) is None


def test_both_intervals_of_a_correlation_agree_where_subjects_are_many():
    sums, value, _ = _ccc(np.random.default_rng(5), 200)
    plain = interval(value(resample(sums, 1000)), 200)
    assert correlation_interval(sums, value, 1000) == pytest.approx(plain, abs=0.01)


@pytest.mark.parametrize("make", [_ccc, _f1, _error])
def test_fewer_subjects_than_the_warning_asks_for_give_intervals_that_are_too_narrow(make):
    assert _coverage(make, 2, trials=150, resamples=200) < 0.6
    assert _coverage(make, FEW_SUBJECTS + 1, trials=150, resamples=200) > 0.8


@pytest.mark.parametrize("make", [_ccc, _f1, _error])
def test_intervals_hold_the_truth(make):
    """Nine subjects, as in DISFA+: nominally 95 %; 93 to 94.5 % in long runs; below 89 % of 300 is not chance."""
    assert 0.89 <= _coverage(make, 9, trials=300, resamples=400) <= 0.99


@pytest.mark.long
@pytest.mark.parametrize("subjects", [9, 27, 100])
@pytest.mark.parametrize("make", [_ccc, _f1, _error])
def test_intervals_hold_the_truth_at_length(make, subjects, report):
    held = _coverage(make, subjects, trials=2000, resamples=1000)
    report(f"95 % intervals over {subjects} subjects hold the true {make.__name__[1:]} in {100 * held:.1f} %")
    assert held == pytest.approx(0.95, abs=0.03 if subjects == 9 else 0.02)
