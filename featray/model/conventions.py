"""Model. Conventions: which sign of which raw number a column has. They belong to a checkpoint, and are recorded.

The axes are the same for every checkpoint (the pose head's numbers 0, 1, 2 are pitch, yaw and roll of a rotation
vector; the gaze head's are yaw and pitch); the signs are not. What a column is meant to say is in `schema.py`; whether
the signs make it so is what `featray models check` looks at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from featray.config import ModelConfig
from featray.errors import ConfigError

_RAW: Final = {"pose_pitch": "p0", "pose_roll": "p2", "pose_yaw": "p1", "gaze_yaw": "g0", "gaze_pitch": "g1"}
"""Number of the pose head (p) or gaze head (g) that a column is made of."""


@dataclass(frozen=True)
class Conventions:
    """Signs, +1 or -1, that the network's raw angles are multiplied with.

    `name` is for people; results depend on the signs alone.
    """

    name: str
    pose_pitch: int
    pose_roll: int
    pose_yaw: int
    gaze_yaw: int
    gaze_pitch: int

    @property
    def signs(self) -> dict[str, int]:
        """The sign of each column."""
        return {column: getattr(self, column) for column in _RAW}

    @property
    def formulas(self) -> str:
        """The signs as `pose_pitch=-p0 ...`, which is what work settings hold."""
        return " ".join(f"{column}={'+-'[self.signs[column] < 0]}{raw}" for column, raw in _RAW.items())

    @property
    def text(self) -> str:
        """Name and formulas, as `runs.conventions` holds them; `parse_conventions` reads it."""
        return f"{self.name}: {self.formulas}"

    @property
    def setting(self) -> str | None:
        """Return what work settings say; None for the signs that every output had before there was a choice."""
        return None if self.signs == NEWEST.signs else self.formulas

    def negated(self, *columns: str) -> Conventions:
        """Return the same with the signs of some columns turned."""
        turned = {column: -getattr(self, column) for column in columns}
        return replace(self, name=f"{self.name}, {' and '.join(columns)} negated" if columns else self.name, **turned)


PYFEAT_2_0: Final = Conventions("py-feat-2.0", pose_pitch=1, pose_roll=-1, pose_yaw=1, gaze_yaw=1, gaze_pitch=1)
"""Of py-feat 2.0.0 to 2.1.0 (`feat/detector_v2.py` of their wheels): pitch of head and gaze as it comes."""

PYFEAT_2_1_2: Final = Conventions("py-feat-2.1.2", pose_pitch=-1, pose_roll=-1, pose_yaw=1, gaze_yaw=1, gaze_pitch=-1)
"""Of py-feat 2.1.2 to 2.1.5, and of all that featray computed before conventions could be set."""

NEWEST: Final = PYFEAT_2_1_2
CONVENTIONS: Final = {known.name: known for known in (PYFEAT_2_1_2, PYFEAT_2_0)}


def configured_conventions(config: ModelConfig) -> Conventions | None:
    """Return what `model.conventions` says; None for `auto`."""
    if config.conventions == "auto":
        return None
    if isinstance(config.conventions, str):
        return CONVENTIONS[config.conventions]
    return CONVENTIONS[config.conventions.of].negated(*config.conventions.negate)


def parse_conventions(text: str | None) -> Conventions:
    """Read `Conventions.text` from a row of `runs`; None, from a featray that had no choice, is the newest.

    Raises:
        ConfigError: it is something else.
    """
    if text is None:
        return NEWEST
    name, _, formulas = text.rpartition(": ")
    found = dict(re.findall(r"(\w+)=([+-])\w+", formulas))
    signs = {column: -1 if found.get(column) == "-" else 1 for column in _RAW}
    read = Conventions(name, **signs)
    if read.text != text:
        raise ConfigError(f"conventions {text[:80]!r}: are none that this version of featray knows")
    return read
