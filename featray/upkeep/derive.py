"""Upkeep. Deriving `tracks` and `events` for what is published: shard by shard, once under each settings.

A shard's derived files become part of its commit, which is written over in one PUT: a kill leaves it as it was, with
files that no commit names and that the next try writes again under the same names, or as it shall be.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from featray.errors import UsageError
from featray.findings.derive import Derivation
from featray.schema import DERIVED_TABLES, TABLES
from featray.store.scratch import scratch_folder
from featray.tables.commits import Commit, read_commits, write_commit
from featray.tables.derived import derived_writers, open_sources, write_derived
from featray.tables.layout import Partition
from featray.tables.lease import HeldPartition, hold
from featray.tables.replace import DERIVE_PREFIX
from featray.tables.rewrite import footer_of, merged_footer
from featray.upkeep.finish import finish_committed


@dataclass(frozen=True)
class Derived:
    """What was done in a partition.

    Attributes:
        derivation: under which settings.
        shards: derived now.
        already: shards that had been.
        tracks, events: rows written.
    """

    derivation: str
    shards: int
    already: int
    tracks: int
    events: int


def derive_partition(partition: Partition, derivation: Derivation) -> Derived:
    """Derive every shard of a partition that is not yet derived under these settings.

    Raises:
        UsageError: a path field has the name of a column of the derived tables.
        ConfigError: an expression takes a column that the output does not have.
        LeaseError: a run is on.
    """
    with hold(partition, f"{DERIVE_PREFIX}{secrets.token_hex(4)}") as lease:
        held = lease.partition
        finish_committed(held)
        done = already = 0
        rows = dict.fromkeys(DERIVED_TABLES, 0)
        for commit in _shards(held):
            if derivation.name in commit.derived:
                already += 1
                continue
            lease.check()
            derived = derive_commit(held, commit, derivation)
            for file in derived.files[len(commit.files) :]:
                rows[file.table] += file.rows
            done += 1
        return Derived(derivation.name, done, already, rows["tracks"], rows["events"])


def derive_commit(partition: HeldPartition, commit: Commit, derivation: Derivation) -> Commit:
    """Derive one shard and publish the rows with it; its commit as it is then."""
    videos = next(file for file in commit.files if file.table == "videos")
    fields = partition.fields_of(videos.path)
    _check_names(fields)
    with scratch_folder("derive") as scratch, open_sources(partition, commit.files) as sources:
        footer = merged_footer(footer_of(file) for file in sources["frames"] or sources["faces"])
        stem = f"part-{DERIVE_PREFIX}{commit.name}"
        writers = derived_writers(derivation, partition, fields, stem=stem, scratch=scratch, footer=footer)
        try:
            write_derived(derivation, partition, fields, sources, writers)
            files = [file for writer in writers.values() for file in writer.close()]
        finally:
            for writer in writers.values():
                writer.abandon()
    made = {**commit.derived, derivation.name: time.time_ns() // 1000}
    derived = replace(commit, files=[*commit.files, *files], derived=made)
    write_commit(partition, derived)
    return derived


def _shards(partition: Partition) -> Iterator[Commit]:
    """Commits that hold videos."""
    return (commit for commit in read_commits(partition) if any(file.table == "videos" for file in commit.files))


def _check_names(fields: dict[str, str | None]) -> None:
    taken = {column.name.casefold() for table in DERIVED_TABLES for column in TABLES[table]}
    for name in fields:
        if name.casefold() in taken:
            raise UsageError(
                f"derive: this output's path field {name!r} has the name of a column of tracks or events; it can only "
                "be derived from a release with another name in input.path_fields"
            )
