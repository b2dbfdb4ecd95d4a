"""Evaluate. Check that label values are plausible for their column: ranges, units, names of emotions."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from featray.errors import UsageError
from featray.evaluate.columns import Columns
from featray.evaluate.measures import Floats
from featray.names import EMOTION_NAMES_7

MOST_INTENSE: Final = 5.0
"""FACS's E; A is 1."""

OTHER_EMOTION: Final = len(EMOTION_NAMES_7)
"""The index of an emotion that is none of the seven."""

_ALIASES: Final[dict[str, str]] = {
    "happiness": "happy", "joy": "happy", "sadness": "sad", "surprised": "surprise", "fearful": "fear",
    "afraid": "fear", "disgusted": "disgust", "angry": "anger",
}  # fmt: skip
_OTHERS: Final = ("contempt", "contemptuous", "other", "none", "uncertain", "no-face", "non-face")

_FEW_DEGREES: Final = 1.6
_ENOUGH_ROWS: Final = 50
"""Minimum rows for the warning that degrees, if all are within 1.6, look like radians."""


def check_units(columns: Columns, targets: dict[str, Floats], threshold: float | None, where: str) -> bool:
    """Return whether the action units are intensities.

    Raises:
        UsageError: a value is not within 0 to 5; or intensities have no threshold, or a threshold no intensities.
    """
    intense = False
    for name in columns.action_units:
        values, called = targets[name], columns.targets[name]
        if (bad := np.flatnonzero((values < 0) | (values > MOST_INTENSE))).size:
            raise UsageError(
                f"{where}: row {bad[0] + 1}: {called} is {values[bad[0]]:g}; units are 0 or 1, or intensities from "
                f"0 to 5; leave it empty if it was not coded"
            )
        intense |= bool((~np.isnan(values) & (values != 0) & (values != 1)).any())
    if intense and threshold is None:
        raise UsageError(
            f"{where}: the action units are intensities; give the intensity from which one counts as present, "
            "such as --au-threshold 2"
        )
    if threshold is not None and not intense and columns.action_units:
        raise UsageError(f"--au-threshold {threshold:g}: the action units in {where} are only 0 and 1; omit it")
    return intense


def check_affect(name: str, values: Floats, where: str) -> None:
    """Check that valence or arousal is within [-1, 1].

    Raises:
        UsageError: it is not.
    """
    if (bad := np.flatnonzero(np.abs(values) > 1)).size:
        raise UsageError(
            f"{where}: row {bad[0] + 1}: {name} is {values[bad[0]]:g}; its range is -1 to 1: rescale it, and leave it "
            "empty if unknown"
        )


def check_angles(columns: Columns, angles: dict[str, Floats], where: str) -> list[str]:
    """Check that angles can be in the unit of their columns, and return warnings.

    Raises:
        UsageError: an angle is out of range.
    """
    for name, values in angles.items():
        called, is_deg = columns.targets[name], name in columns.degrees
        most = (90.0 if name == "gaze_pitch" else 180.0) * (1 if is_deg else math.pi / 180)
        if (bad := np.flatnonzero(np.abs(values) > most * (1 + 1e-6))).size:
            value, row = values[bad[0]], bad[0] + 1
            if is_deg:
                raise UsageError(
                    f"{where}: row {row}: {called} is {value:g}; its range is -{most:g} to {most:g} degrees"
                )
            raise UsageError(
                f"{where}: row {row}: {called} is {value:g}, beyond {most:.4g} radians; name a column in degrees "
                f"{name}_deg"
            )
    in_degrees = {name: values[~np.isnan(values)] for name, values in angles.items() if name in columns.degrees}
    if not in_degrees or min(map(len, in_degrees.values())) < _ENOUGH_ROWS:
        return []
    if max(np.abs(values).max() for values in in_degrees.values()) > _FEW_DEGREES:
        return []
    names = ", ".join(columns.targets[name] for name in in_degrees)
    return [f"{names}: all within {_FEW_DEGREES} degrees; if they are radians, name them {', '.join(in_degrees)}"]


def read_emotions(texts: NDArray[np.object_], numbers: dict[str, str], where: str) -> Floats:
    """Return emotions as indices of the seven; OTHER_EMOTION for any other emotion, NaN without a label.

    Args:
        texts: names, or numbers.
        numbers: name by number.
        where: the file, for messages.

    Raises:
        UsageError: a name is unknown, or numbers have no names.
    """
    found = np.full(len(texts), np.nan)
    meaning: dict[str, float] = {}
    for row, text in enumerate(texts):
        if text is None:
            continue
        if text not in meaning:
            meaning[text] = _emotion(text, numbers, f"{where}: row {row + 1}")
        found[row] = meaning[text]
    return found


def _emotion(text: str, numbers: dict[str, str], where: str) -> float:
    name = numbers.get(text.strip(), text.strip()).lower()
    name = _ALIASES.get(name, name)
    if name in EMOTION_NAMES_7:
        return float(EMOTION_NAMES_7.index(name))
    if name in _OTHERS:
        return float(OTHER_EMOTION)
    if name.lstrip("-").isdigit():
        raise UsageError(
            f"{where}: emotion is {text}; give names for the numbers, such as --emotions 0=neutral,1=happy,..."
        )
    raise UsageError(f"{where}: emotion is {text[:40]!r}; use {', '.join(EMOTION_NAMES_7)}, contempt or other")


def parse_emotions(text: str | None) -> dict[str, str]:
    """Return emotion names by number from a text such as `0=neutral,1=happy`.

    Raises:
        UsageError: the text has another form, or a name is unknown.
    """
    found = {}
    for part in (text or "").split(",") if text else ():
        number, equals, name = part.partition("=")
        if not equals or not number.strip():
            raise UsageError(f"--emotions {part}: write it as 0=neutral,1=happy,...")
        _emotion(name, {}, "--emotions")
        found[number.strip()] = name.strip()
    return found
