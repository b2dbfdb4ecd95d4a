"""Meaning. Correlations of time series, with intervals that account for the similarity of neighbouring frames.

n frames of a clip are worth fewer independent ones: n / (1 + 2 * sum of the products of both autocorrelations)
(Bartlett, On the theoretical specification and sampling properties of autocorrelated time-series, Supplement to the
Journal of the Royal Statistical Society 8, 1946). The sum ends at the first product that is not positive, since later
ones are noise. The interval is Fisher's, for that number of frames. A linear drift over a clip is first removed from
every series: two series that drift are a single observation, however many frames there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CONFIDENCE: Final = 0.99
"""Level of the intervals. With about forty pairs, at 0.95 two would be opposed by chance."""

_Z: Final = 2.5758
"""The two-sided normal quantile of CONFIDENCE."""

_FEWEST: Final = 8
_LEAST_SPREAD: Final = 1e-6
"""Standard deviation, relative to the largest value, below which a series counts as constant up to rounding."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval.

    Attributes:
        value: a correlation in [-1, 1], or a mean.
        low, high: bounds of the interval.
        frames: number of frames.
        effective: number of independent frames that they are worth.
    """

    value: float
    low: float
    high: float
    frames: int
    effective: float


def correlate(clips: Sequence[tuple[Floats, Floats]], given: Sequence[Floats] | None = None) -> Interval | None:
    """Correlate two series over all clips, with each clip's drift removed; None if too short or constant.

    Args:
        clips: both series of each clip, in order of time.
        given: a third series whose linear effect on both is removed first (partial correlation).
    """
    pairs = [_level(a, b, None if given is None else given[i]) for i, (a, b) in enumerate(clips) if len(a) >= _FEWEST]
    if not pairs:
        return None
    a, b = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    if _is_constant(a, clips, 0) or _is_constant(b, clips, 1):
        return None
    r = float(np.clip((a @ b) / np.sqrt((a @ a) * (b @ b)), -1.0, 1.0))
    effective = sum(_effective(*pair) for pair in pairs)
    freedom = effective - 2 - 2 * len(pairs) - (given is not None)
    if freedom <= 0:
        return Interval(r, -1.0, 1.0, len(a), effective)
    z, half = np.arctanh(np.clip(r, -0.9999, 0.9999)), _Z / np.sqrt(freedom)
    return Interval(r, float(np.tanh(z - half)), float(np.tanh(z + half)), len(a), effective)


def mean(clips: Sequence[Floats]) -> Interval | None:
    """Return the mean of a series over all clips; None if they are too short."""
    long_enough = [values for values in clips if len(values) >= _FEWEST]
    if not long_enough:
        return None
    values = np.concatenate(long_enough)
    centred = [one - one.mean() for one in long_enough]
    effective = sum(_effective(one, one) for one in centred)
    half = _Z * float(values.std()) / np.sqrt(max(effective, 1.0))
    average = float(values.mean())
    return Interval(average, average - half, average + half, len(values), effective)


def _level(a: Floats, b: Floats, given: Floats | None) -> tuple[Floats, Floats]:
    """Remove mean, drift and the linear effect of a third series from two series."""
    base = np.column_stack([np.ones(len(a)), np.linspace(-1, 1, len(a)), *([] if given is None else [given])])
    both = np.column_stack([a, b])
    rest = both - base @ np.linalg.lstsq(base, both, rcond=None)[0]
    return rest[:, 0], rest[:, 1]


def _is_constant(centred: Floats, clips: Sequence[tuple[Floats, Floats]], side: int) -> bool:
    largest = max(float(np.abs(pair[side]).max(initial=0.0)) for pair in clips)
    return not float(centred.std()) > _LEAST_SPREAD * max(largest, 1e-12)


def _effective(a: Floats, b: Floats) -> float:
    """Return the number of independent frames that two centred series are worth."""
    products = _autocorrelation(a) * _autocorrelation(b)
    negative = np.flatnonzero(products[1:] <= 0)
    end = int(negative[0]) + 1 if len(negative) else len(products)
    lags = np.arange(1, end)
    return float(len(a) / (1 + 2 * ((1 - lags / len(a)) * products[1:end]).sum()))


def _autocorrelation(values: Floats) -> Floats:
    full = np.correlate(values, values, "full")[len(values) - 1 :]
    return full / full[0] if full[0] > 0 else np.zeros_like(full)
