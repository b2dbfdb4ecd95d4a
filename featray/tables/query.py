"""Tables. Read an output: DuckDB views over the published files.

Views read the files that commits name, never a glob, so that rows of a running or killed
publish are not visible. Remote outputs are read through fsspec.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Final

import duckdb
import pyarrow as pa
from duckdb import StatementType

from featray.errors import OutputError, StorageError, UsageError, one_line
from featray.names import BLENDSHAPE_NAMES, DLIB68_VERTICES
from featray.schema import PERSON_KEY, PERSON_TABLES, TABLES, arrow_schema
from featray.store.failures import storage_errors
from featray.store.storage import list_ahead
from featray.tables.database import identifier, interruptible, open_database, read_files, read_rows
from featray.tables.layout import Output
from featray.tables.published import Published, damaged_file, raised_by_store, read_steadily
from featray.tables.summary import spread_summary, summary_view


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


_HAS_SUMMARY: Final = "SELECT 1 FROM duckdb_views() WHERE view_name = 'summary'"


def run_sql(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.RecordBatchReader:
    """Execute featray's own SQL and return its rows as Arrow batches.

    Raises:
        OutputError: a published file is damaged, or a column of it has another type.
    """
    try:
        return _run(connection, sql)
    except duckdb.Error as error:
        raise damaged_file(error) from error


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
        names = ", ".join([*TABLES, *PERSON_TABLES, *VIEWS])
        known = "" if isinstance(error, duckdb.IOException) else f"; tables: {names}"
        raise UsageError(f"query: {' '.join(lines)}{known}") from None


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
