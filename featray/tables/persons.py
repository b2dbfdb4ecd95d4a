"""Tables. The table `persons` as it is read by others than the command that writes it."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pyarrow as pa

from featray.schema import arrow_schema
from featray.tables.commits import Commit
from featray.tables.layout import Partition
from featray.tables.rewrite import open_parquet

_COLUMNS = ("video_id", "track_id", "person_id")


def read_person_ids(partition: Partition, commit: Commit) -> Iterator[tuple[tuple[str, int], str]]:
    """Yield `video_id` and `track_id`, and the `person_id`, of each row of `persons` in a commit.

    Raises:
        OutputError: a file is damaged.
    """
    known = arrow_schema("persons")
    schema = pa.schema([known.field(name) for name in _COLUMNS])
    for file in commit.files:
        if file.table != "persons":
            continue
        with open_parquet(partition.output.root.child(file.path)) as opened:
            for group in range(opened.num_row_groups):
                rows = opened.read_row_group(group, columns=list(_COLUMNS)).select(_COLUMNS).cast(schema)
                for video, track, person in zip(*(column.to_pylist() for column in rows.columns), strict=True):
                    if video is None or track is None or person is None:
                        raise ValueError("a key or person_id is null")
                    yield (video, track), sys.intern(person)
