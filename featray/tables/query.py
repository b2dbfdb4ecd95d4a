"""Tables. Read an output: DuckDB views over the published files.

Views read the files that commits name, never a glob, so that rows of a running or killed
publish are not visible. Remote outputs are read through fsspec.

The content of an output is untrusted: names get into SQL only through `literal` and `identifier`, and the databases for
featray's own queries can read and write nothing but the output.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import chain
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeVar

import duckdb
import pyarrow as pa
from duckdb import StatementType

from featray.errors import OutputError, StorageError, UsageError, one_line
from featray.names import BLENDSHAPE_NAMES, DLIB68_VERTICES
from featray.schema import PERSON_KEY, PERSON_TABLES, TABLES, arrow_schema
from featray.store.failures import storage_errors
from featray.store.location import Location
from featray.store.storage import list_ahead
from featray.tables.layout import Output
from featray.tables.published import Published, damaged_file, raised_by_store, read_steadily
from featray.tables.summary import spread_summary, summary_view

_Answer = TypeVar("_Answer")


def connect(
    output: Output,
    release: str | tuple[str, ...] | None = None,
    tables: Collection[str] = TABLES,
    *,
    derivation: str | None = None,
    published: list[Published] | None = None,
    memory_limit: str | None = None,
    locked: bool = True,
) -> duckdb.DuckDBPyConnection:
    """Open a DuckDB connection with tables as views; with all tables, the views of `VIEWS` are added.

    Args:
        output: the output to read.
        release: a release or several, or `all`; None for the latest of each dataset.
        tables: the tables to open; others cost nothing, while each remote file opened costs a request.
        derivation: a derivation of the derived tables, or `all`; None for the one made last.
        published: the result of `read_published`, if it is known already; it is then not read again when files are
            replaced, see `read_steadily`.
        memory_limit: as for `open_database`.
        locked: as for `open_database`.

    Raises:
        UsageError: no such release or derivation.
        StorageError: a published file or a commit cannot be read.
    """
    if published is not None:
        return _connect(output, published, tables, memory_limit, locked)
    return read_steadily(
        output, lambda found: _connect(output, found, tables, memory_limit, locked), release, derivation
    )


def _connect(
    output: Output, published: list[Published], tables: Collection[str], memory_limit: str | None, locked: bool
) -> duckdb.DuckDBPyConnection:
    if damaged := [problem for one in published for problem in one.damaged]:
        raise OutputError(damaged[0])
    connection = open_database(output, memory_limit=memory_limit, locked=locked)
    root, everything = output.root, len(tables) == len(TABLES)
    shown = (*PERSON_TABLES, *tables) if everything else tables
    if not root.is_local:
        list_ahead(one.partition.folder(table) for one in published for table in shown if one.files(table))
    unreadable = "a published file is gone or damaged; run `featray verify`"
    try:
        with storage_errors(root.uri, missing=unreadable):
            for table in shown:
                _create_view(connection, table, output, published, person=everything and table in WITH_PERSON)
            for view, select in VIEWS.items() if everything else ():
                if view in WITH_PERSON:
                    select = _with_person(select, published)
                elif view == "summary":
                    select = summary_view(person=not _is_path_field(published))
                connection.execute(f"CREATE VIEW {view} AS {select}")
    except duckdb.Error as error:  # the SQL is ours, so a file must be damaged
        refused = raised_by_store(error)
        why = f"published files could not be read ({refused})" if refused else unreadable
        raise StorageError(f"{root.uri}: {why}") from error
    return connection


def _create_view(
    connection: duckdb.DuckDBPyConnection, table: str, output: Output, published: list[Published], *, person: bool
) -> None:
    """Create the view of a table; twice if its files have columns of types that readers of rows do not expect."""
    source = read_files(output, [path for one in published for path in one.files(table)])

    def create(as_text: Collection[str]) -> None:
        select = table_view(table, source, as_text)
        select = _with_person(select, published) if person else select
        connection.execute(f"CREATE OR REPLACE VIEW {table} AS {select}")

    create(())
    found = connection.execute("SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = ?", [table])
    if odd := [name for name, kind in found.fetchall() if kind not in _PLAIN_TYPES]:
        create(odd)


WITH_PERSON: Final = ("tracks", "features")
"""Views with a column `person_id` for each row; `summary` has it for the main track. It is joined when read, because
`featray persons` rewrites no other table."""

_OF_PERSON: Final = ", ".join(PERSON_KEY)


def _with_person(select: str, published: list[Published]) -> str:
    """Return SQL that adds `person_id` to rows of tracks: null for tracks without a person.

    An output with a path field of that name keeps it instead. Without persons nothing is joined.
    """
    if _is_path_field(published):
        return select
    if not any(one.files("persons") for one in published):
        return f"SELECT *, CAST(NULL AS VARCHAR) AS person_id FROM ({select})"
    who = f"(SELECT {_OF_PERSON}, person_id FROM persons)"
    return f"SELECT of_track.*, who.person_id FROM ({select}) of_track LEFT JOIN {who} who USING ({_OF_PERSON})"


def _is_path_field(published: list[Published]) -> bool:
    fields = {name for one in published for path in one.files("videos") for name in one.partition.fields_of(path)}
    return any(name.casefold() == "person_id" for name in fields)  # DuckDB ignores case


def open_database(output: Output, *, memory_limit: str | None = None, locked: bool = True) -> duckdb.DuckDBPyConnection:
    """Open an in-memory DuckDB database that can read the files of an output.

    Args:
        output: the output to read.
        memory_limit: such as `1GB`; above it DuckDB spills to disk. Row order is then not preserved.
        locked: whether it can access only the output, and load no extension; used for everything except a user's own
            SQL.
    """
    connection = duckdb.connect()
    # GLOBAL, so that it applies to cursors of this connection too.
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    if memory_limit is not None:
        connection.execute(f"SET memory_limit = {literal(memory_limit)}; SET preserve_insertion_order = false")
    if (folder := spill_folder()) is not None and not os.path.isdir(folder.name):  # deleted by a cleaner of /tmp
        spill_folder.cache_clear()
        folder = spill_folder()
    if folder is not None:
        connection.execute(f"SET temp_directory = {literal(folder.name)}")
    if not output.root.is_local:
        connection.register_filesystem(output.root.fs)
    if locked:
        connection.execute("SET autoinstall_known_extensions = false; SET autoload_known_extensions = false")
        connection.execute(f"SET allowed_directories = [{literal(_for_duckdb(output.root).rstrip('/') + '/')}]")
        connection.execute("SET enable_external_access = false; SET lock_configuration = true")
    return connection


@cache
def spill_folder() -> TemporaryDirectory[str] | None:
    """Create a folder for what does not fit into memory, which lives as long as the process; None if it cannot be.

    DuckDB itself would use `.tmp` in the working directory, which may be read-only, a repository or a folder of clips.
    """
    try:
        return TemporaryDirectory(prefix="featray-query-", ignore_cleanup_errors=True)
    except OSError:
        return None


_HAS_SUMMARY: Final = "SELECT 1 FROM duckdb_views() WHERE view_name = 'summary'"


def literal(text: str) -> str:
    """Return a string as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """Return the name of a column or table as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def run_sql(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.RecordBatchReader:
    """Execute featray's own SQL and return its rows as Arrow batches.

    Raises:
        OutputError: a published file is damaged, or a column of it has another type.
    """
    try:
        return _run(connection, sql)
    except duckdb.Error as error:
        raise damaged_file(error) from error


def execute(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Execute a statement of featray's own that returns no rows and may take long; a stop ends it."""
    interruptible(connection, lambda: connection.execute(sql))


def run_user_sql(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.RecordBatchReader:
    """Execute a user's SQL and return its rows as Arrow batches.

    Raises:
        UsageError: the SQL is wrong.
    """
    with one_line_complaints():
        return _run(connection, sql)


def _run(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.RecordBatchReader:
    """Execute SQL; the view `summary` gets the manifest's columns if it is used."""
    if "summary" in sql.casefold() and connection.sql(_HAS_SUMMARY).fetchall():
        spread_summary(connection)

    def start() -> pa.RecordBatchReader:
        relation = connection.sql(sql)
        return pa.table({}).to_reader() if relation is None else relation.to_arrow_reader()

    return interruptible(connection, start)


def interruptible(connection: duckdb.DuckDBPyConnection, work: Callable[[], _Answer]) -> _Answer:
    """Return what `work` returns, which uses the connection; a stop ends it.

    DuckDB does not look at signals while it executes a query, which may take hours, so a thread waits for it.
    """
    with ThreadPoolExecutor(1) as working:
        try:
            return working.submit(work).result()
        except KeyboardInterrupt:
            connection.interrupt()
            raise


def steady_sql(
    output: Output, sql: str, release: str | None, derivation: str | None, *, safe: bool
) -> tuple[duckdb.DuckDBPyConnection, pa.RecordBatchReader]:
    """Connect, execute a query with `run_safe_sql` or `run_user_sql`, and read its first batch, up to a million rows.

    If files are replaced meanwhile, the query is executed again, including anything that it writes elsewhere.

    Returns:
        The connection, which must be kept while rows are read, and the rows.

    Raises:
        UsageError: the SQL is wrong, or there is no such release or derivation.
        StorageError: a published file or a commit cannot be read.
    """

    def asked(published: list[Published]) -> tuple[duckdb.DuckDBPyConnection, pa.RecordBatchReader]:
        connection = connect(output, release, published=published, locked=safe)
        rows = run_safe_sql(connection, sql) if safe else run_user_sql(connection, sql)
        return connection, _begun(connection, rows) if _only_selects(connection, sql) else rows

    connection, rows = read_steadily(output, asked, release, derivation)
    return connection, rows if _only_selects(connection, sql) else _begun(connection, rows)


def has_synthetic_weights(connection: duckdb.DuckDBPyConnection) -> bool:
    """Return whether a run in the table `runs` of a connection had synthetic weights."""
    (row,) = read_rows(run_sql(connection, "SELECT count(*) AS n FROM runs WHERE NOT weights_trained"))
    return bool(row["n"])


def _begun(connection: duckdb.DuckDBPyConnection, result: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """Return the same rows after reading the first batch."""
    try:
        first = interruptible(connection, lambda: next(result, None))
    except (OSError, pa.ArrowInvalid) as error:  # Arrow's wrapping of a DuckDB error
        raise UsageError(f"query: {one_line(error)}") from None
    if first is None:
        return pa.RecordBatchReader.from_batches(result.schema, [])
    return pa.RecordBatchReader.from_batches(result.schema, chain([first], result))


def read_rows(result: pa.RecordBatchReader) -> list[dict[str, Any]]:
    """Return the rows of a query as dictionaries; column names must be distinct."""
    names = result.schema.names
    return [dict(zip(names, row, strict=True)) for batch in result for row in read_tuples(batch)]


def read_tuples(batch: pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a batch. Arrow's own conversion loads pandas for timestamps, which takes two seconds.

    Raises:
        OutputError: a time is outside the range of Python's datetime.
    """
    try:
        return zip(*[_values(column) for column in batch.columns], strict=True)
    except (OverflowError, ValueError):
        raise OutputError(
            "there is a time outside of the years 1 to 9999; in SQL, cast its column to VARCHAR"
        ) from None


def _values(column: pa.Array) -> list[Any]:
    if not pa.types.is_timestamp(column.type) or column.type.unit != "us":
        return list(column.to_pylist())
    zero = datetime(1970, 1, 1, tzinfo=None if column.type.tz is None else UTC)
    return [None if us is None else zero + timedelta(microseconds=us) for us in column.cast(pa.int64()).to_pylist()]


def run_safe_sql(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.RecordBatchReader:
    """Run untrusted SQL, which may only select, on a locked connection.

    A locked connection can still write to the output with `COPY` or `EXPORT`; a SELECT cannot.

    Raises:
        UsageError: the SQL is wrong, or is not a SELECT.
    """
    if not _only_selects(connection, sql):
        raise UsageError("query: with --safe, write a SELECT; other statements can write")
    return run_user_sql(connection, sql)


def _only_selects(connection: duckdb.DuckDBPyConnection, sql: str) -> bool:
    """Return whether SQL cannot write. EXPLAIN can, because EXPLAIN ANALYZE executes its statement."""
    with one_line_complaints():
        return all(statement.type == StatementType.SELECT for statement in connection.extract_statements(sql))


@contextmanager
def one_line_complaints() -> Iterator[None]:
    """Turn DuckDB's errors about SQL inside the block into a one-line UsageError, and a store's into an OutputError."""
    try:
        yield
    except duckdb.Error as error:
        if raised := raised_by_store(error):
            raise OutputError(f"query: files could not be read ({raised})") from None
        if isinstance(error, duckdb.OutOfMemoryException):
            why = f"too large for the memory and for TMPDIR ({one_line(error).split('. ')[0]})"
            raise OutputError(f"query: {why}; give one of them more room") from None
        # Keep all lines, because suggestions come last, except the line with the position marker.
        lines = [line.strip() for line in str(error).splitlines() if line.strip(" ^~")]
        known = "" if isinstance(error, duckdb.IOException) else f"; tables: {', '.join([*TABLES, *VIEWS])}"
        raise UsageError(f"query: {' '.join(lines)}{known}") from None


def read_files(output: Output, files: list[str], *, row_numbers: bool = False, filename: bool = False) -> str:
    """Return SQL that reads Parquet files, given relative to the output's root; empty if there are none.

    `row_numbers` adds the column `file_row_number`, from 0; `filename` adds the column `filename`.
    """
    places = [output.root.child(path) for path in files]
    for place in places:
        place.check_inside()
    listed = ", ".join(literal(_for_duckdb(place)) for place in places)
    options = "union_by_name=true, hive_partitioning=false" + (", file_row_number=true" if row_numbers else "")
    options += ", filename=true" if filename else ""
    return f"read_parquet([{listed}], {options})" if files else ""


def _for_duckdb(place: Location) -> str:
    return place.path if place.is_local else str(place.fs.unstrip_protocol(place.path))


def table_view(table: str, source: str, as_text: Collection[str] = ()) -> str:
    """Return SQL for a table's rows from the SQL of `read_files`, with all columns of the current schema.

    Files of an older schema lack some columns. A column with another type is converted, or fails: otherwise one such
    file would turn the column into text for the rows of all files. Columns that the schema does not know keep their
    type: they are path fields, of a newer schema, or someone else's.

    Args:
        table: the table.
        source: the SQL of `read_files`; empty if there are no files.
        as_text: columns that the schema does not know, to be converted to text.
    """
    types = {field.name: _DUCKDB_TYPES[field.type] for field in arrow_schema(table)}
    empty = f"SELECT {', '.join(f'CAST(NULL AS {kind}) AS {name}' for name, kind in types.items())} WHERE false"
    if not source:
        return empty
    types |= dict.fromkeys(as_text, "VARCHAR")
    typed = ", ".join(f"CAST({identifier(name)} AS {kind}) AS {identifier(name)}" for name, kind in types.items())
    return f"SELECT * REPLACE ({typed}) FROM ({empty} UNION ALL BY NAME SELECT * FROM {source})"


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

_ZONED: Final = "TIMESTAMP WITH TIME ZONE"
_PLAIN_TYPES: Final = frozenset(
    [*"VARCHAR BOOLEAN TINYINT SMALLINT INTEGER BIGINT FLOAT DOUBLE FLOAT[]".split(), _ZONED]
)
"""Types of columns that Python, CSV and pages can show, as DuckDB's catalogue calls them."""

_POINTS = ", ".join(f"[mesh_xyz[{3 * v + 1}], mesh_xyz[{3 * v + 2}]]" for v in DLIB68_VERTICES)
_SHAPES = ", ".join(f"blendshapes.{name}" for name in BLENDSHAPE_NAMES)

VIEWS: Final[dict[str, str]] = {
    "dlib68": "SELECT dataset, release, video_id, frame_index, pts_us, face_index, track_id, "
    f"[{_POINTS}] AS points_xy FROM mesh",
    "features": f"SELECT faces.*, {_SHAPES} FROM faces "
    "LEFT JOIN blendshapes USING (dataset, release, video_id, frame_index, face_index)",
    "summary": summary_view(),
}
"""Views in addition to the tables: the 68 landmarks of each face; faces with their blendshapes, one row per face; a
summary of the tracks, one row per video."""
