"""Upkeep. Erase a person: every track listed in `persons`, and other traces of their id.

Each track is a separate erasure. First, the person's ids are removed from the column `previous` of other people's rows,
so that after a kill the same command still finds the remaining tracks. An interrupted erasure is finished first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from featray.errors import OutputError, UsageError
from featray.store.scratch import scratch_folder
from featray.tables.commits import read_commits, write_commit
from featray.tables.layout import Output, Partition, list_partitions
from featray.tables.lease import hold
from featray.tables.persons import LIST_PERSONS, find_people
from featray.tables.replace import ERASE_PREFIX
from featray.tables.rewrite import Edit, rewrite_files
from featray.tables.tombstones import erased_videos, read_erasures
from featray.upkeep.erase import ErasedHere, erase
from featray.upkeep.finish import finish_committed
from featray.upkeep.persons import read_rows

Erased = tuple[str, int, list[ErasedHere]]
"""`video_id`, `track_id` and what was removed."""


def erase_person(
    output: Output, person: str, *, release: str | None = None, reason: str | None = None
) -> Iterator[Erased]:
    """Erase all tracks of a person listed in the table `persons`; yield each with what was removed.

    Args:
        output: erased from all its datasets and releases, unless `release` names one.
        person: a `person_id`, or a `name`, which selects everyone who has it.
        release: the only release to erase from.
        reason: stored in the audit rows; must not name the person.

    Raises:
        UsageError: the output does not have this person.
        LeaseError: a run is active; the same command finishes the erasure later.
        OutputError: after everything else was erased: the record of an earlier erasure is damaged.
    """
    partitions = [one for one in list_partitions(output) if release in (None, one.release)]
    damaged: dict[str, OutputError] = {}
    finished = list(_finish(output, release, damaged))
    yield from finished
    found = {partition: find_people(partition, person) for partition in partitions}
    if not any(found.values()) and not finished and not damaged:
        raise UsageError(
            f"{output.root.uri}: has no person with the id or name {person}; run `featray persons OUT`, then list them "
            f"with {LIST_PERSONS}"
        )
    for partition, tracks in found.items():
        if tracks:
            _forget(partition, sorted(set(tracks.values())))
        for video_id, track_id in tracks:
            if video_id not in damaged:
                removed = erase(output, video_id, track_id=track_id, release=partition.release, reason=reason)
                yield video_id, track_id, removed
    for error in damaged.values():
        raise error


def releases_without(output: Output, person: str, release: str | None) -> list[str]:
    """Return the releases, as dataset/release, that have persons, but none with this id or name.

    Names are given release by release, and are lost by a merge, so somebody may be there under another id.
    """
    return [
        f"{one.dataset}/{one.release}"
        for one in list_partitions(output)
        if release in (None, one.release) and not find_people(one, person) and read_rows(one).num_rows
    ]


def _finish(output: Output, release: str | None, damaged: dict[str, OutputError]) -> Iterator[Erased]:
    """Finish interrupted erasures of tracks, whose rows in `persons` may already be gone.

    The errors of damaged records are added to `damaged`, by video.
    """
    for video_id in erased_videos(output):
        try:
            erasures = read_erasures(output, video_id)
        except OutputError as error:
            damaged[video_id] = error
            continue
        for one in erasures:
            if not one.done and one.track_id is not None and release in (None, one.release):
                removed = erase(output, video_id, track_id=one.track_id, release=one.release, reason=one.reason)
                yield video_id, one.track_id, removed


def _forget(partition: Partition, persons: list[str]) -> None:
    """Remove the ids of the persons from the column `previous` of other people's rows."""
    key = hashlib.sha256(" ".join(persons).encode()).hexdigest()[:12]
    with hold(partition, f"{ERASE_PREFIX}{key}") as lease, scratch_folder("erase") as scratch:
        held = lease.partition
        finish_committed(held)
        for commit in read_commits(held):
            if not any(file.table == "persons" for file in commit.files):
                continue
            edits = {"persons": _without_previous(persons)}
            files = rewrite_files(
                held, commit, edits, touching=None, generation=f"{ERASE_PREFIX}{key}", scratch=scratch
            )
            if files != commit.files:
                write_commit(held, replace(commit, files=files, rewrites=[]))
                for old in commit.files:
                    if old not in files:
                        held.delete(old.path)


def _without_previous(persons: list[str]) -> Edit:
    ids = pa.array(persons, pa.string())

    def edit(rows: pa.Table) -> pa.Table:
        named = pc.is_in(rows["previous"], value_set=ids)
        if not pc.any(named).as_py():
            return rows
        position = rows.column_names.index("previous")
        values = pc.if_else(named, pa.scalar(None, pa.string()), rows["previous"])
        return rows.set_column(position, rows.schema.field("previous"), values)

    return edit
