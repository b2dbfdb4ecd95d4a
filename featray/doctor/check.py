"""Doctor. What a check answers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["ok", "missing", "absent"]


@dataclass(frozen=True)
class Check:
    """One line of the doctor's.

    Attributes:
        group: what it is about.
        name: what was looked at.
        state: `ok`; `missing` where featray does not work without it; `absent` where only an extra needs it.
        found: what was found, without any secret.
        mend: the command or step that mends it; empty if there is nothing to mend.
    """

    group: str
    name: str
    state: State
    found: str
    mend: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)
