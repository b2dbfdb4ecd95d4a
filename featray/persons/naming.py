"""Persons. Names of persons that stay when tracks come and go.

A person keeps the name that most of its tracks had; where two people claim one name, it goes to the one with more of
its tracks. A new name follows from the person's first track, so that it does not depend on the order of the work.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

Key = tuple[str, int]
"""`video_id` and `track_id`."""


def name_persons(keys: Sequence[Key], person: Sequence[int], before: Mapping[Key, str]) -> list[str]:
    """Return the name of each track's person.

    Args:
        keys: of the tracks, sorted.
        person: which of them belong together, any numbers.
        before: names that tracks had.
    """
    members: dict[int, list[Key]] = {}
    for key, one in zip(keys, person, strict=True):
        members.setdefault(one, []).append(key)
    claims = sorted(
        (-count, members[one][0], name, one)
        for one, of in members.items()
        for name, count in Counter(before[key] for key in of if key in before).items()
    )
    named: dict[int, str] = {}
    taken: set[str] = set()
    for _, _, name, one in claims:
        if one not in named and name not in taken:
            named[one] = name
            taken.add(name)
    used = taken | set(before.values())  # a name that is gone is not given to somebody else
    for one, of in sorted(members.items(), key=lambda item: item[1][0]):
        if one not in named:
            named[one] = _new_name(of[0], used)
            used.add(named[one])
    return [named[one] for one in person]


def _new_name(first: Key, used: set[str]) -> str:
    for attempt in range(1 << 20):
        text = f"{first[0]}:{first[1]}" + (f":{attempt}" if attempt else "")
        name = f"p-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        if name not in used:
            return name
    raise AssertionError("a million names are taken")
