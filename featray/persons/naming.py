"""Persons. Names of persons that stay when tracks come and go.

A person keeps the id that most of its tracks had; where two people claim one id, it goes to the one with more of its
tracks. A new id follows from the person's first track, so that it does not depend on the order of the work.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from featray.persons.keys import Key


def name_persons(
    key_at: Callable[[int], Key], person: NDArray[np.int64], had: NDArray[np.int64], before: Sequence[str]
) -> list[str]:
    """Return the ids of persons, in the order of their numbers.

    Args:
        key_at: gives the key of a track by its place.
        person: int64 `[n]`, which person each track is of, 0 to p - 1, by the order of their first tracks.
        had: int64 `[n]`, which of `before` each track had; -1 for none.
        before: ids that there were.
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
    used = taken | set(before)  # an id that is gone is not given to somebody else
    for one, place in enumerate(first.tolist()):
        if one not in named:
            named[one] = _new_name(key_at(place), used)
            used.add(named[one])
    return [named[one] for one in range(len(first))]


def _new_name(first: Key, used: set[str]) -> str:
    for attempt in range(1 << 20):
        text = f"{first[0]}:{first[1]}" + (f":{attempt}" if attempt else "")
        name = f"p-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        if name not in used:
            return name
    raise AssertionError("a million names are taken")
