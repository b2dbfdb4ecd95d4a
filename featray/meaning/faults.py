"""Meaning. Infer faults from the opposed pairs.

Each fault opposes a different set of pairs: a column with the wrong sign opposes all pairs that contain it, a wrong
depth of the mesh all angles of the mesh. The result is the smallest set of faults that opposes exactly the pairs found
opposed; pairs without evidence do not count either way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from featray.meaning.pairs import LAYOUTS, PAIRS, SWAPPED_AXES, Row
from featray.model.conventions import CONVENTIONS, Conventions

_MOST_FAULTS: Final = 3
"""Maximum simultaneous faults; beyond that, pairs are listed without a cause."""

PairName = str


@dataclass(frozen=True)
class Fault:
    """A possible fault.

    Attributes:
        name: the column or other thing at fault, as shown to users.
        opposes: pairs that the fault opposes.
        may_oppose: pairs that it makes meaningless, so that they may have either verdict.
    """

    name: str
    opposes: frozenset[PairName]
    may_oppose: frozenset[PairName] = frozenset()


def _name(first: str, second: str) -> PairName:
    return f"{first} ~ {second}"


def _flipped(*signals: str) -> frozenset[PairName]:
    """Return the pairs with exactly one side among these signals."""
    names = set(signals)
    return frozenset(_name(p.first, p.second) for p in PAIRS if (p.first in names) != (p.second in names))


def _touched(*signals: str) -> frozenset[PairName]:
    names = set(signals)
    return frozenset(_name(p.first, p.second) for p in PAIRS if names & {p.first, p.second, p.given})


_SUM: Final = "AU06 + AU12"
_INVERTED: Final = (
    *("pose_pitch", "pose_yaw", "pose_roll", "gaze_yaw", "gaze_pitch", "emotion_happy", "valence"),
    *("AU43", "AU25", "AU26", "AU01", "AU02", "AU04", "AU06", "AU12"),
    *("eyeBlink", "jawOpen", "browInnerUp", "browOuterUp", "browDown", "mouthSmile"),
)
_OF_SIDES: Final = ("eyeLook left", "eyeBlink left - right", "mouthSmile left - right")


def _faults() -> tuple[Fault, ...]:
    inverted = [
        Fault(name, _flipped(name, f"{name} left - right"), _touched(_SUM) if name in ("AU06", "AU12") else frozenset())
        for name in _INVERTED
    ]
    axes = [
        Fault(
            f"{a} and {b}, which are swapped",
            frozenset({_name(a, b)}),
            _touched(a, b) | {f"{column} ~ {column} of the mirror image" for column in (a, b)},
        )
        for a, b in SWAPPED_AXES
    ]
    return (
        *inverted,
        *axes,
        Fault("eyeLookUp and eyeLookDown", _flipped("eyeLook up")),
        Fault("Left and Right of the blendshapes, which are swapped", _flipped(*_OF_SIDES)),
        Fault(
            "depth of the mesh (z), which is inside out",
            _flipped("mesh pitch", "mesh yaw") | {_name("mesh depth", "canonical face")},
        ),
        Fault(
            "the chips, which are mirrored, or the detector's landmarks", _flipped("landmarks yaw", "landmarks roll")
        ),
        Fault("red and blue of the chips, which are swapped", frozenset({_name("mesh, red and blue swapped", "mesh")})),
    )


FAULTS: Final = _faults()


def name_faults(rows: Sequence[Row]) -> list[str]:
    """Return what is wrong, one phrase per fault; empty if no pair is opposed.

    If the evidence fits several causes, one phrase names them all.
    """
    opposed = frozenset(row.name for row in rows if row.verdict == "opposed")
    if not opposed:
        return []
    mesh = next((row for row in rows if row.name == _name("mesh", "landmarks")), None)
    named = []
    if mesh is not None and mesh.verdict == "opposed":
        named = [
            f"mesh, which is {layout.removeprefix('with its ').removeprefix('with ')}"
            for layout in LAYOUTS
            if layout in mesh.note
        ]
        opposed -= {mesh.name}
    # Pairs of SWAPPED_AXES have a row only if they are swapped.
    agreeing = frozenset(row.name for row in rows if row.verdict == "agrees")
    agreeing |= frozenset(_name(*columns) for columns in SWAPPED_AXES) - opposed
    for count in range(1, _MOST_FAULTS + 1) if opposed else ():
        found = [chosen for chosen in combinations(FAULTS, count) if _explains(chosen, opposed, agreeing)]
        if len(found) == 1:
            return named + [fault.name for fault in found[0]]
        if found:
            ways = [" with ".join(fault.name for fault in chosen) for chosen in found]
            return [*named, " or ".join(ways[:4])]
    return named + sorted(opposed)


def _explains(chosen: tuple[Fault, ...], opposed: frozenset[PairName], agreeing: frozenset[PairName]) -> bool:
    must: frozenset[PairName] = frozenset()
    for fault in chosen:
        must = must ^ fault.opposes  # two faults that oppose the same pair cancel out
    may = frozenset().union(*(fault.may_oppose for fault in chosen))
    seen = opposed | agreeing
    return (must & seen) - may <= opposed <= must | may and all(
        (fault.opposes | fault.may_oppose) & opposed for fault in chosen
    )


def remedy(faults: Sequence[str], conventions: Conventions) -> str:
    """Return one line on what to do about the faults."""
    if not faults:
        return ""
    signed = [name for name in faults if name in conventions.signs]
    if len(signed) < len(faults):
        return f"wrong: {'; '.join(faults)}. Do not use the columns concerned; changing signs does not fix this"
    right = conventions.negated(*signed)
    known = next((one.name for one in CONVENTIONS.values() if one.signs == right.signs), None)
    setting = known or f"{{of: {conventions.name}, negate: [{', '.join(signed)}]}}"
    if conventions.name not in CONVENTIONS and known is None:
        setting = f"other signs for {', '.join(signed)}"
    return f"wrong: the sign of {' and '.join(signed)}. Set model.conventions: {setting}"
