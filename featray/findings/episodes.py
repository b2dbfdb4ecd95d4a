"""Findings. Episodes: the spans of time in which a signal is up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featray.findings.samples import Flags, Floats, Ints, Samples, over_spans


@dataclass(frozen=True)
class Spans:
    """Runs of samples, each within one piece, in ascending order and without overlap.

    Attributes:
        starts, ends: int64 `[m]`, positions of their first and last samples.
    """

    starts: Ints
    ends: Ints

    def __len__(self) -> int:
        return len(self.starts)

    def where(self, chosen: Flags) -> Spans:
        """Return the chosen spans."""
        return Spans(self.starts[chosen], self.ends[chosen])

    def covered(self, samples: Samples) -> Ints:
        """Return the duration of each span, int64 `[m]`: the cells of its samples, in half µs."""
        return samples.elapsed[self.ends + 1] - samples.elapsed[self.starts]

    def mask(self, count: int) -> Flags:
        """Return which samples are inside a span, bool `[count]`."""
        marks = np.zeros(count + 1, np.int8)
        marks[self.starts] += 1
        marks[self.ends + 1] -= 1
        return np.cumsum(marks[:-1], dtype=np.int8) > 0


def runs(inside: Flags, samples: Samples) -> Spans:
    """Return the maximal runs of samples that are inside; no run crosses a gap."""
    begins = inside & (samples.first | ~np.concatenate([[False], inside[:-1]]))
    stops = inside & (samples.last | ~np.concatenate([inside[1:], [False]]))
    return Spans(np.flatnonzero(begins), np.flatnonzero(stops))


def find_episodes(
    values: Floats,
    samples: Samples,
    *,
    on: float | Floats,
    off: float | Floats,
    least_s: float,
    merge_s: float,
) -> Spans:
    """Find the runs that stay at `off` or above and reach `on` (hysteresis, the same forwards and backwards in time).

    Args:
        values: float32 `[n]`; NaN counts as below both thresholds.
        samples: the samples' times.
        on: value that an episode must reach; one for all samples, or `[n]`.
        off: value at or above which it must stay, at most `on`; one for all samples, or `[n]`.
        least_s: shorter episodes are dropped; an episode's duration is the time that its samples represent.
        merge_s: episodes separated by less than this are merged, but never across a gap.
    """
    found = runs(values >= off, samples)
    reached = np.concatenate([[0], np.cumsum(values >= on)])
    found = found.where(reached[found.ends + 1] > reached[found.starts])
    if len(found) > 1:
        between = samples.elapsed[found.starts[1:]] - samples.elapsed[found.ends[:-1] + 1]
        same = samples.piece[found.starts[1:]] == samples.piece[found.ends[:-1]]
        apart = ~(same & (between < 2e6 * merge_s))
        found = Spans(found.starts[np.concatenate([[True], apart])], found.ends[np.concatenate([apart, [True]])])
    return found.where(found.covered(samples) >= 2e6 * least_s)


def join(several: tuple[Spans, ...]) -> tuple[Spans, list[Flags]]:
    """Return the unions of overlapping spans; and for each input, bool `[m]`, which unions contain one of its spans."""
    starts = np.concatenate([spans.starts for spans in several])
    ends = np.concatenate([spans.ends for spans in several])
    origin = np.repeat(np.arange(len(several)), [len(spans) for spans in several])
    order = np.argsort(starts, kind="stable")
    starts, ends, origin = starts[order], ends[order], origin[order]
    reach = np.maximum.accumulate(ends)
    fresh = np.concatenate([[True], starts[1:] > reach[:-1]])[: len(starts)]
    union = np.cumsum(fresh) - 1
    count = int(fresh.sum())
    last = np.flatnonzero(np.append(fresh[1:], True))[:count] if count else np.zeros(0, np.int64)
    held = []
    for number in range(len(several)):
        flags = np.zeros(count, np.bool_)
        flags[union[origin == number]] = True
        held.append(flags)
    return Spans(starts[fresh], reach[last]), held


def peaks(values: NDArray[np.floating], spans: Spans) -> tuple[Ints, Floats]:
    """Return the position of each span's largest value, the first of equal ones; and the value. NaN is lowest."""
    known = np.where(np.isnan(values), -np.inf, values.astype(np.float64))
    most = over_spans(np.maximum, known, spans.starts, spans.ends)
    lengths = spans.ends - spans.starts + 1
    before = np.cumsum(lengths) - lengths
    inside = np.arange(int(lengths.sum())) - np.repeat(before - spans.starts, lengths)
    hits = np.flatnonzero(known[inside] == np.repeat(most, lengths))
    places = inside[hits[np.searchsorted(hits, before)]] if len(spans) else np.zeros(0, np.int64)
    return places, most.astype(np.float32)


def means(values: NDArray[np.floating], samples: Samples, spans: Spans) -> Floats:
    """Return the mean of each span over its time; NaN values are ignored."""
    cells = np.where(np.isnan(values), 0, samples.cells).astype(np.float64)
    weighted: NDArray[np.float64] = np.where(np.isnan(values), 0, values) * cells
    total = over_spans(np.add, weighted, spans.starts, spans.ends)
    time = over_spans(np.add, cells, spans.starts, spans.ends)
    with np.errstate(divide="ignore", invalid="ignore"):
        average: NDArray[np.float64] = total / time
    return average.astype(np.float32)
