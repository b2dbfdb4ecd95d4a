"""Findings. Statistics of a track over the time that the face was seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featray.findings.episodes import Spans
from featray.findings.samples import Floats, Ints, Samples, quantiles

PERCENTS: Final = (5, 10, 50, 95)


@dataclass(frozen=True)
class Statistics:
    """Statistics of one column, float32 `[t]` each; NaN for tracks in which the column is null.

    Attributes:
        mean, sd: mean and population standard deviation over time: samples are weighted by the time they represent.
        p05, p10, p50, p95: percentiles over time.
    """

    mean: Floats
    sd: Floats
    p05: Floats
    p10: Floats
    p50: Floats
    p95: Floats


def statistics(values: Floats, samples: Samples) -> Statistics:
    """Describe a column, track by track.

    Args:
        values: float32 `[n]`; NaN where null.
        samples: the samples' times.
    """
    known = ~np.isnan(values)
    cells = np.where(known, samples.cells, 0).astype(np.float64)
    filled = np.where(known, values, 0).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        time = np.add.reduceat(cells, samples.starts)
        mean = np.add.reduceat(filled * cells, samples.starts) / time
        off = (filled - np.nan_to_num(mean)[samples.track]) ** 2 * cells
        sd = np.sqrt(np.add.reduceat(off, samples.starts) / time)
    return Statistics(mean.astype(np.float32), sd.astype(np.float32), *quantiles(values, samples, PERCENTS))


def medians(values: Floats, samples: Samples) -> Floats:
    """Return the median of each track over its time, float32 `[t]`."""
    (found,) = quantiles(values, samples, (50,))
    middle: Floats = found
    return middle


def shares(spans: Spans, samples: Samples) -> Floats:
    """Return the share of each track's time that is inside a span, float32 `[t]`."""
    inside = np.where(spans.mask(len(samples.track)), samples.cells, 0)
    found: Ints = np.add.reduceat(inside, samples.starts)
    share: NDArray[np.float64] = found / samples.totals
    return share.astype(np.float32)


def counts(spans: Spans, samples: Samples) -> Ints:
    """Return the number of spans of each track, int64 `[t]`."""
    return np.bincount(samples.track[spans.starts], minlength=samples.tracks)


def mean_seconds(spans: Spans, samples: Samples) -> Floats:
    """Return the mean duration of each track's spans, float32 `[t]`, s; NaN without spans."""
    total = np.zeros(samples.tracks, np.int64)
    np.add.at(total, samples.track[spans.starts], spans.covered(samples))
    with np.errstate(divide="ignore", invalid="ignore"):
        seconds: NDArray[np.float64] = total / 2e6 / counts(spans, samples)
    return seconds.astype(np.float32)


def column(values: NDArray[np.generic], kind: pa.DataType) -> pa.Array:
    """Return a column with null for NaN."""
    missing = np.isnan(values) if np.issubdtype(values.dtype, np.floating) else None
    return pa.array(np.where(missing, 0, values) if missing is not None else values, mask=missing).cast(kind)
