"""Sources. When the pictures of a sequence are shown, as the row of the manifest that names the sequence says."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

PTS_COLUMN: Final = "pts_us"
"""Of a manifest that names folders and tars of pictures: a list of as many times as there are pictures."""

_WANTED: Final = "has to be a list of ascending whole numbers, one for each picture in natural order"
_MAX_US: Final = 1 << 53
"""What a float of JSON or Parquet still holds exactly."""


def read_times(extra: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Return the times that a manifest's row gives, in µs, ascending; None if it gives none.

    Args:
        extra: the row's columns. `pts_us` may be a list, a number, or text with numbers between spaces or commas, as
            CSV has no lists.

    Raises:
        ValueError: there is something else in `pts_us`.
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
            raise ValueError(f"{PTS_COLUMN} holds {str(one)[:40]!r}, and {_WANTED}")
        if found and number <= found[-1]:
            raise ValueError(f"{PTS_COLUMN} has {number} behind {found[-1]}, and {_WANTED}")
        found.append(number)
    return tuple(found)


def times_id(times: tuple[int, ...]) -> str:
    """Name times, as a part of a sequence's content id."""
    return f"{PTS_COLUMN}:{hashlib.sha256(repr(times).encode()).hexdigest()[:16]}"
