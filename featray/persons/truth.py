"""Persons. Compare persons with labelled tracks."""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final, TextIO

import numpy as np

from featray.errors import UsageError
from featray.persons.agreement import agreement
from featray.tables.persons import TrackKey

_COLUMNS: Final = ("video", "track_id", "person")
_MOST_DIGITS: Final = 18
"""Digits that fit a 64-bit integer; Python refuses to parse more than 4300."""


@dataclass(frozen=True)
class Truth:
    """Agreement of persons with labels.

    Attributes:
        labelled: number of tracks with a label.
        absent: labelled tracks that the release does not have; they count as nothing else.
        without: number of labelled tracks without a person; they are left out of all other figures.
        precision, recall: over pairs of tracks.
        b_cubed_f: B-cubed F.
        switches: number of times that the person found changes between consecutive labelled tracks of one individual
            in a video.
    """

    labelled: int
    absent: list[TrackKey]
    without: int
    precision: float
    recall: float
    b_cubed_f: float
    switches: int


def read_truth(path: Path, find_video: Callable[[str], str]) -> dict[TrackKey, str]:
    """Read a CSV file with the columns `video`, `track_id` and `person`, delimited by `,` or `;`.

    Args:
        path: path of the file.
        find_video: returns the `video_id` for an id, a URI or the end of one.

    Raises:
        UsageError: the file cannot be read, has no rows, or a row is invalid.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(_rows(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"--truth {path}: cannot be read: {error}") from None
    found: dict[TrackKey, str] = {}
    known: dict[str, str] = {}
    for number, (video, track, person) in enumerate(rows, 2):
        if not (video and person and track.isdecimal() and len(track) <= _MOST_DIGITS):
            raise UsageError(
                f"--truth {path}, line {number}: invalid row; it needs {', '.join(_COLUMNS)}, with track_id an integer"
            )
        if video not in known:
            try:
                known[video] = find_video(video)
            except UsageError as error:
                raise UsageError(f"--truth {path}, line {number}: {error}") from None
        found[known[video], int(track)] = person
    if not found:
        raise UsageError(f"--truth {path}: has no rows; add rows with the columns {', '.join(_COLUMNS)}")
    return found


def _rows(file: TextIO) -> Iterator[tuple[str, ...]]:
    """Yield the values of `_COLUMNS` of each row, empty if missing; others of a million columns would fill memory."""
    heading = file.readline()
    reader = csv.reader(chain([heading], file), delimiter=";" if heading.count(";") > heading.count(",") else ",")
    header = next(reader, [])
    places = [header.index(name) if name in header else -1 for name in _COLUMNS]
    for row in reader:
        if row:
            yield tuple(row[place] if 0 <= place < len(row) else "" for place in places)


def compare(
    persons: Mapping[TrackKey, str], truth: Mapping[TrackKey, str], tracks: Collection[TrackKey]
) -> Truth | None:
    """Compare the persons of tracks with labels; return None if no labelled track has a person.

    Tracks are taken in the order of `track_id`.

    Args:
        persons: the person of each track that has one.
        truth: the label of each labelled track.
        tracks: the tracks of the release, at least those of `truth`.
    """
    keys = sorted(key for key in truth if key in persons)
    if not keys:
        return None
    result = agreement(np.array([persons[key] for key in keys]), np.array([truth[key] for key in keys]))
    last: dict[tuple[str, str], str] = {}
    switches = 0
    for key in keys:
        somebody = key[0], truth[key]
        switches += last.get(somebody, persons[key]) != persons[key]
        last[somebody] = persons[key]
    absent = sorted(truth.keys() - set(tracks))
    labelled = len(truth) - len(absent)
    return Truth(labelled, absent, labelled - len(keys), result.precision, result.recall, result.b_cubed_f, switches)
