"""Tables. Reading an output: which files are published, and DuckDB views over them.

Views read the files that commits name, never a glob, so that rows of a publish that is
under way, or was killed, are not seen. Remote outputs are read through fsspec.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import duckdb
import pyarrow as pa

from featray.errors import StorageError, UsageError
from featray.names import BLENDSHAPE_NAMES, DLIB68_VERTICES
from featray.schema import TABLES, arrow_schema
from featray.store.storage import list_ahead, storage_errors
from featray.tables.commits import Commit, CommittedFile, stored_commits
from featray.tables.layout import Output, Partition, list_partitions


@dataclass(frozen=True)
class Published:
    """A partition with the files that it has published; what commits say of videos is not kept.

    Attributes:
        newest_us: when it was last published to, microseconds since the epoch.
    """

    partition: Partition
    newest_us: int
    committed: tuple[CommittedFile, ...]

    def files(self, table: str) -> list[str]:
        """Paths of a table's files, relative to the output's root."""
        return [file.path for file in self.committed if file.table == table]


def read_published(output: Output, release: str | None = None) -> list[Published]:
    """What is published, per dataset and release; of each dataset the latest release unless one is named.

    Raises:
        UsageError: no such release; the message lists those that exist.
    """
    partitions = list_partitions(output)
    chosen = [partition for partition in partitions if release in (None, "all", partition.release)]
    if release not in (None, "all") and not chosen:
        known = ", ".join(sorted({partition.release for partition in partitions})) or "none"
        raise UsageError(f"--release {release}: not in this output; it has: {known}")
    if release is not None:
        return [_read(partition) for partition in chosen]
    latest: dict[str, Published] = {}
    for one in map(_read, chosen):  # one by one: no more than two of a dataset are held
        before = latest.get(one.partition.dataset)
        if before is None or one.newest_us >= before.newest_us:
            latest[one.partition.dataset] = one
    return list(latest.values())


def _read(partition: Partition) -> Published:
    """What a partition has published, with rewrites that are still to be carried out applied."""
    found: dict[str, tuple[int, list[CommittedFile]]] = {}
    pending: list[Commit] = []
    for commit in stored_commits(partition):
        found[commit.name] = commit.published_at_us, commit.files
        pending += commit.rewrites
    for commit in pending:
        found[commit.name] = commit.published_at_us, commit.files
    newest_us = max((published_at_us for published_at_us, _ in found.values()), default=0)
    return Published(partition, newest_us, tuple(file for _, files in found.values() for file in files))


def connect(output: Output, release: str | None = None, tables: Collection[str] = TABLES) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with tables as views; if it is all of them, every one of `VIEWS` too.

    Args:
        output: whose tables.
        release: a release, or `all`; None for the latest of each dataset.
        tables: which; the files of others are not opened, which costs a request each where they are far away.

    Raises:
        UsageError: no such release.
        StorageError: a published file cannot be read.
    """
    published = read_published(output, release)
    connection = duckdb.connect()
    # For the whole database, so that it holds for cursors of this connection too.
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    root = output.root
    if not root.is_local:
        connection.register_filesystem(root.fs)
        list_ahead(one.partition.folder(table) for one in published for table in tables if one.files(table))
    unreadable = "a published file is gone or damaged; run `featray verify`"
    try:
        with storage_errors(root.uri, missing=unreadable):
            for table in tables:
                files = [path for one in published for path in one.files(table)]
                connection.execute(f"CREATE VIEW {table} AS {table_view(table, read_files(output, files))}")
            for view, select in VIEWS.items() if len(tables) == len(TABLES) else ():
                connection.execute(f"CREATE VIEW {view} AS {select}")
    except duckdb.Error as error:  # the SQL is ours: it is a file that is not as it should be
        raise StorageError(f"{root.uri}: {unreadable}") from error
    return connection


def run_sql(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.RecordBatchReader:
    """Execute a query; its rows as Arrow batches.

    Raises:
        UsageError: the SQL is wrong.
    """
    with one_line_complaints():
        relation = connection.sql(sql)
        return pa.table({}).to_reader() if relation is None else relation.to_arrow_reader()


def read_rows(result: pa.RecordBatchReader) -> list[dict[str, Any]]:
    """Return the rows of a query whose columns have names of their own."""
    names = result.schema.names
    return [dict(zip(names, row, strict=True)) for batch in result for row in read_tuples(batch)]


def read_tuples(batch: pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a batch. Arrow's own way loads pandas, and takes two seconds, wherever there is a time."""
    return zip(*(_values(column) for column in batch.columns), strict=True)


def _values(column: pa.Array) -> list[Any]:
    if not pa.types.is_timestamp(column.type) or column.type.unit != "us":
        return list(column.to_pylist())
    zero = datetime(1970, 1, 1, tzinfo=None if column.type.tz is None else UTC)
    return [None if us is None else zero + timedelta(microseconds=us) for us in column.cast(pa.int64()).to_pylist()]


@contextmanager
def one_line_complaints() -> Iterator[None]:
    """What DuckDB has to say about the SQL of the block becomes a one-line UsageError."""
    try:
        yield
    except duckdb.Error as error:
        # All of it, since its suggestions follow on later lines; but not the line that marks a place in the one above.
        lines = [line.strip() for line in str(error).splitlines() if line.strip(" ^~")]
        raise UsageError(f"query: {' '.join(lines)}; tables: {', '.join([*TABLES, *VIEWS])}") from None


def read_files(output: Output, files: list[str], *, row_numbers: bool = False, filename: bool = False) -> str:
    """SQL that reads Parquet files, given relative to the output's root; empty if there are none.

    `row_numbers` adds the column `file_row_number`, from 0; `filename` the column of that name.
    """
    places = [output.root.child(path) for path in files]
    paths = [place.path if output.root.is_local else output.root.fs.unstrip_protocol(place.path) for place in places]
    listed = ", ".join("'" + path.replace("'", "''") + "'" for path in paths)
    options = "union_by_name=true, hive_partitioning=false" + (", file_row_number=true" if row_numbers else "")
    options += ", filename=true" if filename else ""
    return f"read_parquet([{listed}], {options})" if files else ""


def table_view(table: str, source: str) -> str:
    """SQL of a table's rows from what `read_files` gave, if anything, with all columns of today's schema.

    Files of an older schema lack some of them.
    """
    columns = ", ".join(f"CAST(NULL AS {_DUCKDB_TYPES[field.type]}) AS {field.name}" for field in arrow_schema(table))
    empty = f"SELECT {columns} WHERE false"
    return f"{empty} UNION ALL BY NAME SELECT * FROM {source}" if source else empty


_DUCKDB_TYPES = {
    pa.string(): "VARCHAR",
    pa.bool_(): "BOOLEAN",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.timestamp("us", tz="UTC"): "TIMESTAMPTZ",
    pa.list_(pa.float32()): "FLOAT[]",
}

_POINTS = ", ".join(f"[mesh_xyz[{3 * v + 1}], mesh_xyz[{3 * v + 2}]]" for v in DLIB68_VERTICES)
_SHAPES = ", ".join(f"blendshapes.{name}" for name in BLENDSHAPE_NAMES)

VIEWS: Final[dict[str, str]] = {
    "dlib68": "SELECT dataset, release, video_id, frame_index, pts_us, face_index, track_id, "
    f"[{_POINTS}] AS points_xy FROM mesh",
    "features": f"SELECT faces.*, {_SHAPES} FROM faces "
    "LEFT JOIN blendshapes USING (dataset, release, video_id, frame_index, face_index)",
}
"""What there is beside the tables: the 68 landmarks of each face; faces with their blendshapes, one row a face."""
