"""Tables. DuckDB databases for the files of an output, and what every query needs: quoting, stopping, rows in Python.

The content of an output is untrusted: names get into SQL only through `literal` and `identifier`, and the databases for
featray's own queries can read and write nothing but the output.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import cache
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import duckdb
import pyarrow as pa

from featray.errors import OutputError, UsageError
from featray.redaction import readable_name
from featray.store.location import Location
from featray.tables.layout import Output

_Answer = TypeVar("_Answer")


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


def literal(text: str) -> str:
    """Return a string as an SQL literal.

    Raises:
        UsageError: it is no Unicode text; names in an output are, so it is from the command line.
    """
    if (readable := readable_name(text)) != text:
        raise UsageError(f"{readable}: is not UTF-8, as all names in an output are")
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """Return the name of a column or table as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def execute(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Execute a statement of featray's own that returns no rows and may take long; a stop ends it."""
    interruptible(connection, lambda: connection.execute(sql))


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
