"""Reading an output: which files are published, and DuckDB views over them.

Views read the files that commits name, never a glob, so that rows of a publish that is
under way, or was killed, are not seen. Remote outputs are read through fsspec.
"""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import pyarrow as pa

from featray.errors import UsageError
from featray.model.names import DLIB68_VERTICES
from featray.tables.commits import Commit, read_commits
from featray.tables.layout import Output, Partition, list_partitions
from featray.tables.schema import TABLES, arrow_schema


@dataclass(frozen=True)
class Published:
    """A partition with what it has published."""

    partition: Partition
    commits: tuple[Commit, ...]

    @property
    def newest_us(self) -> int:
        """When it was last published to, microseconds since the epoch."""
        return max((commit.published_at_us for commit in self.commits), default=0)

    def files(self, table: str) -> list[str]:
        """Paths of a table's files, relative to the output's root."""
        return [file.path for commit in self.commits for file in commit.files if file.table == table]


def read_published(output: Output, release: str | None = None) -> list[Published]:
    """What is published, per dataset and release; of each dataset the latest release unless one is named.

    Raises:
        UsageError: no such release; the message lists those that exist.
    """
    every = [Published(partition, tuple(read_commits(partition))) for partition in list_partitions(output)]
    if release == "all":
        return every
    if release is not None:
        chosen = [one for one in every if one.partition.release == release]
        if not chosen:
            known = ", ".join(sorted({one.partition.release for one in every})) or "none"
            raise UsageError(f"--release {release}: not in this output; it has: {known}")
        return chosen
    latest: dict[str, Published] = {}
    for one in sorted(every, key=lambda p: p.newest_us):
        latest[one.partition.dataset] = one
    return list(latest.values())


def connect(output: Output, release: str | None = None) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with every table as a view, and `dlib68` with the 68 landmarks of each face."""
    published = read_published(output, release)
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    root = output.root
    if not root.is_local:
        connection.register_filesystem(root.fs)
    for table in TABLES:
        files = [path for one in published for path in one.files(table)]
        connection.execute(f"CREATE VIEW {table} AS {table_view(table, read_files(output, files))}")
    connection.execute(f"CREATE VIEW dlib68 AS {_DLIB68}")
    return connection


def run_sql(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.RecordBatchReader:
    """Execute a query; its rows as Arrow batches. DuckDB's complaint becomes one line.

    Raises:
        UsageError: the SQL is wrong.
    """
    try:
        relation = connection.sql(sql)
        return pa.table({}).to_reader() if relation is None else relation.to_arrow_reader()
    except duckdb.Error as error:
        first = next(line for line in str(error).splitlines() if line.strip())
        raise UsageError(f"query: {first}; tables: {', '.join([*TABLES, 'dlib68'])}") from None


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
    """SQL of a table's rows from what `read_files` gave; of no rows, with all columns, where there are no files."""
    if source:
        return f"SELECT * FROM {source}"
    columns = ", ".join(f"CAST(NULL AS {_DUCKDB_TYPES[field.type]}) AS {field.name}" for field in arrow_schema(table))
    return f"SELECT {columns} WHERE false"


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
_DLIB68 = (
    f"SELECT dataset, release, video_id, frame_index, pts_us, face_index, track_id, [{_POINTS}] AS points_xy FROM mesh"
)
