"""Findings. A zero-delay low-pass filter for unevenly spaced samples."""

from __future__ import annotations

import numpy as np
from scipy.linalg import solveh_banded

from featray.findings.samples import Floats, Samples

_LEAST_US = 1000
"""Minimum for steps and cells, one millisecond: frames with equal times would make the system ill-conditioned."""


def smooth(values: Floats, samples: Samples, time_constant_s: float) -> Floats:
    """Low-pass a signal with a first-order filter applied forwards and backwards, which causes no delay.

    The amplitude of a sine of frequency f is reduced to `1 / (1 + (2 pi f T)^2)`, T being the time constant: to half at
    `1 / (2 pi T)`. For unevenly spaced samples, the result is the y that minimises
    `sum(cell (y - x)^2) + T^2 sum(dy^2 / dt)` (a Whittaker smoother of first order), the solution of a symmetric
    tridiagonal system. y stays within the range of x, keeps its mean over a piece, and never crosses a gap.

    Args:
        values: float32 `[n]`; NaN if unknown, which is bridged and stays NaN.
        samples: the samples' times.
        time_constant_s: T, seconds; 0 for no filter.

    Returns:
        float32 `[n]`.
    """
    if not time_constant_s or len(values) == 1:
        return values
    unknown = np.isnan(values)
    weights = np.where(unknown, 1e-3, np.maximum(samples.cells / 2, _LEAST_US))
    steps_us = np.maximum(np.diff(samples.pts_us), _LEAST_US)
    ties = np.where(samples.last[:-1], 0.0, (time_constant_s * 1e6) ** 2 / steps_us)
    banded = np.zeros((2, len(values)))
    banded[0] = weights
    banded[0, :-1] += ties
    banded[0, 1:] += ties
    banded[1, :-1] = -ties
    smoothed = solveh_banded(banded, weights * np.where(unknown, 0, values), lower=True)
    # Rounded to float32, so that comparisons do not depend on the last bit of a machine's arithmetic.
    return np.where(unknown, np.float32(np.nan), smoothed.astype(np.float32))
