"""Evaluate. Compare two releases on the same labels: the cost of a detector, stride, precision or sampling.

Only labels that both releases can answer are compared, and every resample draws the same subjects for both. Effects
of a subject that are common to both cancel out, and the interval is that of the difference.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featray.errors import UsageError
from featray.evaluate.bootstrap import interval, too_few
from featray.evaluate.evaluation import FACTS, FORMAT, EvaluationSettings, Prepared, prepare
from featray.evaluate.labels import Labels
from featray.evaluate.pairs import Pairs
from featray.evaluate.statistics import Drawn, draw, statistics_of
from featray.report.scope import Scope


@dataclass(frozen=True)
class Change:
    """The difference of a measure between two releases.

    Attributes:
        what, measure, unit: as in Statistic.
        a, b: the measure in each release.
        difference: b - a.
        low, high: bounds of its interval; None with too few subjects.
        rows, subjects: number of rows and subjects used.
    """

    what: str
    measure: str
    unit: str
    a: float | None
    b: float | None
    difference: float | None
    low: float | None
    high: float | None
    rows: int
    subjects: int


@dataclass(frozen=True)
class Against:
    """Two releases compared on the same labels.

    Attributes:
        dataset_a, release_a, dataset_b, release_b: the releases.
        labels, rows: the file of labels and its number of rows.
        found_both, found_a, found_b: labels matched to a face in both releases, only in a, only in b.
        sampled_both: labels whose frame both releases sampled; the rows of `with_missed`.
        subject_kind: what was resampled.
        found: changes over labels matched to a face in both releases.
        with_missed: changes over labels whose frame both releases sampled; a face that was not found counts as wrong.
        warnings: one line each.
        weights_trained: whether the facial numbers of both releases carry meaning.
    """

    dataset_a: str
    release_a: str
    dataset_b: str
    release_b: str
    labels: str
    rows: int
    found_both: int
    found_a: int
    found_b: int
    sampled_both: int
    subject_kind: str
    found: list[Change]
    with_missed: list[Change]
    warnings: list[str]
    weights_trained: bool

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as plain values."""
        return {"format": FORMAT, **asdict(self)}


def compare(a: Scope, b: Scope, labels: Labels, settings: EvaluationSettings) -> Against:
    """Measure two releases on the labels that both can answer.

    Args:
        a: the first release.
        b: the second release; it may be in another output.
        labels: the human labels.
        settings: settings for both; with `tune_on`, each release gets its own thresholds.

    Raises:
        UsageError: the labels do not fit one of the releases, or no label has a frame in both.
    """
    first, second = prepare(a, labels, settings), prepare(b, labels, settings)
    found = [one.pairs.found & one.measured for one in (first, second)]
    sampled = [(one.pairs.found | one.pairs.missed) & one.measured for one in (first, second)]
    both, frames = found[0] & found[1], sampled[0] & sampled[1]
    if not frames.any():
        raise UsageError(f"{labels.where}: no label has a frame in both {a.release} and {b.release}")
    warnings = [*labels.warnings, *(f"{one.release}: {line}" for one, made in ((a, first), (b, second))
                                    for line in made.thresholds.warnings)]  # fmt: skip
    changes = _changes(first, second, (first.pairs, second.pairs), both, settings)
    with_missed = _changes(first, second, (first.pairs.filled(), second.pairs.filled()), frames, settings)
    kind = first.pairs.subject_kind
    return Against(
        dataset_a=a.dataset,
        release_a=a.release,
        dataset_b=b.dataset,
        release_b=b.release,
        labels=labels.where,
        rows=len(labels),
        found_both=int(both.sum()),
        found_a=int((found[0] & ~found[1]).sum()),
        found_b=int((found[1] & ~found[0]).sum()),
        sampled_both=int(frames.sum()),
        subject_kind=kind,
        found=changes,
        with_missed=with_missed,
        warnings=[*warnings, *too_few([*changes, *with_missed], kind)],
        weights_trained=all(scope.row(FACTS)["trained"] for scope in (a, b)),
    )


def _changes(
    a: Prepared,
    b: Prepared,
    pairs: tuple[Pairs, Pairs],
    rows: NDArray[np.bool_],
    settings: EvaluationSettings,
) -> list[Change]:
    """Return the changes; both sides have the same rows, hence the same statistics in the same order."""
    sides = [statistics_of(one, rows, ready.thresholds.by_unit) for one, ready in zip(pairs, (a, b), strict=True)]
    drawn = draw(sides[0] + sides[1], a.pairs.subjects[rows], settings.resamples)
    return [_change(drawn, number, number + len(sides[0])) for number in range(len(sides[0]))]


def _change(drawn: Drawn, a: int, b: int) -> Change:
    one, values = drawn.statistics[a], (drawn.whole(a), drawn.whole(b))
    assert (one.what, one.measure) == (drawn.statistics[b].what, drawn.statistics[b].measure)
    subjects, bounds, difference = drawn.subjects(a), None, None
    if values[0] is not None and values[1] is not None:
        difference = values[1] - values[0]
        if drawn.resampled:
            bounds = interval(drawn.over(b) - drawn.over(a), subjects)
    low, high = bounds or (None, None)
    return Change(one.what, one.measure, one.unit, *values, difference, low, high, int(one.known.sum()), subjects)
