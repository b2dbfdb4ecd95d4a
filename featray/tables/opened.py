"""Tables. An output opened from Python: its tables as DuckDB relations.

`featray.open` is the door. Relations are lazy: nothing but the columns and rows that a
query needs is read, from disk or from a bucket.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any

from featray.errors import UsageError
from featray.schema import PERSON_TABLES, TABLES
from featray.store.storage import storage_errors
from featray.tables.layout import list_partitions, open_output
from featray.tables.published import Published, read_steadily
from featray.tables.query import VIEWS, connect, one_line_complaints
from featray.tables.summary import spread_summary

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, DuckDBPyRelation


class Tables:
    """The published tables of one output, as they were when it was opened.

    Files that an erasure, a compaction or a replacement deletes later are gone: a query that needs one raises
    `UsageError`, a relation `duckdb.IOException`. Open it again then.

    Every table is an attribute, a `duckdb.DuckDBPyRelation`, and so are three views: `features`
    (`faces` with the blendshapes, one row a face), `dlib68` (68 landmarks, frame px) and `summary`
    (one row a video, with the manifest's columns). `tracks`, `features` and `summary` also have
    `person_id`, null where `featray persons` has given none; `persons` itself is an attribute too.
    A relation gives its rows as Arrow (`.to_arrow_table()`, or `.to_arrow_reader()` in batches),
    pandas (`.df()`) or polars (`.pl()`; `pip install polars`, featray does not), and
    can be narrowed first: `out.faces.filter("AU12 > 0.8").select("video_id, pts_us")`.

    Threads may share the object: each gets a DuckDB cursor of its own. A relation stays with the
    thread that asked for it. Use it as a context manager, or call `close`; relations end with it.

    Raises:
        UsageError: from any attribute or query, once it is closed.
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
        """The files of a table that were published when it was opened, for engines that read files themselves.

        URIs, or paths on a disk. Where a folder is read whole, files of a publish that is under way are in it as well.

            spark.read.option("mergeSchema", True).parquet(*out.files("faces"))

        Raises:
            UsageError: there is no such table.
        """
        if table not in TABLES:
            raise UsageError(f"{table}: no such table; tables: {', '.join(TABLES)}")
        places = [self._output.root.child(path) for one in self._published for path in one.files(table)]
        return [place.path if place.is_local else place.uri for place in places]

    def sql(self, query: str) -> DuckDBPyRelation:
        """The rows of a query over tables and views. Like all of DuckDB's SQL, it may read and write other files.

        Raises:
            UsageError: the SQL is wrong, or empty.
        """
        with one_line_complaints(), storage_errors(self._output.root.uri):
            if "summary" in query.casefold():
                spread_summary(self._cursor())
            relation = self._cursor().sql(query)
        if relation is None:
            raise UsageError("sql: gives no rows; write a SELECT")
        return relation

    @property
    def releases(self) -> dict[str, tuple[str, ...]]:
        """Every published release by dataset, asked afresh; whichever of them were opened."""
        found: dict[str, tuple[str, ...]] = {}
        for partition in list_partitions(self._output):
            found[partition.dataset] = (*found.get(partition.dataset, ()), partition.release)
        return found

    def close(self) -> None:
        """Let go of the files. More than once does no harm."""
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
    """Open an output to read it; in Python this is `featray.open`.

    Only what commits name is read, of each dataset the latest release unless `release` says
    otherwise.

        with featray.open("s3://bucket/facial") as out:
            smiles = out.sql("SELECT video_id, max(AU12) AS most FROM faces GROUP BY ALL").df()

    Args:
        uri: the output's root, local or of any fsspec protocol.
        release: a release, or `all`.
        storage_options: for fsspec; credentials may also come from the environment.
        derivation: of `tracks`, `events` and `summary`: one, or `all`; None for the one that was made last.

    Raises:
        OutputError: there is no featray output.
        StorageError: the place or a published file cannot be read.
        UsageError: no such release or derivation.
    """
    return Tables(uri, release, storage_options, derivation)
