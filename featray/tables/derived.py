"""Tables. Write derived rows as additional files of the commit whose rows they are derived from.

Replacing, erasing or dropping a video therefore removes its derived rows in the same commit. The code that derives rows
is passed in as a `Derive`: it depends on the tables, and reading the tables does not depend on it.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from featray.errors import UsageError
from featray.schema import DERIVED_TABLES, TABLES
from featray.store.scratch import scratch_folder
from featray.tables.commits import Commit, CommittedFile, write_commit
from featray.tables.layout import Partition
from featray.tables.lease import HeldPartition
from featray.tables.replace import DERIVE_PREFIX
from featray.tables.rewrite import footer_of, merged_footer, open_parquet
from featray.tables.writer import TableWriter

SOURCES = ("faces", "blendshapes", "mesh", "frames")
"""The tables that rows are derived from."""


class Derive(Protocol):
    """Makes derived rows; see `findings/derive.py`."""

    @property
    def name(self) -> str:
        """The value of the partition `derivation`."""
        ...

    @property
    def footer(self) -> dict[str, str]:
        """Return the entries to add to the footers of its files, in addition to the provenance of the faces."""
        ...

    @property
    def made_from(self) -> Mapping[str, str]:
        """Return what the rows of a shard depend on in other shards; see `Commit.derived_from`."""
        ...

    def __call__(self, files: Mapping[str, Sequence[pq.ParquetFile]]) -> Iterator[tuple[str, pa.Table]]:
        """Yield tables' names and sorted rows of derived tables, made from the files of a commit by table."""
        ...


def derivation_of(path: str) -> str | None:
    """Return the derivation of a derived table's file from its path below the root."""
    found = re.search("/derivation=(d-[0-9a-f]{8})/", path)
    return found[1] if found else None


def derived_writers(
    derive: Derive,
    partition: HeldPartition,
    fields: Mapping[str, str | None],
    *,
    stem: str,
    scratch: str,
    footer: dict[str, str],
) -> dict[str, TableWriter]:
    """Return writers of the derived tables, by table, for one partition folder.

    Args:
        derive: derives the rows.
        partition: the partition, held.
        fields: values of the path fields.
        stem: as for `TableWriter`.
        scratch: as for `TableWriter`.
        footer: provenance of the faces.
    """
    return {
        table: TableWriter(
            table,
            partition,
            folder=partition.folder(table, {"derivation": derive.name, **fields}),
            stem=stem,
            scratch=scratch,
            footer={**footer, **derive.footer},
            path_fields=tuple(fields),
        )
        for table in DERIVED_TABLES
    }


def write_derived(
    derive: Derive,
    partition: HeldPartition,
    fields: Mapping[str, str | None],
    sources: Mapping[str, Sequence[pq.ParquetFile]],
    writers: Mapping[str, TableWriter],
) -> None:
    """Derive the rows of a commit and pass them to the writers; a file is uploaded only when it is full."""
    constants = {"dataset": partition.dataset, "release": partition.release, "derivation": derive.name, **fields}
    for table, rows in derive(sources):
        for name, value in constants.items():
            rows = rows.append_column(name, pa.repeat(pa.scalar(value, pa.string()), rows.num_rows))
        writers[table].write(rows)


@contextmanager
def open_sources(partition: Partition, files: Sequence[CommittedFile]) -> Iterator[dict[str, list[pq.ParquetFile]]]:
    """Open the files of a commit that rows are derived from, by table.

    Raises:
        OutputError: a file is damaged; also raised while the block reads it.
    """
    with ExitStack() as stack:
        opened: dict[str, list[pq.ParquetFile]] = {table: [] for table in SOURCES}
        for file in files:
            if file.table in opened:
                place = partition.output.root.child(file.path)
                opened[file.table].append(stack.enter_context(open_parquet(place, pre_buffer=True)))
        yield opened


def derive_commit(partition: HeldPartition, commit: Commit, derive: Derive) -> Commit:
    """Derive the rows of one shard, publish them with it, and return the new commit.

    The commit is overwritten with one PUT, so a kill leaves either the old commit or the new one. Files that no commit
    names are written again by the next try, under the same names. Rows that are derived again because other shards
    changed get new file names; the old files are deleted after the commit.

    Raises:
        UsageError: a path field has the name of a column of the derived tables.
        ConfigError: an expression uses a column that the output does not have.
    """
    videos = next(file for file in commit.files if file.table == "videos")
    fields = partition.fields_of(videos.path)
    _check_names(fields)
    old = [file for file in commit.files if file.table in DERIVED_TABLES and derivation_of(file.path) == derive.name]
    with scratch_folder("derive") as scratch, open_sources(partition, commit.files) as sources:
        footer = merged_footer(footer_of(file) for file in sources["frames"] or sources["faces"])
        stem = f"part-{DERIVE_PREFIX}{commit.name}{_generation(derive, old)}"
        writers = derived_writers(derive, partition, fields, stem=stem, scratch=scratch, footer=footer)
        try:
            write_derived(derive, partition, fields, sources, writers)
            files = [file for writer in writers.values() for file in writer.close()]
        finally:
            for writer in writers.values():
                writer.abandon()
    derived = replace(
        commit,
        files=[*(file for file in commit.files if file not in old), *files],
        derived={**commit.derived, derive.name: now_us(after=commit.derived.values())},
        derived_from={
            **{name: facts for name, facts in commit.derived_from.items() if name != derive.name},
            **({derive.name: dict(derive.made_from)} if derive.made_from else {}),
        },
    )
    write_commit(partition, derived)
    kept = {file.path for file in derived.files}
    for file in old:
        if file.path not in kept:
            partition.delete(file.path)
    return derived


def now_us(after: Iterable[int]) -> int:
    """Return the time, later than these even if this clock is behind: views show the derivation that was made last."""
    return max([time.time_ns() // 1000, *(us + 1 for us in after)])


def _generation(derive: Derive, old: Sequence[CommittedFile]) -> str:
    """Return a suffix that distinguishes the names of new files from those that they replace."""
    facts = [f"{whose} {what}" for whose, what in sorted(derive.made_from.items())] + [file.sha256 for file in old]
    return f"-{hashlib.sha256(' '.join(facts).encode()).hexdigest()[:8]}" if facts else ""


def _check_names(fields: Mapping[str, str | None]) -> None:
    taken = {column.name.casefold() for table in DERIVED_TABLES for column in TABLES[table]}
    for name in fields:
        if name.casefold() in taken:
            raise UsageError(
                f"derive: this output's path field {name!r} has the name of a column of tracks or events; rename it in "
                "input.path_fields and make a new release"
            )
