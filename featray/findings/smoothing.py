"""Findings. A filter without delay for samples at unequal times."""

from __future__ import annotations

import numpy as np
from scipy.linalg import solveh_banded

from featray.findings.samples import Floats, Samples

_LEAST_US = 1000
"""Steps and cells count as a millisecond at least: frames of equal times would be tied more closely than the
arithmetic bears."""


def smooth(values: Floats, samples: Samples, time_constant_s: float) -> Floats:
    """Low-pass a signal with a first-order filter run forwards and backwards, so that nothing is delayed.

    Of a sine of frequency f, `1 / (1 + (2 pi f T)^2)` of the amplitude is left, T being the time constant: half at
    `1 / (2 pi T)`. For samples at unequal times it is the y that minimises `sum(cell (y - x)^2) + T^2 sum(dy^2 / dt)`
    (a Whittaker smoother of first order): one symmetric tridiagonal system. y never leaves the range of x, keeps its
    mean over a piece, and takes nothing across a gap.

    Args:
        values: float32 `[n]`; NaN where not known, which is bridged and stays NaN.
        samples: their times.
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
    # Rounded, so that no comparison hangs on the last bit of another machine's arithmetic.
    return np.where(unknown, np.float32(np.nan), smoothed.astype(np.float32))
