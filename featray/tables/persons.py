"""Tables. Read the table `persons`, for commands other than the one that writes it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any, Final

import pyarrow as pa

from featray.schema import arrow_schema
from featray.tables.commits import Commit, read_commits
from featray.tables.layout import Partition
from featray.tables.rewrite import open_parquet

TrackKey = tuple[str, int]
"""`video_id` and `track_id`."""

DOUBTFUL: Final = 0.01
"""Margin below which another person's centre is nearly as close as the track's own."""

LIST_PERSONS: Final = '`featray query OUT "SELECT person_id, name, count(*) FROM persons GROUP BY ALL"`'
"""The command that lists the persons of an output, for messages."""


def clustering_of(path: str) -> str | None:
    """Return the clustering of a file of `persons`, from its path below the root; None for other files."""
    found = re.search("/clustering=(c-[0-9a-f]{8})/", path)
    return found[1] if found else None


def read_person_ids(partition: Partition, commit: Commit) -> Iterator[tuple[TrackKey, str]]:
    """Yield the key of each row of `persons` in a commit, and its `person_id`.

    Raises:
        OutputError: a file is damaged.
    """
    for video, track, person in _rows(partition, commit, ("video_id", "track_id", "person_id")):
        yield (video, track), sys.intern(person)


def find_people(partition: Partition, person: str) -> dict[TrackKey, str]:
    """Return the `person_id` of each track of the person with this id, or of all persons with this name.

    Raises:
        OutputError: a file is damaged.
    """
    columns = ("video_id", "track_id", "person_id", "name")
    found = {}
    for commit in read_commits(partition):
        for video, track, person_id, name in _rows(partition, commit, columns):
            if person in (person_id, name):
                found[video, track] = person_id
    return dict(sorted(found.items()))


def _rows(partition: Partition, commit: Commit, columns: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
    known = arrow_schema("persons")
    schema = pa.schema([known.field(name) for name in columns])
    for file in commit.files:
        if file.table != "persons":
            continue
        with open_parquet(partition.output.root.child(file.path)) as opened:
            for group in range(opened.num_row_groups):
                rows = opened.read_row_group(group, columns=list(columns)).select(columns).cast(schema)
                if any(rows[name].null_count for name in columns[:3]):
                    raise ValueError("a key or person_id is null")
                yield from zip(*(column.to_pylist() for column in rows.columns), strict=True)
