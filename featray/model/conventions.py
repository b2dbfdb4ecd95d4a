"""Model. Sign conventions: the signs with which raw angles become columns. They differ by checkpoint and are recorded.

The axes are the same for every checkpoint (numbers 0, 1, 2 of the pose head are pitch, yaw and roll of a rotation
vector; those of the gaze head are yaw and pitch), but the signs differ. `schema.py` defines the meaning of each column;
`featray models check` verifies that the signs match it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from featray.config import ModelConfig
from featray.errors import ConfigError

_RAW: Final = {"pose_pitch": "p0", "pose_roll": "p2", "pose_yaw": "p1", "gaze_yaw": "g0", "gaze_pitch": "g1"}
"""The number of the pose head (p) or gaze head (g) that each column is computed from."""


@dataclass(frozen=True)
class Conventions:
    """Signs, +1 or -1, that multiply the network's raw angles.

    `name` is for display; results depend only on the signs.
    """

    name: str
    pose_pitch: int
    pose_roll: int
    pose_yaw: int
    gaze_yaw: int
    gaze_pitch: int

    @property
    def signs(self) -> dict[str, int]:
        """Return the sign of each column."""
        return {column: getattr(self, column) for column in _RAW}

    @property
    def formulas(self) -> str:
        """Return the signs as `pose_pitch=-p0 ...`, the form used in work settings."""
        return " ".join(f"{column}={'+-'[self.signs[column] < 0]}{raw}" for column, raw in _RAW.items())

    @property
    def text(self) -> str:
        """Return name and formulas, the form of `runs.conventions`; `parse_conventions` reads it."""
        return f"{self.name}: {self.formulas}"

    @property
    def setting(self) -> str | None:
        """Return the value for work settings; None for the signs that were fixed before they could be set."""
        return None if self.signs == NEWEST.signs else self.formulas

    def negated(self, *columns: str) -> Conventions:
        """Return a copy with the signs of some columns inverted."""
        turned = {column: -getattr(self, column) for column in columns}
        return replace(self, name=f"{self.name}, {' and '.join(columns)} negated" if columns else self.name, **turned)


PYFEAT_2_0: Final = Conventions("py-feat-2.0", pose_pitch=1, pose_roll=-1, pose_yaw=1, gaze_yaw=1, gaze_pitch=1)
"""Signs of py-feat 2.0.0 to 2.1.0 (`feat/detector_v2.py` of their wheels): raw pitch of head and gaze."""

PYFEAT_2_1_2: Final = Conventions("py-feat-2.1.2", pose_pitch=-1, pose_roll=-1, pose_yaw=1, gaze_yaw=1, gaze_pitch=-1)
"""Signs of py-feat 2.1.2 to 2.1.5, and of all featray results from before conventions could be set."""

NEWEST: Final = PYFEAT_2_1_2
CONVENTIONS: Final = {known.name: known for known in (PYFEAT_2_1_2, PYFEAT_2_0)}


def configured_conventions(config: ModelConfig) -> Conventions | None:
    """Return the conventions of `model.conventions`; None for `auto`."""
    if config.conventions == "auto":
        return None
    if isinstance(config.conventions, str):
        return CONVENTIONS[config.conventions]
    return CONVENTIONS[config.conventions.of].negated(*config.conventions.negate)


def parse_conventions(text: str | None) -> Conventions:
    """Parse `Conventions.text` from a row of `runs`; None, from versions without this setting, gives the newest.

    Raises:
        ConfigError: the text is not valid.
    """
    if text is None:
        return NEWEST
    name, _, formulas = text.rpartition(": ")
    found = dict(re.findall(r"(\w+)=([+-])\w+", formulas))
    signs = {column: -1 if found.get(column) == "-" else 1 for column in _RAW}
    read = Conventions(name, **signs)
    if read.text != text:
        raise ConfigError(f"conventions {text[:80]!r}: unknown to this version of featray")
    return read
