"""Upkeep. Report what queries find in a dataset and release under verification, row by row."""

from __future__ import annotations

from typing import Any, Final

import duckdb

from featray.errors import counted
from featray.redaction import redact_links
from featray.schema import FACE_TABLES, PRIVATE_TABLES
from featray.tables.commits import CommittedFile
from featray.tables.database import interruptible, open_database, read_files
from featray.tables.layout import Partition
from featray.tables.published import raised_by_store
from featray.upkeep.problems import Problem, Report

SHOWN: Final = 20
"""Rows reported per rule and file; a damaged file has millions."""

MEMORY_LIMIT: Final = "2GB"
"""Memory limit of DuckDB; beyond it, DuckDB spills to disk."""

_NULL = "has null in a column that other tables are compared with"
"""The text of a problem that SQL could not put together."""


class Findings:
    """The problems of one partition, and the database that finds them.

    Attributes:
        where: dataset/release.
        db: DuckDB; view `one_file` is the file that is checked.
        report: report that the problems are added to.
    """

    def __init__(self, partition: Partition, report: Report) -> None:
        self.partition = partition
        self.where = f"{partition.dataset}/{partition.release}"
        self.report = report
        self.db = self._connect()

    def _connect(self) -> duckdb.DuckDBPyConnection:
        return open_database(self.partition.output, memory_limit=MEMORY_LIMIT)

    def read_whole(self, path: str) -> None:
        """Read a whole file in a separate connection: some damage makes DuckDB invalidate a whole database.

        Raises:
            duckdb.Error: the file cannot be read.
        """
        with self._connect() as connection:
            rows = connection.sql(f"SELECT * FROM {read_files(self.partition.output, [path])}").to_arrow_reader()
            for _ in rows:
                pass

    def problem(
        self, text: str, file: str | None = None, video_id: str | None = None, row: dict[str, int] | None = None
    ) -> None:
        """Add a problem to the report."""
        self.report.problems.append(Problem(self.where, text, file, video_id, row or {}))

    def rows(self, sql: str, values: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Return the rows of a query, which takes `values` for its parameters."""
        table = interruptible(self.db, lambda: self.db.sql(sql, params=values).to_arrow_table())
        found: list[dict[str, Any]] = table.to_pylist()
        return found

    def report_rows(
        self,
        sql: str,
        path: str | None,
        files: list[CommittedFile] | None = None,
        tables: tuple[str, ...] = (),
        *,
        unless: str = "",
    ) -> None:
        """Report the rows that a query finds; skip the query if all rows of the file satisfy the rules in `unless`.

        Planning a query that describes the violations of a hundred columns takes DuckDB longer than reading a small
        file.
        """
        try:
            if unless and not self.rows(f"SELECT 1 AS broken FROM one_file WHERE NOT ({unless}) LIMIT 1"):
                return
            rows = self.rows(f"SELECT *, count(*) OVER () AS of FROM ({sql}) LIMIT {SHOWN}")
        except duckdb.Error as error:
            self.problem(f"cannot be read: {first_line(error)}", path)
            return
        for row in rows:
            place = {name: row[name] for name in ("frame_index", "face_index") if row.get(name) is not None}
            if not place and path and row.get("video_id") is None:
                place = {"row": row["file_row_number"]}
            where = path or self._file_of(row, files or [], tables)
            self.problem(row["text"] or _NULL, where, row.get("video_id"), place)
        if rows and rows[0]["of"] > len(rows):
            like = rows[0]["text"] or _NULL
            self.problem(f"{counted(rows[0]['of'] - len(rows), 'more row')} like these: {like}", path)

    def _file_of(self, row: dict[str, Any], files: list[CommittedFile], tables: tuple[str, ...]) -> str | None:
        """Return the file with the row that an accounting rule reports, from its last table or else earlier ones."""
        for table in reversed(tables):
            paths = [file.path for file in files if file.table == table]
            source = read_files(self.partition.output, paths, filename=True)
            if source and row.get("video_id"):
                keys = {"video_id": row["video_id"]}
                if table in (*FACE_TABLES, *PRIVATE_TABLES, "frames") and row.get("frame_index") is not None:
                    keys["frame_index"] = row["frame_index"]
                condition = " AND ".join(f"{name} = ${name}" for name in keys)
                try:
                    found = self.rows(f"SELECT filename FROM {source} WHERE {condition} LIMIT 1", keys)
                except duckdb.Error:  # a column is missing or has another type, which its file's check reports
                    continue
                if found:
                    return next((path for path in paths if found[0]["filename"].endswith(path)), None)
        return None


def first_line(error: Exception) -> str:
    """Return an error's first line, that of the store if it is the cause, without logins."""
    lines = [raised_by_store(error) or "", *map(str.strip, str(error).splitlines())]
    return redact_links(next(filter(None, lines), type(error).__name__))
