"""Evaluate. Measures of agreement, as functions of sums over rows.

Every measure depends on its rows only through sums: counts of hits and misses, moments, sums of errors. Each row
contributes a vector, the vectors of a subject are added up, and a bootstrap resample is a weighted sum of subjects.
`*_rows` return the contributions `[n, k]`, `*_of` turn sums `[..., k]` into values `[...]`. A value that is not defined
(no positives, no variance) is NaN, never a placeholder number.

Sources: ICC(3,1), Shrout and Fleiss, Intraclass Correlations: Uses in Assessing Rater Reliability, Psychological
Bulletin 86, 1979. CCC, Lin, A Concordance Correlation Coefficient to Evaluate Reproducibility, Biometrics 45, 1989.
F1, macro F1 and accuracy equal those of scikit-learn; the tests compare them.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

COUNTS: Final = 3
"""Sums behind an F1: true positives, false positives, false negatives."""

MOMENTS: Final = 6
"""Sums behind a CCC or an ICC: n, x, y, x², y², xy."""

_SAME: Final = 1e-12
"""Relative to the squared values: a smaller variance is rounding error."""


def f1_rows(truth: ArrayLike, said: ArrayLike) -> Floats:
    """Return each row's contribution to the counts of an F1, `[n, 3]`.

    Args:
        truth: whether the unit is present, `[n]`, 0 or 1; NaN without a label.
        said: whether it was predicted to be present, `[n]`, 0 or 1.
    """
    there, found = np.asarray(truth, np.float64), np.asarray(said, np.float64) > 0.5
    yes, no = there > 0.5, there <= 0.5  # NaN is neither
    return np.stack([yes & found, no & found, yes & ~found], axis=-1).astype(np.float64)


def f1_of(counts: Floats) -> Floats:
    """Return F1 from counts `[..., 3]`; NaN without any positive in truth or prediction."""
    hits, false_alarms, misses = np.moveaxis(counts, -1, 0)
    return _ratio(2 * hits, 2 * hits + false_alarms + misses)


def macro_f1_of(counts: Floats) -> Floats:
    """Return the mean F1 over units from counts `[..., units, 3]`; units without an F1 are left out."""
    return mean_of_known(f1_of(counts))


def confusion_rows(truth: ArrayLike, said: ArrayLike, classes: int) -> Floats:
    """Return each row's contribution to a confusion matrix, `[n, classes, classes + 1]`.

    Args:
        truth: class of each row, `[n]`, from 0; NaN without a label: such a row adds nothing.
        said: predicted class, `[n]`; NaN for none, which is always wrong and counts in the last column.
        classes: number of classes.
    """
    there, found = np.asarray(truth, np.float64), np.asarray(said, np.float64)
    rows = np.zeros((len(there), classes, classes + 1))
    known = np.flatnonzero(~np.isnan(there))
    rows[known, there[known].astype(int), np.where(np.isnan(found), classes, found)[known].astype(int)] = 1
    return rows


def accuracy_of(confusion: Floats) -> Floats:
    """Return the share of correct rows, from matrices `[..., c, c + 1]`."""
    return _ratio(np.trace(confusion, axis1=-2, axis2=-1), confusion.sum(axis=(-2, -1)))


def class_f1_of(confusion: Floats) -> Floats:
    """Return the F1 of each class, `[..., c]`, from matrices `[..., c, c + 1]`; NaN for one that does not occur."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return _ratio(2 * hits, confusion.sum(axis=-1) + confusion[..., :-1].sum(axis=-2))


def class_macro_f1_of(confusion: Floats) -> Floats:
    """Return the mean F1 over the classes that occur in truth or prediction, as scikit-learn does."""
    return mean_of_known(class_f1_of(confusion))


def moment_rows(truth: ArrayLike, said: ArrayLike) -> Floats:
    """Return each row's contribution to the moments, `[n, 6]`; zeros if truth or prediction is NaN.

    Both are shifted by their common mean. A common shift changes neither CCC nor ICC(3,1), and sums of squares of
    large numbers would lose digits.
    """
    x, y = np.asarray(truth, np.float64), np.asarray(said, np.float64)
    known = ~(np.isnan(x) | np.isnan(y))
    middle = (x[known].mean() + y[known].mean()) / 2 if known.any() else 0.0
    x, y = np.where(known, x - middle, 0.0), np.where(known, y - middle, 0.0)
    return np.stack([known.astype(np.float64), x, y, x * x, y * y, x * y], axis=-1)


def ccc_of(moments: Floats) -> Floats:
    """Return Lin's concordance correlation coefficient, from moments `[..., 6]`.

    2 cov(x, y) / (var x + var y + (mean x - mean y)²), with variances over n; NaN where neither varies and means agree.
    """
    count, mean_x, mean_y, var_x, var_y, cov, scale = _spread(moments)
    below = var_x + var_y + (mean_x - mean_y) ** 2
    return np.where((count > 1) & (below > _SAME * scale), _ratio(2 * cov, below), np.nan)


def icc_of(moments: Floats) -> Floats:
    """Return ICC(3,1): two fixed raters, one rating each, consistency; from moments `[..., 6]`.

    (MSR - MSE) / (MSR + MSE) with the mean squares of rows and of error in a two-way layout. For two raters these are
    (var x + var y) / 2 ± cov(x, y), so it is 2 cov / (var x + var y). NaN where neither varies.
    """
    count, _, _, var_x, var_y, cov, scale = _spread(moments)
    below = var_x + var_y
    return np.where((count > 1) & (below > _SAME * scale), _ratio(2 * cov, below), np.nan)


def error_rows(errors: ArrayLike) -> Floats:
    """Return each row's contribution to a mean error, `[n, 2]`: the error and 1; zeros if it is NaN."""
    found = np.asarray(errors, np.float64)
    known = ~np.isnan(found)
    return np.stack([np.where(known, found, 0.0), known.astype(np.float64)], axis=-1)


def mean_of(sums: Floats) -> Floats:
    """Return means from sums `[..., 2]`."""
    return _ratio(sums[..., 0], sums[..., 1])


def mean_of_means(sums: Floats) -> Floats:
    """Return the mean of several means, from sums `[..., axes, 2]`; axes without rows are left out."""
    return mean_of_known(mean_of(sums))


def mean_of_known(values: Floats) -> Floats:
    """Return the mean over the last axis, ignoring NaN; NaN if all values are."""
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0.0).sum(axis=-1), known.sum(axis=-1))


def angles_between_deg(a: ArrayLike, b: ArrayLike) -> Floats:
    """Return the angles between vectors `[n, 3]` and `[n, 3]`, degrees in [0, 180]; NaN if one has length 0.

    Computed from the lengths of difference and sum of the unit vectors (Kahan): the arccos of a dot product loses half
    its digits for small angles.
    """
    u, v = (_unit(np.asarray(one, np.float64)) for one in (a, b))
    apart, together = np.linalg.norm(u - v, axis=-1), np.linalg.norm(u + v, axis=-1)
    return np.asarray(np.degrees(2 * np.arctan2(apart, together)), np.float64)


def turn_deg(truth_rad: ArrayLike, said_rad: ArrayLike) -> Floats:
    """Return the shorter distance between two angles, degrees in [0, 180]."""
    apart = np.asarray(said_rad, np.float64) - np.asarray(truth_rad, np.float64)
    return np.asarray(np.degrees(np.abs(np.arctan2(np.sin(apart), np.cos(apart)))), np.float64)


def _unit(vectors: Floats) -> Floats:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    out: Floats = np.full_like(vectors, np.nan)
    np.divide(vectors, length, out=out, where=length > 0)
    return out


def _spread(moments: Floats) -> tuple[Floats, ...]:
    count, x, y, xx, yy, xy = np.moveaxis(moments, -1, 0)
    mean_x, mean_y = _ratio(x, count), _ratio(y, count)
    var_x, var_y = _ratio(xx, count) - mean_x**2, _ratio(yy, count) - mean_y**2
    return count, mean_x, mean_y, var_x, var_y, _ratio(xy, count) - mean_x * mean_y, _ratio(xx + yy, count)


def _ratio(above: Floats, below: Floats) -> Floats:
    above, below = np.broadcast_arrays(np.asarray(above, np.float64), np.asarray(below, np.float64))
    out: Floats = np.full(below.shape, np.nan)
    np.divide(above, below, out=out, where=below > 0)
    return out
