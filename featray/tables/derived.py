"""Tables. Derived rows on their way into the tables: further files of the commit whose rows they are made from.

So a replaced, erased or dropped video loses its derived rows with its other rows, in one commit. What makes them is
handed in: it needs the tables, and is not needed to read them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from featray.schema import DERIVED_TABLES
from featray.tables.commits import CommittedFile
from featray.tables.layout import Partition
from featray.tables.lease import HeldPartition
from featray.tables.rewrite import open_parquet
from featray.tables.writer import TableWriter

SOURCES = ("faces", "blendshapes", "mesh", "frames")
"""Tables that rows are derived from."""


class Derive(Protocol):
    """Makes derived rows; see `findings/derive.py`."""

    @property
    def name(self) -> str:
        """The value of the partition `derivation`."""
        ...

    @property
    def footer(self) -> dict[str, str]:
        """What stands in the footers of its files beside where the faces come from."""
        ...

    def __call__(self, files: Mapping[str, Sequence[pq.ParquetFile]]) -> Iterator[tuple[str, pa.Table]]:
        """Yield sorted rows of the derived tables from the files of a commit's tables, by table."""
        ...


def derivation_of(path: str) -> str | None:
    """The derivation of a derived table's file, by its path below the root."""
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
    """Writers of the derived tables, for one partition folder.

    Args:
        derive: what makes the rows.
        partition: held.
        fields: values of the path fields.
        stem: as for `TableWriter`.
        scratch: as for `TableWriter`.
        footer: where the faces come from.
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
    """Derive the rows of a commit and hand them to the writers; nothing is uploaded before a file is full."""
    constants = {"dataset": partition.dataset, "release": partition.release, "derivation": derive.name, **fields}
    for table, rows in derive(sources):
        for name, value in constants.items():
            rows = rows.append_column(name, pa.repeat(pa.scalar(value, pa.string()), rows.num_rows))
        writers[table].write(rows)


@contextmanager
def open_sources(partition: Partition, files: Sequence[CommittedFile]) -> Iterator[dict[str, list[pq.ParquetFile]]]:
    """Open the files of a commit that rows are derived from, by table.

    Raises:
        OutputError: one is damaged; while it is read, too.
    """
    with ExitStack() as stack:
        opened: dict[str, list[pq.ParquetFile]] = {table: [] for table in SOURCES}
        for file in files:
            if file.table in opened:
                place = partition.output.root.child(file.path)
                opened[file.table].append(stack.enter_context(open_parquet(place, pre_buffer=True)))
        yield opened
