"""Faces. Measure the overlap of boxes, and pair boxes by overlap."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def iou_matrix(a_xyxy: NDArray[np.floating], b_xyxy: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the intersection over union of every box of `a` with every box of `b`, float64 `[len(a), len(b)]`."""
    a, b = np.asarray(a_xyxy, np.float64)[:, None], np.asarray(b_xyxy, np.float64)[None]
    sides = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None)
    intersection = sides[..., 0] * sides[..., 1]
    area_a = (a[..., 2] - a[..., 0]) * (a[..., 3] - a[..., 1])
    area_b = (b[..., 2] - b[..., 0]) * (b[..., 3] - b[..., 1])
    union = area_a + area_b - intersection
    iou: NDArray[np.float64] = np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)
    return iou


def best_pairs(overlap: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return rows and columns paired one to one so that the sum of their overlaps is largest."""
    if min(overlap.shape) <= 1:  # take the largest; runs whose videos have one face never load scipy
        best = np.array([overlap.argmax()] if overlap.size else [], np.intp)
        return np.divmod(best, max(1, overlap.shape[1]))
    # Imported late: it costs each of a run's ten processes up to a second of CPU.
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(overlap, maximize=True)
    return rows, columns
