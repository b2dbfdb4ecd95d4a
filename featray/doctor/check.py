"""Doctor. The result of one check."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

_MOST_CHARS: Final = 160
"""Length of an error on the terminal: about two lines."""

State = Literal["ok", "missing", "absent"]


@dataclass(frozen=True)
class Check:
    """One line of `featray doctor`.

    Attributes:
        group: the group of checks.
        name: the thing checked.
        state: `ok`; `missing` if featray does not work without it; `absent` if only an extra needs it.
        found: what was found, without any secret.
        fix: the command or step that fixes it; empty if there is nothing to fix.
    """

    group: str
    name: str
    state: State
    found: str
    fix: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the check as plain values."""
        return asdict(self)


def shortened(error: str) -> str:
    """Return an error on one line, cut between words if it is long."""
    text = " ".join(error.split())
    return text if len(text) <= _MOST_CHARS else f"{text[:_MOST_CHARS].rpartition(' ')[0] or text[:_MOST_CHARS]} ..."
