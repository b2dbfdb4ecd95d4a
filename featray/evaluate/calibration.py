"""Evaluate. Calibration: is a prediction of 0.8 right in 80 %? Reliability curves, calibration error, Brier score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from featray.errors import UsageError
from featray.evaluate.columns import EMOTION
from featray.evaluate.measures import Floats
from featray.evaluate.pairs import Pairs
from featray.evaluate.thresholds import NEEDS_EXTRA

BINS: Final = 10


@dataclass(frozen=True)
class Calibration:
    """The share of true predictions for each predicted probability.

    Attributes:
        what: an action unit, or `emotion`: then the share of the predicted emotion, and whether it equals the label.
        said: mean predicted probability of each bin that has rows.
        true: share of the bin's rows in which the prediction is true.
        rows: number of rows of each bin.
        error: expected calibration error, the mean of |true - said| weighted by rows.
        brier: mean squared difference of probability and truth.
    """

    what: str
    said: list[float]
    true: list[float]
    rows: list[int]
    error: float
    brier: float


def calibrations(pairs: Pairs, chosen: NDArray[np.bool_]) -> list[Calibration]:
    """Return one calibration per action unit, and one of the emotions, over the chosen rows that matched a face."""
    rows = chosen & pairs.found
    found = [_calibration(unit, pairs.truth[unit][rows], pairs.said[unit][rows]) for unit in pairs.units]
    if EMOTION in pairs.truth:
        truth = pairs.truth[EMOTION][rows]
        right = np.where(np.isnan(truth), np.nan, truth == pairs.said[EMOTION][rows])
        found.append(_calibration(EMOTION, right, pairs.said["emotion_share"][rows]))
    return [one for one in found if one is not None]


def _calibration(what: str, truth: Floats, said: Floats) -> Calibration | None:
    try:
        from sklearn.calibration import calibration_curve
        from sklearn.metrics import brier_score_loss
    except ModuleNotFoundError:
        raise UsageError(NEEDS_EXTRA) from None

    known = ~(np.isnan(truth) | np.isnan(said))
    truth, said = truth[known], np.clip(said[known], 0, 1)  # shares are float32 and may be 1 + 1e-7
    if not len(truth):
        return None
    is_true = truth > 0.5
    brier = float(brier_score_loss(is_true, said, pos_label=True))
    # scikit-learn does not return the number of rows per bin. These are its bins, closed above.
    bins = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], said)
    counts = np.bincount(bins, minlength=BINS)
    share, mean = calibration_curve(is_true, said, n_bins=BINS, pos_label=True)
    weights = counts[counts > 0]
    error = float((np.abs(share - mean) * weights).sum() / weights.sum())
    return Calibration(what, mean.tolist(), share.tolist(), weights.tolist(), error, brier)
