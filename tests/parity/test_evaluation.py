"""Measures compared with py-feat's own, `feat.evaluation.metrics` of 2.1.5."""

from __future__ import annotations

import numpy as np
import pytest
from feat.evaluation import metrics as theirs

from featray.evaluate import measures as ours
from featray.views.directions import gaze_vectors

pytestmark = pytest.mark.parity

EXACT = 1e-9


@pytest.fixture
def rng():
    return np.random.default_rng(20261128)


def test_action_units(rng):
    """F1 at the same thresholds and ICC(3,1), for each action unit, and their means."""
    truth = {f"AU{n:02d}": rng.choice(6, 2000, p=[0.6, 0.1, 0.1, 0.1, 0.05, 0.05]) for n in (1, 6, 12)}
    said = {unit: np.clip(0.1 + 0.15 * values + rng.normal(0, 0.2, 2000), 0, 1) for unit, values in truth.items()}
    expected = theirs.summarize_au_metrics(truth, said)
    counts = np.stack([ours.f1_rows(truth[unit] >= 2, said[unit] >= 0.5).sum(0) for unit in truth])
    moments = np.stack([ours.moment_rows(truth[unit], said[unit]).sum(0) for unit in truth])
    assert ours.f1_of(counts) == pytest.approx([one["f1"] for one in expected["per_au"].values()], abs=EXACT)
    assert ours.icc_of(moments) == pytest.approx([one["icc"] for one in expected["per_au"].values()], abs=EXACT)
    assert ours.macro_f1_of(counts) == pytest.approx(expected["mean_f1"], abs=EXACT)
    assert ours.mean_of_known(ours.icc_of(moments)) == pytest.approx(expected["mean_icc"], abs=EXACT)


def test_emotions(rng):
    truth, said = rng.integers(0, 7, 1500), rng.integers(0, 7, 1500)
    matrix = ours.confusion_rows(truth, said, 7).sum(0)
    assert ours.accuracy_of(matrix) == pytest.approx(theirs.emotion_accuracy(truth, said), abs=EXACT)
    assert ours.class_macro_f1_of(matrix) == pytest.approx(theirs.emotion_f1_macro(truth, said), abs=EXACT)


def test_valence_and_arousal(rng):
    truth = rng.uniform(-1, 1, 1500)
    said = 0.7 * truth + 0.1 + rng.normal(0, 0.2, 1500)
    expected = theirs.concordance_correlation_coefficient(truth, said)
    assert ours.ccc_of(ours.moment_rows(truth, said).sum(0)) == pytest.approx(expected, abs=EXACT)


def test_gaze(rng):
    """The axes differ in their signs in the same way for both directions, so the angle is the same."""
    yaw, pitch = rng.uniform(-1.2, 1.2, (2, 1500)), rng.uniform(-0.8, 0.8, (2, 1500))
    found = ours.angles_between_deg(*(gaze_vectors(*one) for one in zip(yaw, pitch, strict=True)))
    expected = theirs.angular_error_degrees(pitch[0], yaw[0], pitch[1], yaw[1])
    np.testing.assert_allclose(found, expected, atol=EXACT)
    mean = ours.mean_of(ours.error_rows(found).sum(0))
    assert mean == pytest.approx(expected.mean(), abs=EXACT)


def test_what_is_not_defined_is_nothing_here_and_zero_there():
    """A unit with neither positive labels nor predictions has no F1; py-feat gives 0, and counts it in the mean."""
    none = np.zeros(50)
    assert theirs.au_f1_binary(none, none) == 0 and np.isnan(ours.f1_of(ours.f1_rows(none, none).sum(0)))
    assert theirs.au_icc(none, none) == 0 and np.isnan(ours.icc_of(ours.moment_rows(none, none).sum(0)))
