"""Sources. Read the times of a sequence's pictures from its row in a manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

PTS_COLUMN: Final = "pts_us"
"""Column of a manifest that names folders and tars of pictures: a list with one time per picture."""

_WANTED: Final = "must be a list of ascending whole numbers, one per picture in natural order"
_MAX_US: Final = 1 << 53
"""Largest integer that a float in JSON or Parquet holds exactly."""


def read_times(extra: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Return the times in a manifest's row, in µs, ascending; None if it has none.

    Args:
        extra: the row's columns. `pts_us` may be a list, a number, or (for CSV) text with numbers separated by spaces
            or commas.

    Raises:
        ValueError: `pts_us` contains anything else.
    """
    value = extra.get(PTS_COLUMN)
    if isinstance(value, str):
        value = value.strip().removeprefix("[").removesuffix("]").replace(",", " ").split()
    if value is None or value == []:
        return None
    found: list[int] = []
    for one in value if isinstance(value, list) else [value]:
        try:
            number = int(one)
            is_whole = not isinstance(one, bool) and (isinstance(one, str) or number == one) and abs(number) < _MAX_US
        except (TypeError, ValueError, OverflowError):
            is_whole = False
        if not is_whole:
            raise ValueError(f"{PTS_COLUMN} contains {str(one)[:40]!r}; it {_WANTED}")
        if found and number <= found[-1]:
            raise ValueError(f"{PTS_COLUMN} has {number} after {found[-1]}; it {_WANTED}")
        found.append(number)
    return tuple(found)


def times_id(times: tuple[int, ...]) -> str:
    """Return a digest of the times, as part of a sequence's content id."""
    return f"{PTS_COLUMN}:{hashlib.sha256(repr(times).encode()).hexdigest()[:16]}"
