"""Report. The scope of a report or comparison: one release of one dataset, read in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import duckdb

from featray.errors import UsageError
from featray.schema import TABLES
from featray.tables.database import literal, read_rows
from featray.tables.layout import Output
from featray.tables.published import Published, read_steadily
from featray.tables.query import connect, run_sql

_Answer = TypeVar("_Answer")

MEMORY: Final = "1GB"
"""Memory limit of DuckDB; the rest goes to its temporary folder."""

MOST_ROWS: Final = 20_000_000
"""With more rows in a table, a sample is read: means are stable long before a scan of 40 columns takes minutes."""


@dataclass(frozen=True)
class Scope:
    """One release of one dataset.

    Attributes:
        connection: connection with the tables of this scope as views `in_faces`, `in_frames`, `in_videos`, ...
        dataset: name of the dataset.
        release: name of the release.
        others: further releases of the dataset, latest first.
        published: its published files.
        most_rows: with more rows in a table, a sample is read.
    """

    connection: duckdb.DuckDBPyConnection
    dataset: str
    release: str
    others: tuple[str, ...]
    published: Published
    most_rows: int = MOST_ROWS

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """Return the rows of a query, which must return only few."""
        return read_rows(run_sql(self.connection, sql))

    def row(self, sql: str) -> dict[str, Any]:
        """Return the only row of a query."""
        return self.rows(sql)[0]

    def sample(self, rows: int) -> tuple[str, float]:
        """Return `sample_clause` for a table with this number of rows."""
        return sample_clause(rows, self.most_rows)


def with_scope(
    output: Output,
    release: str | None,
    dataset: str | None,
    work: Callable[[Scope], _Answer],
    most_rows: int = MOST_ROWS,
) -> _Answer:
    """Call `work` with the requested scope; call it again if files are replaced while it reads them.

    Raises:
        UsageError: as for `open_scope`.
    """

    def scoped(published: list[Published]) -> _Answer:
        return work(_scope_of(output, published, release, dataset, most_rows))

    return read_steadily(output, scoped, "all")


def open_scope(output: Output, release: str | None, dataset: str | None, most_rows: int = MOST_ROWS) -> Scope:
    """Return the requested scope; by default the only dataset and its latest release.

    Raises:
        UsageError: there is no such dataset or release, or there are several datasets and none is named.
    """
    return with_scope(output, release, dataset, lambda scope: scope, most_rows)


def _scope_of(
    output: Output, published: list[Published], release: str | None, dataset: str | None, most_rows: int
) -> Scope:
    every = [one for one in published if release in (None, "all", one.partition.release)]
    if not every and release is not None:
        known = ", ".join(sorted({one.partition.release for one in published})) or "none"
        raise UsageError(f"--release {release}: not in this output; choose one of {known}")
    datasets = sorted({one.partition.dataset for one in every})
    if not any(one.files("videos") for one in every):
        raise UsageError(f"{output.root.uri}: holds no published video yet; run `featray run CONFIG` first")
    if dataset is not None and dataset not in datasets:
        raise UsageError(f"--dataset {dataset}: not in this output; choose one of {', '.join(datasets)}")
    if dataset is None and len(datasets) > 1:
        raise UsageError(f"{output.root.uri}: holds several datasets; name one with --dataset: {', '.join(datasets)}")
    dataset = dataset or datasets[0]
    chosen = _latest_first([one for one in every if one.partition.dataset == dataset])[0]
    same = [one for one in published if one.partition.dataset == dataset and one is not chosen]
    others = tuple(one.partition.release for one in _latest_first(same) if one.with_videos and not one.damaged)
    connection = connect(output, published=[chosen], memory_limit=MEMORY)
    for table in TABLES:
        condition = f"dataset = {literal(dataset)} AND release = {literal(chosen.partition.release)}"
        connection.execute(f"CREATE VIEW in_{table} AS SELECT * FROM {table} WHERE {condition}")
    return Scope(connection, dataset, chosen.partition.release, others, chosen, most_rows)


def sample_clause(rows: int, most: int = MOST_ROWS) -> tuple[str, float]:
    """Return `TABLESAMPLE ...` for a table with this number of rows, and the share that it reads; "" and 1.0 if small.

    It draws random blocks of about 2,000 neighbouring rows, different ones every time.
    """
    if rows <= most:
        return "", 1.0
    percent = max(0.01, round(100 * most / rows, 2))
    return f"TABLESAMPLE system({percent}%)", percent / 100


def _latest_first(published: list[Published]) -> list[Published]:
    return sorted(published, key=lambda one: one.rank, reverse=True)
