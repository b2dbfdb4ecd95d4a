"""Evaluate. All measures of a set of labels, with their intervals, from one draw of resamples.

A statistic consists of rows of contributions and a function of their sum (`measures.py`). The same few lines therefore
measure any set of rows, any resample and any pair of releases.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from featray.evaluate import measures
from featray.evaluate.bootstrap import RESAMPLES, STUDENTIZED, correlation_interval, interval, resample, sum_by
from featray.evaluate.columns import AFFECT, EMOTION, POSE
from featray.evaluate.measures import Floats
from featray.evaluate.pairs import Pairs
from featray.names import EMOTION_NAMES_7

UNITS: Final = "action units"
"""Subject of a macro F1 over the labelled action units."""

HEAD: Final = "head pose"


MEASURES: Final[dict[str, str]] = {
    "f1": "F1",
    "macro_f1": "macro F1",
    "icc": "ICC(3,1)",
    "mean_icc": "mean ICC(3,1)",
    "accuracy": "accuracy",
    "ccc": "CCC",
    "angular_error": "angular error, °",
    "mae": "MAE, °",
}
"""Display names of the measures."""


def measure_name(what: str, measure: str) -> str:
    """Return the display name of a measure: `AU12 F1`, `valence CCC`."""
    return f"{what.removeprefix('emotion_')} {MEASURES[measure]}"


@dataclass(frozen=True)
class Statistic:
    """One measure of some rows.

    Attributes:
        what: an action unit, `action units`, `emotion`, `emotion_happy`, `valence`, `gaze`, `pose_yaw`, `head pose`.
        measure: `f1`, `macro_f1`, `icc`, `accuracy`, `ccc`, `angular_error`, `mae`.
        unit: `°`, or empty.
        rows: contributions, `[n, k]`.
        value: the measure, as a function of sums `[..., k]`.
        known: rows that are labelled and measured, `[n]`.
        positives: rows labelled as present; None if not applicable.
        correlation: whether it behaves like a correlation.
    """

    what: str
    measure: str
    unit: str
    rows: Floats
    value: Callable[[Floats], Floats]
    known: NDArray[np.bool_]
    positives: int | None = None
    correlation: bool = False


@dataclass(frozen=True)
class Value:
    """A measure with its 95 % interval; None if it is not defined, or bounds None with too few subjects.

    Attributes:
        what, measure, unit, positives: as in Statistic.
        value, low, high: the measure and its interval.
        rows: number of labels used.
        subjects: number of subjects, videos or pictures used, which were resampled.
    """

    what: str
    measure: str
    unit: str
    value: float | None
    low: float | None
    high: float | None
    rows: int
    subjects: int
    positives: int | None = None


def statistics_of(pairs: Pairs, chosen: NDArray[np.bool_], thresholds: dict[str, float]) -> list[Statistic]:
    """Return the measures of the chosen rows; measures without a labelled row are left out.

    Args:
        pairs: truth and predictions.
        chosen: mask of the rows, `[n]`.
        thresholds: probability from which a unit counts as predicted present, by unit.
    """
    truth = {name: values[chosen] for name, values in pairs.truth.items()}
    said = {name: values[chosen] for name, values in pairs.said.items()}
    intensities = {name: values[chosen] for name, values in pairs.intensities.items()}
    found = [*_units(pairs.units, truth, said, intensities, thresholds), *_emotions(truth, said)]
    for name in AFFECT:
        if name in truth:
            rows = measures.moment_rows(truth[name], said[name])
            found.append(Statistic(name, "ccc", "", rows, measures.ccc_of, rows[:, 0] > 0, correlation=True))
    if "gaze" in truth:
        errors = measures.error_rows(measures.angles_between_deg(truth["gaze"], said["gaze"]))
        found.append(Statistic("gaze", "angular_error", "°", errors, measures.mean_of, errors[:, 1] > 0))
    found += _pose(truth, said)
    return [one for one in found if one.known.any()]


def _units(
    units: list[str],
    truth: dict[str, Floats],
    said: dict[str, Floats],
    intensities: dict[str, Floats],
    thresholds: dict[str, float],
) -> list[Statistic]:
    found, every = [], []
    for unit in units:
        known = ~(np.isnan(truth[unit]) | np.isnan(said[unit]))
        there = np.where(known, truth[unit], np.nan)
        rows = measures.f1_rows(there, said[unit] >= thresholds[unit])
        positives = int((there > 0.5).sum())
        found.append(Statistic(unit, "f1", "", rows, measures.f1_of, known, positives))
        every.append(rows)
    if every:
        rows = np.stack(every, axis=1)
        known = _any_of(found)
        value = _shaped(measures.macro_f1_of, rows.shape[1:])
        found.append(Statistic(UNITS, "macro_f1", "", rows, value, known))
    moments = {unit: measures.moment_rows(intensities[unit], said[unit]) for unit in units if unit in intensities}
    for unit, rows in moments.items():
        found.append(Statistic(unit, "icc", "", rows, measures.icc_of, rows[:, 0] > 0, correlation=True))
    if moments:
        rows = np.stack(list(moments.values()), axis=1)
        value = _shaped(lambda sums: measures.mean_of_known(measures.icc_of(sums)), rows.shape[1:])
        found.append(Statistic(UNITS, "mean_icc", "", rows, value, rows[:, :, 0].sum(axis=1) > 0))
    return found


def _emotions(truth: dict[str, Floats], said: dict[str, Floats]) -> list[Statistic]:
    if EMOTION not in truth:
        return []
    classes = len(EMOTION_NAMES_7)
    rows = measures.confusion_rows(truth[EMOTION], said[EMOTION], classes)
    known, shape = rows.sum(axis=(1, 2)) > 0, rows.shape[1:]
    found = [
        Statistic(EMOTION, "accuracy", "", rows, _shaped(measures.accuracy_of, shape), known),
        Statistic(EMOTION, "macro_f1", "", rows, _shaped(measures.class_macro_f1_of, shape), known),
    ]
    for number, name in enumerate(EMOTION_NAMES_7):
        one = (truth[EMOTION] == number).astype(np.float64)
        one[np.isnan(truth[EMOTION])] = np.nan
        counts = measures.f1_rows(one, said[EMOTION] == number)
        found.append(Statistic(f"emotion_{name}", "f1", "", counts, measures.f1_of, known, int(np.nansum(one))))
    return found


def _pose(truth: dict[str, Floats], said: dict[str, Floats]) -> list[Statistic]:
    axes = [name for name in POSE if name in truth]
    errors = [measures.error_rows(measures.turn_deg(truth[name], said[name])) for name in axes]
    found = [
        Statistic(name, "mae", "°", rows, measures.mean_of, rows[:, 1] > 0)
        for name, rows in zip(axes, errors, strict=True)
    ]
    if len(axes) > 1:
        rows = np.stack(errors, axis=1)
        value = _shaped(measures.mean_of_means, rows.shape[1:])
        found.append(Statistic(HEAD, "mae", "°", rows, value, _any_of(found)))
    return found


def _shaped(value: Callable[[Floats], Floats], shape: tuple[int, ...]) -> Callable[[Floats], Floats]:
    """Return the measure for sums whose last axes were flattened."""
    return lambda sums: value(sums.reshape(*sums.shape[:-1], *shape))


def _any_of(found: list[Statistic]) -> NDArray[np.bool_]:
    """Return the rows that any of the statistics measures."""
    return np.asarray(np.stack([one.known for one in found]).any(axis=0), np.bool_)


@dataclass(frozen=True)
class Drawn:
    """Statistics with the sums of each subject and of each resample.

    Attributes:
        statistics: statistics over the same rows.
        sums: sums of each subject, `[subjects, k]` per statistic.
        resampled: sums of each resample, `[resamples, k]` per statistic; empty if none were drawn.
        present: whether a subject has a row, `[subjects]` per statistic.
    """

    statistics: list[Statistic]
    sums: list[Floats]
    resampled: list[Floats]
    present: list[NDArray[np.bool_]]

    def whole(self, number: int) -> float | None:
        """Return the measure over all rows."""
        return _known(self.statistics[number].value(self.sums[number].sum(0)))

    def over(self, number: int) -> Floats:
        """Return the measure in each resample."""
        return self.statistics[number].value(self.resampled[number])

    def subjects(self, number: int) -> int:
        """Return the number of subjects that have a row in the statistic."""
        return int(self.present[number].sum())


def draw(statistics: list[Statistic], subjects: NDArray[np.int64], resamples: int = RESAMPLES, seed: int = 0) -> Drawn:
    """Sum the rows of each subject, and resample all statistics with the same draw.

    Args:
        statistics: statistics over the same rows.
        subjects: subject of each row, `[n]`; any numbers.
        resamples: number of resamples; 0 for none.
        seed: seed of the draw.
    """
    names, codes = np.unique(subjects, return_inverse=True)
    sums = [sum_by(one.rows, codes, len(names)) for one in statistics]
    present = [np.bincount(codes, one.known, len(names)) > 0 for one in statistics]
    if not sums or not resamples or not len(names):
        return Drawn(statistics, sums, [], present)
    ends = np.cumsum([one.shape[1] for one in sums])
    resampled = np.split(resample(np.concatenate(sums, axis=1), resamples, seed), ends[:-1], axis=1)
    return Drawn(statistics, sums, resampled, present)


def values_of(drawn: Drawn, seed: int = 0) -> list[Value]:
    """Return the drawn measures with their intervals."""
    found = []
    for number, one in enumerate(drawn.statistics):
        value, bounds, subjects = drawn.whole(number), None, drawn.subjects(number)
        if drawn.resampled and value is not None:
            if one.correlation and subjects <= STUDENTIZED:
                with_rows = drawn.sums[number][drawn.present[number]]
                bounds = correlation_interval(with_rows, one.value, len(drawn.resampled[number]), seed)
            else:
                bounds = interval(drawn.over(number), subjects)
        low, high = bounds or (None, None)
        rows = int(one.known.sum())
        found.append(Value(one.what, one.measure, one.unit, value, low, high, rows, subjects, one.positives))
    return found


def _known(value: Floats) -> float | None:
    return None if np.isnan(value) else float(value)
