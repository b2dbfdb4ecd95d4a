"""Evaluate. The probability from which a unit counts as present: fixed, or chosen on rows that are then left out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from featray.errors import UsageError
from featray.evaluate.labels import Labels
from featray.evaluate.pairs import Pairs
from featray.names import AU_NAMES_20

DEFAULT: Final = 0.5

NEEDS_EXTRA: Final = "featray evaluate needs scikit-learn: pip install 'featray[evaluate]'"


@dataclass(frozen=True)
class Thresholds:
    """The thresholds of the action units.

    Attributes:
        by_unit: probability from which a unit counts as present.
        chosen: units whose threshold was chosen; the others have the fixed one.
        rows: rows on which thresholds were chosen, `[n]`; they are not measured.
        warnings: one line each.
    """

    by_unit: dict[str, float]
    chosen: tuple[str, ...]
    rows: NDArray[np.bool_]
    warnings: list[str] = field(default_factory=list)


def parse_thresholds(texts: tuple[str, ...]) -> dict[str, float]:
    """Return thresholds from texts such as `0.4` and `AU12=0.3`; a plain number is stored under the empty name.

    Raises:
        UsageError: a text has another form.
    """
    found = {}
    for text in texts:
        unit, _, value = text.rpartition("=")
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not 0 <= number <= 1 or (unit and unit not in AU_NAMES_20):
            raise UsageError(
                f"--threshold {text}: write it as 0.4, or as AU12=0.3 with one of {', '.join(AU_NAMES_20)}"
            )
        found[unit] = number
    return found


def choose_thresholds(pairs: Pairs, labels: Labels, fixed: dict[str, float], tune_on: str | None) -> Thresholds:
    """Return the thresholds.

    Args:
        pairs: truth and predictions.
        labels: labels with the column of `tune_on`.
        fixed: as returned by `parse_thresholds`; overrides chosen thresholds.
        tune_on: `COLUMN=VALUE`; each unit gets the threshold with the best F1 on the rows with this value.

    Raises:
        UsageError: no row has that value, or all rows have it.
    """
    plain = fixed.get("", DEFAULT)
    by_unit = {unit: fixed.get(unit, plain) for unit in pairs.units}
    rows = np.zeros(len(labels), bool)
    if tune_on is None:
        return Thresholds(by_unit, (), rows)
    column, equals, value = tune_on.partition("=")
    if not equals or not pairs.units:
        fault = (
            "write it as COLUMN=VALUE, such as split=val" if not equals else "there are no action units to choose for"
        )
        raise UsageError(f"--tune-on {tune_on}: {fault}")
    rows = labels.text(column, "--tune-on") == value
    usable, rest = rows & pairs.found, ~rows & (pairs.found | pairs.missed)
    if not usable.any() or not rest.any():
        fault = "no row with this value matched a face" if not usable.any() else "leaves no other row to measure"
        raise UsageError(f"--tune-on {tune_on}: {fault}")
    chosen, warnings = [], []
    for unit in pairs.units:
        if unit in fixed:
            continue
        best = _best(pairs.truth[unit][usable], pairs.said[unit][usable])
        if best is None:
            warnings.append(f"{unit}: not present in the rows with {tune_on}; its threshold stays {by_unit[unit]:g}")
        else:
            by_unit[unit] = best
            chosen.append(unit)
    both = np.intersect1d(pairs.subjects[usable], pairs.subjects[rest])
    if both.size:
        warnings.append(
            f"{both.size:,} of the {pairs.subject_kind} are both in the rows with {tune_on} and in the measured rows"
        )
    return Thresholds(by_unit, tuple(chosen), rows, warnings)


def _best(truth: NDArray[np.float64], said: NDArray[np.float64]) -> float | None:
    """Return the threshold with the best F1; None without a positive."""
    try:
        from sklearn.metrics import precision_recall_curve
    except ModuleNotFoundError:
        raise UsageError(NEEDS_EXTRA) from None

    known = ~(np.isnan(truth) | np.isnan(said))
    if not (truth[known] > 0.5).any():
        return None
    precision, recall, thresholds = precision_recall_curve(truth[known] > 0.5, said[known])
    both = precision + recall
    f1 = np.divide(2 * precision * recall, both, out=np.zeros_like(both), where=both > 0)
    return float(thresholds[int(np.argmax(f1[:-1]))])
