"""Evaluate. Compare one release with labels: matched faces, every measure counted both ways, splits, calibration."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from featray.evaluate.bootstrap import LEVEL, RESAMPLES, too_few
from featray.evaluate.calibration import Calibration, calibrations
from featray.evaluate.card import CardFigure, card_figures
from featray.evaluate.columns import EMOTION
from featray.evaluate.join import LEAST_IOU, Joined, in_words, join_labels
from featray.evaluate.labels import Labels
from featray.evaluate.measures import confusion_rows
from featray.evaluate.pairs import Pairs, conventions, make_pairs
from featray.evaluate.splits import Split, make_splits
from featray.evaluate.statistics import Value, draw, statistics_of, values_of
from featray.evaluate.thresholds import Thresholds, choose_thresholds
from featray.names import EMOTION_NAMES_7
from featray.report.scope import Scope

FORMAT: Final = 1
"""Version of the JSON; raise it when a key changes its meaning."""


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of an evaluation.

    Attributes:
        subject: label column whose values are resampled; None: the column `subject` if there is one, else videos or
            pictures.
        splits: label columns whose groups are measured separately.
        thresholds: as returned by `parse_thresholds`.
        tune_on: `COLUMN=VALUE`, the rows on which thresholds are chosen, and which are then left out.
        least_iou, tolerance_us: as in `join_labels`.
        card: data set whose model-card figures are shown next to the results.
        resamples: number of bootstrap resamples.
    """

    subject: str | None = None
    splits: tuple[str, ...] = ()
    thresholds: dict[str, float] = field(default_factory=dict)
    tune_on: str | None = None
    least_iou: float = LEAST_IOU
    tolerance_us: int | None = None
    card: str | None = None
    resamples: int = RESAMPLES


@dataclass(frozen=True)
class Evaluation:
    """Agreement of a release with labels, in plain values.

    Attributes:
        dataset, release: the release that was measured.
        weights_trained: whether its facial numbers carry meaning.
        model_file: its checkpoint.
        labels: the file of labels.
        rows: number of labels in it.
        fates: number of labels per fate.
        unmatched: labels that matched no face, in words; empty if all matched.
        tuned_on: rows on which thresholds were chosen, and which were not measured.
        several_faces: labels matched to the best-scoring of several faces, since they have no box or point.
        other_emotions: labels with an emotion that is none of the seven; not measured.
        subject_kind: what was resampled.
        level: level of the intervals.
        thresholds: threshold by unit; `chosen` lists the units whose threshold was chosen.
        found: measures over labels that matched a face, as in the literature.
        with_missed: measures that also count labels whose face was not found, as wrong; see `Pairs.filled`.
        card: the model card's figures for this data.
        confusion: labels by labelled (row) and predicted emotion (column), over matched labels; None without emotions.
        splits, calibration: measures by group; calibration by probability.
        warnings: one line each.
    """

    dataset: str
    release: str
    weights_trained: bool
    model_file: str | None
    labels: str
    rows: int
    fates: dict[str, int]
    unmatched: str
    tuned_on: int
    several_faces: int
    other_emotions: int
    subject_kind: str
    level: float
    au_threshold: float | None
    thresholds: dict[str, float]
    chosen: tuple[str, ...]
    found: list[Value]
    with_missed: list[Value]
    card: list[CardFigure]
    confusion: list[list[int]] | None
    splits: list[Split]
    calibration: list[Calibration]
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return the evaluation as plain values."""
        return {"format": FORMAT, **asdict(self)}


@dataclass(frozen=True)
class Prepared:
    """Labels joined to a release, ready to be measured."""

    joined: Joined
    pairs: Pairs
    thresholds: Thresholds

    @property
    def measured(self) -> NDArray[np.bool_]:
        """Return the rows that were not used to choose thresholds."""
        return ~self.thresholds.rows


def prepare(scope: Scope, labels: Labels, settings: EvaluationSettings) -> Prepared:
    """Join labels to a release and choose its thresholds; raises as `evaluate`."""
    joined = join_labels(scope, labels, least_iou=settings.least_iou, tolerance_us=settings.tolerance_us)
    pairs = make_pairs(labels, joined, settings.subject)
    return Prepared(joined, pairs, choose_thresholds(pairs, labels, settings.thresholds, settings.tune_on))


def evaluate(scope: Scope, labels: Labels, settings: EvaluationSettings) -> Evaluation:
    """Measure a release.

    Raises:
        UsageError: the labels do not fit the release, or a setting does not fit the labels.
    """
    ready = prepare(scope, labels, settings)
    pairs, by_unit = ready.pairs, ready.thresholds.by_unit
    facts = scope.row(FACTS)
    figures, card_warnings = card_figures(settings.card, pairs.units, facts["file"])
    met, both = ready.measured & pairs.found, ready.measured & (pairs.found | pairs.missed)

    def measure(of: Pairs, rows: NDArray[np.bool_]) -> list[Value]:
        return values_of(draw(statistics_of(of, rows, by_unit), of.subjects[rows], settings.resamples))

    found, with_missed = measure(pairs, met), measure(pairs.filled(), both)
    few = too_few([*found, *with_missed], pairs.subject_kind)
    return Evaluation(
        dataset=scope.dataset,
        release=scope.release,
        weights_trained=facts["trained"],
        model_file=facts["file"],
        labels=labels.where,
        rows=len(labels),
        fates=ready.joined.counts,
        unmatched=in_words(ready.joined),
        tuned_on=int(ready.thresholds.rows.sum()),
        several_faces=ready.joined.several_faces,
        other_emotions=int((labels.targets.get(EMOTION, np.empty(0)) == len(EMOTION_NAMES_7)).sum()),
        subject_kind=pairs.subject_kind,
        level=LEVEL,
        au_threshold=labels.au_threshold,
        thresholds=by_unit,
        chosen=ready.thresholds.chosen,
        found=found,
        with_missed=with_missed,
        card=figures,
        confusion=_confusion(pairs, met),
        splits=make_splits(pairs, labels, ready.measured, settings.splits, by_unit, settings.resamples),
        calibration=calibrations(pairs, ready.measured),
        warnings=[*labels.warnings, *ready.thresholds.warnings, *card_warnings, *conventions(pairs), *few],
    )


FACTS: Final = """
SELECT coalesce(bool_and(weights_trained), false) AS trained, max_by(model_file, started_at) AS file FROM in_runs
"""
"""Facts about the weights of a release."""


def _confusion(pairs: Pairs, rows: NDArray[np.bool_]) -> list[list[int]] | None:
    if EMOTION not in pairs.truth:
        return None
    matrix = confusion_rows(pairs.truth[EMOTION][rows], pairs.said[EMOTION][rows], len(EMOTION_NAMES_7)).sum(0)
    return [[int(count) for count in row] for row in matrix[:, :-1]]
