"""Persons. Assign ids to persons that stay stable when tracks are added or removed.

A person keeps the id that most of its tracks had. If two persons claim one id, the one that an edit did not split off
gets it, else the one with more of its tracks, else the one whose tracks had it longer. The other gets back the id that
its tracks had before, if they alone had it, so a merge that is taken back gives both persons their ids again. A new id
is derived from the person's first track, so it does not depend on the order of the work.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featray.tables.persons import TrackKey


@dataclass(frozen=True)
class Former:
    """Ids that tracks had earlier.

    Attributes:
        had: int64 `[n]`, index into `ids` of each track's id; -1 for none.
        ids: ids, without repetition.
    """

    had: NDArray[np.int64]
    ids: Sequence[str]

    def claims(self, person: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return the pairs of a person and an id of its tracks: the persons, the ids, and each track's pair or -1."""
        known = self.had >= 0
        width = max(len(self.ids), 1)
        pairs, place = np.unique(person[known] * width + self.had[known], return_inverse=True)
        of_track = np.full(len(person), -1)
        of_track[known] = place
        return *np.divmod(pairs, width), of_track


def name_persons(
    key_at: Callable[[int], TrackKey],
    person: NDArray[np.int64],
    before: Former,
    earlier: Former,
    split_off: NDArray[np.bool_],
) -> list[str]:
    """Return the ids of persons, in the order of their numbers.

    Args:
        key_at: returns the key of the track at a position.
        person: int64 `[n]`, person of each track, 0 to p - 1, in the order of their first tracks.
        before: the ids that tracks had until now.
        earlier: the ids that tracks had before those.
        split_off: bool `[n]`, whether an edit split the track off from a person.
    """
    first = np.unique(person, return_index=True)[1]
    named: dict[int, str] = {}
    taken: set[str] = set()
    for name, one in _by_tracks(person, first, before, earlier, split_off):
        if one not in named and name not in taken:
            named[one] = name
            taken.add(name)
    used = taken | set(before.ids)  # an id that is no longer used is not reassigned to another person
    for name, one in _given_back(person, earlier):
        if one not in named and name not in used:
            named[one] = name
            used.add(name)
    for one, place in enumerate(first.tolist()):
        if one not in named:
            named[one] = _new_name(key_at(place), used)
            used.add(named[one])
    return [named[one] for one in range(len(first))]


def _by_tracks(
    person: NDArray[np.int64],
    first: NDArray[np.intp],
    before: Former,
    earlier: Former,
    split_off: NDArray[np.bool_],
) -> Iterator[tuple[str, int]]:
    """Yield the ids of a person's tracks with the person, those with the best claim first."""
    one, name, of_track = before.claims(person)
    known = of_track >= 0
    count = np.bincount(of_track[known], minlength=len(one))
    came = np.bincount(of_track[known & (earlier.had >= 0)], minlength=len(one))  # from another person
    stayed = np.bincount(of_track[known & ~split_off], minlength=len(one)) > 0
    order = sorted(
        (not stays, -int(n), int(later), int(first[who]), before.ids[which], int(who))
        for who, which, n, later, stays in zip(one, name, count, came, stayed, strict=True)
    )
    yield from ((name, who) for *_, name, who in order)


def _given_back(person: NDArray[np.int64], earlier: Former) -> Iterator[tuple[str, int]]:
    """Yield ids that a person's tracks had, and no other person's, with the person; those of most tracks first."""
    one, name, of_track = earlier.claims(person)
    count = np.bincount(of_track[of_track >= 0], minlength=len(one))
    persons_of = np.bincount(name, minlength=len(earlier.ids))
    alone = [
        (-int(n), earlier.ids[which], int(who))
        for who, which, n in zip(one, name, count, strict=True)
        if persons_of[which] == 1
    ]
    yield from ((name, who) for _, name, who in sorted(alone))


def _new_name(first: TrackKey, used: set[str]) -> str:
    for attempt in range(1 << 20):
        text = f"{first[0]}:{first[1]}" + (f":{attempt}" if attempt else "")
        name = f"p-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        if name not in used:
            return name
    raise AssertionError("a million names are taken")
