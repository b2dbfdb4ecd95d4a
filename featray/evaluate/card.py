"""Evaluate. The figures of the model card, shown next to an evaluation on the same data.

They are the authors' own figures, for their v2.5 checkpoint and their own pipeline. `docs/explanation/numbers.md` has
the same table, and a test compares the two. Left out is what the card does not state: DISFA, BP4D, EYEDIAP, head pose,
and the second DISFA+ figure, since the card does not say which 8 units it is for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from featray.errors import UsageError

CHECKPOINT: Final = "face_multitask_v2.safetensors"
"""The checkpoint file to which the figures apply."""

DISFA_UNITS: Final = tuple(f"AU{n:02d}" for n in (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26))
"""The 12 units coded in DISFA and DISFA+."""


@dataclass(frozen=True)
class CardFigure:
    """A figure of the card.

    Attributes:
        data: the data set that it was measured on.
        what, measure: as in Statistic.
        value: in the measure's unit.
    """

    data: str
    what: str
    measure: str
    value: float


CARD: Final[dict[str, tuple[CardFigure, ...]]] = {
    "disfa+": (CardFigure("DISFA+, 12 units", "action units", "macro_f1", 0.693),),
    "raf-db": (
        CardFigure("RAF-DB, official test, 7 classes", "emotion", "accuracy", 0.910),
        CardFigure("RAF-DB, official test, 7 classes", "emotion", "macro_f1", 0.885),
    ),
    "affectnet": (
        CardFigure("AffectNet, validation, 7 classes", "emotion", "accuracy", 0.616),
        CardFigure("AffectNet, validation, 7 classes", "emotion", "macro_f1", 0.612),
    ),
    "aff-wild2": (
        CardFigure("Aff-Wild2, official validation", "valence", "ccc", 0.852),
        CardFigure("Aff-Wild2, official validation", "arousal", "ccc", 0.799),
    ),
    "mpiigaze": (CardFigure("MPIIGaze, subjects left out", "gaze", "angular_error", 7.05),),
    "gaze360": (CardFigure("Gaze360, held-out part", "gaze", "angular_error", 12.89),),
}


def card_figures(name: str | None, units: list[str], model_file: str | None) -> tuple[list[CardFigure], list[str]]:
    """Return the card's figures for a data set, and warnings about their comparability.

    Args:
        name: name of the data set; None for no figures.
        units: the labelled action units.
        model_file: the checkpoint of the release, as in `runs`.

    Raises:
        UsageError: the card has no figure for the data set.
    """
    if name is None:
        return [], []
    if name not in CARD:
        raise UsageError(f"--card {name}: no such data set on the model card; choose one of {', '.join(CARD)}")
    warnings = []
    if name == "disfa+" and tuple(units) != DISFA_UNITS:
        return [], [f"--card {name}: its figure is over {', '.join(DISFA_UNITS)}; the labels have {', '.join(units)}"]
    if model_file is None or model_file.rsplit("/", 1)[-1] != CHECKPOINT:
        warnings.append(f"the card's figures are for {CHECKPOINT}; this release uses {model_file or 'another'}")
    return list(CARD[name]), warnings
