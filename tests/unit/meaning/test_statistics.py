"""Intervals of correlations contain the true value as often as they state, at any autocorrelation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from featray.meaning.statistics import correlate, mean

FRAMES = 160


def slow(rng, memory, count=1):
    """Return autocorrelated series: each frame is the previous one times `memory`, plus noise."""
    noise = rng.standard_normal((count, FRAMES + 200))
    return lfilter([np.sqrt(1 - memory**2)], [1, -memory], noise)[:, 200:]


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.9, 0.97])
@pytest.mark.parametrize("truth", [0.0, 0.7])
def test_intervals_hold_the_truth(memory, truth):
    rng = np.random.default_rng(1)
    a, own = slow(rng, memory, 300), slow(rng, memory, 300)
    b = truth * a + np.sqrt(1 - truth**2) * own
    found = [correlate([(one, other)]) for one, other in zip(a, b, strict=True)]
    holding = np.mean([one.low <= truth <= one.high for one in found])
    # The nominal level is 0.99. For series that change only a few times in a clip, intervals are slightly too narrow.
    assert holding > (0.965 if memory <= 0.9 else 0.93)
    naive = 2.5758 / np.sqrt(FRAMES - 3)
    if memory == 0.9:
        too_narrow = np.mean([abs(np.arctanh(one.value) - np.arctanh(truth)) > naive for one in found])
        assert too_narrow > 0.2, "an interval that takes frames for independent ones misses it often"


def test_frames_count_for_what_they_are_worth():
    rng = np.random.default_rng(2)
    for memory in (0.0, 0.9):
        found = [correlate([tuple(slow(rng, memory, 2))]).effective for _ in range(50)]
        worth = (1 - memory**2) / (1 + memory**2)  # per frame
        # Sample autocorrelations of a short series are too small.
        assert FRAMES * worth * 0.9 < np.median(found) < FRAMES * worth * 2


def test_a_partial_correlation_leaves_out_what_both_follow():
    rng = np.random.default_rng(3)
    common, a, b = slow(rng, 0.5, 3)
    assert correlate([(a + 5 * common, b + 5 * common)]).value > 0.9
    given = correlate([(a + 5 * common, b + 5 * common)], [common])
    assert given.low < 0 < given.high
    assert correlate([(common, b)], [common]) is None, "nothing is left of it"


def test_clips_are_compared_within_themselves():
    rng = np.random.default_rng(4)
    a, b = slow(rng, 0.0, 2)
    apart = correlate([(a[:80], b[:80]), (a[80:] + 100, b[80:] + 100)])
    assert apart.low < 0 < apart.high, "what differs between two clips is no correlation"


@pytest.mark.parametrize(
    "constant", [np.zeros(FRAMES), np.full(FRAMES, 0.3), 1e6 + 1e-3 * np.sin(np.arange(FRAMES) / 3)]
)
def test_what_does_not_vary_is_no_evidence(constant):
    moving = np.sin(np.arange(FRAMES))
    assert correlate([(constant, moving)]) is None
    assert correlate([(moving, constant)]) is None


def test_few_frames_are_no_evidence():
    assert correlate([(np.arange(7.0), np.arange(7.0))]) is None
    ramp = np.arange(160.0)
    assert correlate([(ramp, ramp)]) is None, "a single slope is one observation"


def test_the_mean_of_a_slow_series_is_less_sure():
    rng = np.random.default_rng(5)
    (quick,), (slowly,) = slow(rng, 0.0), slow(rng, 0.95)
    assert mean([slowly]).high - mean([slowly]).low > 2 * (mean([quick]).high - mean([quick]).low)
    assert mean([np.arange(3.0)]) is None
