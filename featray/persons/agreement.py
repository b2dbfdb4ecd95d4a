"""Persons. Measure how well persons agree with labels: pairwise and B-cubed scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Agreement:
    """Shares in [0, 1].

    Attributes:
        precision: share of the pairs found as one person that are one person in truth; 1 if no pair was found.
        recall: share of the pairs that are one person in truth that were found; 1 if there is no such pair.
        b_cubed_f: harmonic mean of B-cubed precision and recall (Bagga and Baldwin, COLING-ACL 1998).
    """

    precision: float
    recall: float
    b_cubed_f: float


def agreement(found: NDArray[np.generic], truth: NDArray[np.generic]) -> Agreement:
    """Compare persons with the truth.

    Args:
        found: `[n]`, person found for each track.
        truth: `[n]`, true person of each track.

    Raises:
        ValueError: the arrays are empty or differ in length.
    """
    if len(found) != len(truth) or not len(found):
        raise ValueError("persons and labels need one entry per track, and at least one track")
    one, other = np.unique(found, return_inverse=True)[1], np.unique(truth, return_inverse=True)[1]
    _, cell, both = np.unique(one * (other.max() + 1) + other, return_inverse=True, return_counts=True)
    here, there = np.bincount(one), np.bincount(other)
    precision = float((both[cell] / here[one]).mean())
    recall = float((both[cell] / there[other]).mean())
    pairs = _pairs(both)
    return Agreement(
        pairs / _pairs(here) if _pairs(here) else 1.0,
        pairs / _pairs(there) if _pairs(there) else 1.0,
        2 * precision * recall / (precision + recall),
    )


def _pairs(counts: NDArray[np.int64]) -> int:
    return int((counts.astype(np.int64) * (counts - 1) // 2).sum())
