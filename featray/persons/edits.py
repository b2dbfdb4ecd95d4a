"""Persons. Apply the edits that people made to the persons that the clustering found, in order."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featray.persons.cluster import Tracks
from featray.persons.joining import at_once
from featray.persons.keys import TrackKeys
from featray.tables.person_edits import NamedTrack, PersonEdit


def apply_edits(
    person: NDArray[np.int64], edits: list[PersonEdit], keys: TrackKeys, tracks: Tracks
) -> tuple[NDArray[np.int64], NDArray[np.bool_], list[PersonEdit]]:
    """Return the person of each track, as `cluster` does, which tracks a split took away, and the edits not applied.

    An edit is not applied if it merges persons who are on screen at the same time, or if its tracks no longer exist.
    """
    person, split_off, refused = person.copy(), np.zeros(len(person), bool), []
    apart = np.divmod(at_once(tracks.video, tracks.start, tracks.end), max(len(person), 1)) if edits else None
    for edit in edits:
        places = _places(keys, edit.tracks)
        if edit.kind == "merge":
            assert apart is not None
            done = _merge(person, places, apart)
        else:
            assert edit.stays is not None
            done = _split(person, split_off, places, int(_places(keys, [edit.stays])[0]))
        if not done:
            refused.append(edit)
    return person, split_off, refused


def together_on_screen(
    person: NDArray[np.int64], some: NDArray[np.int64], apart: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> NDArray[np.int64]:
    """Return the indices of the pairs in `apart` whose tracks are of two different persons in `some`.

    Args:
        person: person of each track.
        some: persons to check.
        apart: both tracks of each pair that is on screen at the same time.
    """
    one, other = (person[end] for end in apart)
    return np.flatnonzero((one != other) & np.isin(one, some) & np.isin(other, some))


def _merge(
    person: NDArray[np.int64], places: NDArray[np.int64], apart: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> bool:
    persons = np.unique(person[places[places >= 0]])
    if (places < 0).any() or len(together_on_screen(person, persons, apart)):
        return False
    person[np.isin(person, persons)] = persons[0]  # a person's number is the position of its first track
    return True


def _split(person: NDArray[np.int64], split_off: NDArray[np.bool_], places: NDArray[np.int64], stays: int) -> bool:
    if stays < 0 or (places < 0).all():
        return False
    known = places[places >= 0]
    left = person[stays]
    leave = known[person[known] == left]
    if len(leave):
        person[leave] = -1
        person[person == left] = np.flatnonzero(person == left)[0]
        person[leave] = leave.min()
        split_off[leave] = True
    return True


def _places(keys: TrackKeys, tracks: list[NamedTrack]) -> NDArray[np.int64]:
    return keys.places(pa.array([one.video_id for one in tracks], pa.string()), [one.track_id for one in tracks])
