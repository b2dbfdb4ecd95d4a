"""Evaluate. Measures by group of rows: face size, turned heads, sharpness, and any label column."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from featray.evaluate.labels import Labels
from featray.evaluate.pairs import Pairs
from featray.evaluate.statistics import HEAD, UNITS, Value, draw, statistics_of, values_of

QUALITY_SPLITS: Final[dict[str, tuple[str, tuple[float, ...], str]]] = {
    "face size": ("face_px", (48, 96, 192), "px"),
    "head turned": ("head_deg", (15, 30, 45), "°"),
    "sharpness": ("sharpness", (), ""),
}
"""Splits of every evaluation: column of the faces, edges and unit; quartiles if there are no edges."""

MOST_GROUPS: Final = 30

HEADLINES: Final = (UNITS, "emotion", "valence", "arousal", "gaze", HEAD)
"""Summary measures, which are also computed by group."""


@dataclass(frozen=True)
class Group:
    """Measures of a group of rows.

    Attributes:
        name: value of the column, or range.
        rows: number of rows that matched a face.
        missed: number of rows whose face was not found; 0 if the group is defined by the face.
        values: measures of the rows that matched a face.
    """

    name: str
    rows: int
    missed: int
    values: list[Value]


@dataclass(frozen=True)
class Split:
    """Groups of one column; `left_out` is the number of groups beyond the 30 largest."""

    name: str
    groups: list[Group]
    left_out: int = 0


def make_splits(
    pairs: Pairs,
    labels: Labels,
    chosen: NDArray[np.bool_],
    columns: tuple[str, ...],
    thresholds: dict[str, float],
    resamples: int,
) -> list[Split]:
    """Return the splits by quality of the face, and those by label columns.

    Args:
        pairs: truth and predictions.
        labels: labels with these columns.
        chosen: rows that are measured, `[n]`.
        columns: label columns.
        thresholds: as in `statistics_of`.
        resamples: number of resamples for each group.

    Raises:
        UsageError: there is no such column.
    """
    found = []
    for name, (column, edges, unit) in QUALITY_SPLITS.items():
        values = pairs.quality[column]
        rows = chosen & pairs.found & ~np.isnan(values)
        groups = [
            Group(label, int(inside.sum()), 0, _measure(pairs, inside, thresholds, resamples))
            for label, inside in _bins(values, rows, edges, unit)
        ]
        found.append(Split(name, groups))
    for column in columns:
        texts = np.array(["(empty)" if text is None else text for text in labels.text(column, "--split")], object)
        counted = chosen & (pairs.found | pairs.missed)
        names, counts = np.unique(texts[counted].astype(str), return_counts=True)
        largest = sorted(names[np.argsort(-counts, kind="stable")][:MOST_GROUPS])
        groups = []
        for name in largest:
            inside = chosen & (texts == name)
            met = inside & pairs.found
            values_ = _measure(pairs, met, thresholds, resamples)
            groups.append(Group(name, int(met.sum()), int((inside & pairs.missed).sum()), values_))
        found.append(Split(column, groups, max(0, len(names) - MOST_GROUPS)))
    return [split for split in found if split.groups]


def _measure(pairs: Pairs, rows: NDArray[np.bool_], thresholds: dict[str, float], resamples: int) -> list[Value]:
    statistics = [one for one in statistics_of(pairs, rows, thresholds) if one.what in HEADLINES]
    return values_of(draw(statistics, pairs.subjects[rows], resamples))


def _bins(
    values: NDArray[np.float64], rows: NDArray[np.bool_], edges: tuple[float, ...], unit: str
) -> list[tuple[str, NDArray[np.bool_]]]:
    """Return the non-empty groups of rows between the edges; lower edges are inclusive."""
    if not rows.any():
        return []
    inner = edges or tuple(np.unique(np.quantile(values[rows], [0.25, 0.5, 0.75])).tolist())
    bounds = (-np.inf, *inner, np.inf)
    found = []
    for low, high in pairwise(bounds):
        inside = rows & (values >= low) & (values < high)
        a, b = f"{low:.3g}", f"{high:.3g}"
        text = f"below {b}" if low == -np.inf else f"from {a}" if high == np.inf else f"{a} to {b}"
        if inside.any():
            found.append((f"{text} {unit}".strip(), inside))
    return found
