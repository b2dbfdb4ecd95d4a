"""Persons. Persons held against labels: which tracks people have said to be whom."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from featray.errors import UsageError
from featray.persons.agreement import agreement
from featray.persons.keys import Key

_COLUMNS: Final = ("video", "track_id", "person")
_MOST_DIGITS: Final = 18
"""Of a number of 64 bits; Python reads none of more than 4300."""


@dataclass(frozen=True)
class Truth:
    """How well persons agree with labels.

    Attributes:
        labelled: tracks with a label.
        without: of those, how many have no person here; they count in nothing else.
        precision, recall: of pairs of tracks.
        b_cubed_f: of B-cubed.
        switches: how often, from one labelled track of somebody to the next in a video, the person here is another.
    """

    labelled: int
    without: int
    precision: float
    recall: float
    b_cubed_f: float
    switches: int


def read_truth(path: Path, find_video: Callable[[str], str]) -> dict[Key, str]:
    """Read a CSV file with the columns `video`, `track_id` and `person`.

    Args:
        path: of the file.
        find_video: gives the `video_id` of a video as people name it.

    Raises:
        UsageError: it cannot be read, or a row is none.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"--truth {path}: cannot be read: {error}") from None
    found: dict[Key, str] = {}
    known: dict[str, str] = {}
    for number, row in enumerate(rows, 2):
        video, track, person = (row.get(name) or "" for name in _COLUMNS)
        if not (video and person and track.isdecimal() and len(track) <= _MOST_DIGITS):
            raise UsageError(f"--truth {path}, line {number}: needs {', '.join(_COLUMNS)}, the second a number")
        if video not in known:
            known[video] = find_video(video)
        found[known[video], int(track)] = person
    if not found:
        raise UsageError(f"--truth {path}: has no row; its columns are {', '.join(_COLUMNS)}")
    return found


def compare(persons: Mapping[Key, str], truth: Mapping[Key, str]) -> Truth | None:
    """Compare the persons of tracks with labels; None if no labelled track has a person.

    Tracks follow each other in the order of `track_id`.
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
    return Truth(len(truth), len(truth) - len(keys), result.precision, result.recall, result.b_cubed_f, switches)
