"""Persons. Assign ids to persons that stay stable when tracks are added or removed.

A person keeps the id that most of its tracks had. If two persons claim one id, the one with more of its tracks gets it.
A new id is derived from the person's first track, so it does not depend on the order of the work.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from featray.tables.persons import TrackKey


def name_persons(
    key_at: Callable[[int], TrackKey], person: NDArray[np.int64], had: NDArray[np.int64], before: Sequence[str]
) -> list[str]:
    """Return the ids of persons, in the order of their numbers.

    Args:
        key_at: returns the key of the track at a position.
        person: int64 `[n]`, person of each track, 0 to p - 1, in the order of their first tracks.
        had: int64 `[n]`, index into `before` of each track's previous id; -1 for none.
        before: previous ids.
    """
    first = np.unique(person, return_index=True)[1]
    known = np.flatnonzero(had >= 0)
    claim, count = np.unique(person[known] * max(len(before), 1) + had[known], return_counts=True)
    claims = zip(*np.divmod(claim, max(len(before), 1)), count, strict=True)
    named: dict[int, str] = {}
    taken: set[str] = set()
    for _, _, name, one in sorted((-int(n), int(first[one]), before[old], int(one)) for one, old, n in claims):
        if one not in named and name not in taken:
            named[one] = name
            taken.add(name)
    used = taken | set(before)  # an id that is no longer used is not reassigned to another person
    for one, place in enumerate(first.tolist()):
        if one not in named:
            named[one] = _new_name(key_at(place), used)
            used.add(named[one])
    return [named[one] for one in range(len(first))]


def _new_name(first: TrackKey, used: set[str]) -> str:
    for attempt in range(1 << 20):
        text = f"{first[0]}:{first[1]}" + (f":{attempt}" if attempt else "")
        name = f"p-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        if name not in used:
            return name
    raise AssertionError("a million names are taken")
