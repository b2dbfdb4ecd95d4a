"""Tables. Open an output from Python: its tables as DuckDB relations.

`featray.open` is the entry point. Relations are lazy: only the columns and rows that a
query needs are read, from disk or from a bucket.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any

from featray.errors import UsageError
from featray.schema import PERSON_TABLES, TABLES
from featray.store.failures import storage_errors
from featray.tables.layout import list_partitions, open_output
from featray.tables.published import Published, read_steadily
from featray.tables.query import VIEWS, connect, one_line_complaints
from featray.tables.summary import spread_summary

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, DuckDBPyRelation


class Tables:
    """The published tables of one output, as of the time it was opened.

    An erasure, compaction or replacement may delete files later. A query that needs a deleted file raises
    `UsageError`, a relation raises `duckdb.IOException`; open the output again.

    Every table is an attribute, a `duckdb.DuckDBPyRelation`, and so are three views: `features`
    (`faces` with the blendshapes, one row per face), `dlib68` (68 landmarks, frame px) and `summary`
    (one row per video, with the manifest's columns). `tracks`, `features` and `summary` also have
    `person_id`, null without a result of `featray persons`; `persons` itself is an attribute too.
    A relation returns its rows as Arrow (`.to_arrow_table()`, or `.to_arrow_reader()` in batches),
    pandas (`.df()`) or polars (`.pl()`; needs `pip install polars`), and can be filtered
    first: `out.faces.filter("AU12 > 0.8").select("video_id, pts_us")`.

    Threads may share the object: each gets its own DuckDB cursor. Use a relation only in the thread
    that created it. Use the object as a context manager, or call `close`; that also ends its relations.

    Raises:
        UsageError: from any attribute or query after it is closed.
    """

    faces: DuckDBPyRelation
    blendshapes: DuckDBPyRelation
    mesh: DuckDBPyRelation
    frames: DuckDBPyRelation
    videos: DuckDBPyRelation
    errors: DuckDBPyRelation
    runs: DuckDBPyRelation
    erasures: DuckDBPyRelation
    tracks: DuckDBPyRelation
    events: DuckDBPyRelation
    features: DuckDBPyRelation
    dlib68: DuckDBPyRelation
    summary: DuckDBPyRelation

    tables: tuple[str, ...] = tuple(TABLES)
    """Names of the tables."""
    views: tuple[str, ...] = tuple(VIEWS)
    """Names of the views over them."""

    def __init__(
        self,
        uri: str,
        release: str | None = None,
        storage_options: dict[str, Any] | None = None,
        derivation: str | None = None,
    ) -> None:
        self._output = open_output(uri, storage_options)
        self._published: list[Published] = []
        self._connection: DuckDBPyConnection | None = read_steadily(self._output, self._connect, release, derivation)
        self._thread = threading.local()
        self._lock = threading.Lock()
        self._cursors: list[DuckDBPyConnection] = []

    def _connect(self, published: list[Published]) -> DuckDBPyConnection:
        self._published = published
        return connect(self._output, published=published, locked=False)

    def files(self, table: str) -> list[str]:
        """Return the published files of a table, for engines that read files themselves.

        They are URIs, or paths on a disk. Do not read whole folders: they may contain files that are not published.

            spark.read.option("mergeSchema", True).parquet(*out.files("faces"))

        Raises:
            UsageError: there is no such table.
        """
        if table not in TABLES:
            raise UsageError(f"{table}: no such table; tables: {', '.join(TABLES)}")
        places = [self._output.root.child(path) for one in self._published for path in one.files(table)]
        return [place.path if place.is_local else place.uri for place in places]

    def sql(self, query: str) -> DuckDBPyRelation:
        """Return the rows of a query over tables and views. Like any DuckDB SQL, it may read and write other files.

        Raises:
            UsageError: the SQL is wrong, or empty.
        """
        with one_line_complaints(), storage_errors(self._output.root.uri):
            if "summary" in query.casefold():
                spread_summary(self._cursor())
            relation = self._cursor().sql(query)
        if relation is None:
            raise UsageError("sql: the statement returns no rows; write a SELECT")
        return relation

    @property
    def releases(self) -> dict[str, tuple[str, ...]]:
        """Return all published releases by dataset, read again at each access; not only the opened ones."""
        found: dict[str, tuple[str, ...]] = {}
        for partition in list_partitions(self._output):
            found[partition.dataset] = (*found.get(partition.dataset, ()), partition.release)
        return found

    def close(self) -> None:
        """Close all cursors and files. Calling it more than once is safe."""
        with self._lock:
            for cursor in self._cursors:
                cursor.close()
            self._cursors.clear()
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _cursor(self) -> DuckDBPyConnection:
        with self._lock:
            if self._connection is None:
                raise UsageError(f"{self._output.root.uri}: is closed; open it again")
            if not hasattr(self._thread, "cursor"):
                self._thread.cursor = self._connection.cursor()
                self._cursors.append(self._thread.cursor)
        cursor: DuckDBPyConnection = self._thread.cursor
        return cursor

    def __getattr__(self, name: str) -> DuckDBPyRelation:
        if name not in (*TABLES, *PERSON_TABLES) and name not in VIEWS:
            raise AttributeError(f"{type(self).__name__} has no {name!r}; tables: {', '.join([*TABLES, *VIEWS])}")
        with storage_errors(self._output.root.uri):
            if name == "summary":
                spread_summary(self._cursor())
            return self._cursor().view(name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *TABLES, *VIEWS]

    def __enter__(self) -> Tables:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<featray output {self._output.root.uri}{' (closed)' if self._connection is None else ''}>"


def open_tables(
    uri: str,
    release: str | None = None,
    storage_options: dict[str, Any] | None = None,
    derivation: str | None = None,
) -> Tables:
    """Open an output for reading; exported as `featray.open`.

    Only published files are read, by default those of the latest release of each dataset.

        with featray.open("s3://bucket/facial") as out:
            smiles = out.sql("SELECT video_id, max(AU12) AS most FROM faces GROUP BY ALL").df()

    Args:
        uri: the output's root, a local path or a URI of any fsspec protocol.
        release: a release, or `all`; None for the latest of each dataset.
        storage_options: options for fsspec; credentials may also come from the environment.
        derivation: a derivation of `tracks`, `events` and `summary`, or `all`; None for the one made last.

    Raises:
        OutputError: there is no featray output at this place.
        StorageError: the place or a published file cannot be read.
        UsageError: there is no such release or derivation.
    """
    return Tables(uri, release, storage_options, derivation)
