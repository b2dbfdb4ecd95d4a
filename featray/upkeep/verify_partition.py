"""Upkeep. The checks of one dataset and release, for `verify`.

Everything is streamed: commits are read one by one, files are hashed in pieces, and DuckDB checks
the accounting rules on a few commits at a time, with a memory limit and a folder to spill to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from featray.errors import NotFound, OutputError, StorageError, counted, shown
from featray.records import digest_of_extra
from featray.redaction import redact_links
from featray.schema import DERIVED_TABLES, FACE_TABLES, PER_VIDEO_TABLES, PRIVATE_TABLES, arrow_schema
from featray.store.failures import storage_errors
from featray.store.storage import list_ahead, open_ranges
from featray.tables.commits import Commit, CommittedFile, FileNames
from featray.tables.derived import derivation_of
from featray.tables.layout import Partition
from featray.tables.person_edits import read_edits
from featray.tables.persons import clustering_of
from featray.tables.provenance import read_config
from featray.tables.published import raised_by_store
from featray.tables.query import identifier, literal, open_database, read_files, table_view
from featray.tables.rewrite import check_groups, open_parquet
from featray.tables.tombstones import erased_videos, read_erasures
from featray.upkeep.accounting import (
    PERSON_RULES,
    RULES,
    UNPUBLISHED_PERSONS,
    Rule,
    order_rule,
    row_rules,
    twice_rule,
)
from featray.upkeep.footers import wrong_in_footer, wrong_statistics
from featray.upkeep.problems import Problem, Report
from featray.upkeep.rederive import Rederive, differences, sample
from featray.upkeep.verify_commits import CommitIndex, load_commits

SHOWN: Final = 20
"""Rows reported per rule and file; a damaged file has millions."""

MEMORY_LIMIT: Final = "2GB"
"""Memory limit of DuckDB; beyond it, DuckDB spills to disk."""

_BATCH_FILES = 512
_BATCH_BYTES = 4 << 30
"""Limits of files and bytes for commits whose accounting is checked together."""

_SEARCHED: Final = 3
"""Videos searched for in each file; each takes a few requests if the output is remote."""

_NULL = "has null in a column that other tables are compared with"
"""The text of a problem that SQL could not put together."""

_FOOTER_FACTS = (
    "dataset release model_name weights_sha256 weights_trained recipe precision detector detector_sha256 config_hash"
).split()
"""Facts that are constant in a release, so every file of it must state the same."""


class PartitionCheck:
    """The checks of one partition."""

    def __init__(self, partition: Partition, report: Report, scratch: str) -> None:
        self._partition = partition
        self._report = report
        self._where = f"{partition.dataset}/{partition.release}"
        self._scratch = scratch
        self._db = self._connect()
        self._changed: set[str] = set()
        self._sound: set[str] = set()
        self._facts: dict[str, str] = {}
        self._tables: tuple[str, ...] = ()
        self._persons: list[CommittedFile] = []
        self._persons_current, self._persons_outdated = True, False

    def _connect(self) -> duckdb.DuckDBPyConnection:
        output = self._partition.output
        return open_database(output, memory_limit=MEMORY_LIMIT, spill=f"{self._scratch}/spill")

    def _try(self, path: str) -> None:
        """Read a whole file in a separate connection: some damage makes DuckDB invalidate a whole database.

        Raises:
            duckdb.Error: the file cannot be read.
        """
        with self._connect() as connection:
            rows = connection.sql(f"SELECT * FROM {read_files(self._partition.output, [path])}").to_arrow_reader()
            for _ in rows:
                pass

    def verify(self, rederive: int) -> set[str]:
        """Run every check; return the paths that commits name, or named until an unfinished change replaces them."""
        index = load_commits(self._partition, self._db)
        for text in index.damaged:
            self._problem(text)
        self._report.unfinished += [f"{self._where}: {text}" for text in index.unfinished]
        self._check_runs(index)
        self._read_persons(index)
        paths = index.replaced
        named = FileNames(self._partition)
        list_ahead(self._partition.table_folders())
        for batch in _batches(index.commits()):
            sound, known = [], len(self._report.problems)
            for commit in batch:
                paths |= {file.path for file in commit.files}
                named.add(commit)
                if all([self._check_file(file) for file in commit.files]):
                    sound.append(commit)
                if any(file.path in self._changed for file in commit.files) and commit.videos:
                    place = self._partition.commit(commit.name)
                    self._report.damaged_commits.append(self._partition.output.relative(place.path))
            self._account(sound, index)
            if len(self._report.problems) == known:
                self._sound |= {commit.name for commit in batch}
            self._report.videos += sum(len(commit.videos) for commit in batch)
        for video_id, names in index.videos_twice():
            self._problem(f"is in several commits: {', '.join(names)}", video_id=video_id)
        try:
            named.distinct()
        except OutputError as error:
            self._problem(str(error))
        self._check_persons()
        self._check_erasures(index)
        self._check_edits()
        self._check_derived(index, rederive)
        self._db.close()
        return paths

    def _problem(
        self, text: str, file: str | None = None, video_id: str | None = None, row: dict[str, int] | None = None
    ) -> None:
        self._report.problems.append(Problem(self._where, text, file, video_id, row or {}))

    def _check_runs(self, index: CommitIndex) -> None:
        """Read the runs; every file must state the same facts about the release."""
        files = [file for commit in index.commits() for file in commit.files if file.table == "runs"]
        self._db.execute(f"CREATE TABLE all_runs AS {table_view('runs', '')}")
        for file in files:
            if self._open(file, quiet=True) is not None:
                source = read_files(self._partition.output, [file.path])
                try:
                    self._try(file.path)
                    self._db.execute(f"INSERT INTO all_runs BY NAME SELECT * FROM {source}")
                except duckdb.Error as error:
                    self._problem(f"cannot be read: {_first_line(error)}", file.path)
        for row in self._rows(twice_rule("runs").replace("FROM runs", "FROM all_runs")):
            self._problem(row["text"])
        known = self._rows(
            f"SELECT run_id, config, {', '.join(f'CAST({name} AS VARCHAR) AS {name}' for name in _FOOTER_FACTS)} "
            "FROM all_runs ORDER BY started_at"
        )
        if not known:
            if any(commit.videos for commit in index.commits()):
                self._problem("has no row in runs: the origin of its rows is unknown")
            return
        self._facts = {name: str(known[-1][name]) for name in _FOOTER_FACTS}
        for row in known[:-1]:
            for name, value in self._facts.items():
                if row[name] is not None and str(row[name]) != value:
                    what = f"runs: run {row['run_id']} has {name} {row[name]}, the last run of the release has {value}"
                    self._problem(shown(what, 400))
        try:
            self._tables = read_config(known[-1]["config"]).tables
        except ValueError:
            self._problem(
                f"runs.config of run {known[-1]['run_id']} is not a valid config: the release's tables are unknown"
            )
        ids = {row["run_id"] for row in known}
        for commit in index.commits():
            if commit.videos and commit.run_id not in ids:
                self._problem(f"commit {commit.name} names run {commit.run_id}, which is not in runs")

    def _read_persons(self, index: CommitIndex) -> None:
        """Create view `all_persons`: the table is in a separate commit and refers to all others."""
        files = [file for commit in index.commits() for file in commit.files if file.table == "persons"]
        self._persons = [file for file in files if self._open(file, quiet=True) is not None]
        made_us = [one.published_at_us for one in index.commits() if any(file in self._persons for file in one.files)]
        newer = (one for one in index.commits() if one.videos and one.published_at_us > min(made_us, default=0))
        self._persons_current = not made_us or next(newer, None) is None
        source = read_files(self._partition.output, [file.path for file in self._persons])
        try:
            self._db.execute(f"CREATE VIEW all_persons AS {table_view('persons', source)}")
        except duckdb.Error:  # the file itself is checked with its commit
            self._persons = []
            self._db.execute(f"CREATE VIEW all_persons AS {table_view('persons', '')}")

    def _check_persons(self) -> None:
        twice = twice_rule("persons").replace("FROM persons", "FROM all_persons")
        self._report_rows(twice, None, self._persons, ("persons",))
        if self._persons_outdated or self._rows(UNPUBLISHED_PERSONS):
            what = "persons contains tracks that no longer exist; run `featray persons OUT`"
            self._report.unfinished.append(f"{self._where}: {what}")

    def _report_of_persons(self, rule: Rule, files: list[CommittedFile]) -> None:
        """Report the rows that break a rule; if the table is outdated, only note that it is."""
        if self._persons_current:
            self._report_rows(rule.sql, None, files, rule.needs)
        elif not self._persons_outdated:
            self._persons_outdated = bool(self._rows(f"SELECT 1 AS broken FROM ({rule.sql}) LIMIT 1"))

    def _check_file(self, file: CommittedFile) -> bool:
        """Check one file alone; return whether its rows can be used for the accounting."""
        self._report.files += 1
        self._report.bytes += file.size_bytes
        self._report.rows += file.rows
        opened = self._open(file)
        if opened is None:
            return False
        expected = arrow_schema(file.table, tuple(self._partition.fields_of(file.path)))
        try:
            for text in wrong_in_footer(opened, file, expected, self._facts):
                self._problem(text, file.path)
            if file.path in self._changed:
                self._try(file.path)
            checked = self._check_rows(file, opened)
            self._check_statistics(file, expected)
            return checked
        except (duckdb.Error, pa.ArrowException, ValueError, KeyError) as error:
            self._problem(f"cannot be read: {_first_line(error)}", file.path)
            return False

    def _open(self, file: CommittedFile, *, quiet: bool = False) -> pq.ParquetFile | None:
        """Compare size and sha256; return the opened file, or None if it cannot be read."""
        place = self._partition.output.root.child(file.path)
        say = (lambda *_: None) if quiet else self._problem
        try:
            if not quiet:
                size, digest = _digest(place)
                if size != file.size_bytes:
                    say(f"has {counted(size, 'byte')}, the commit says {file.size_bytes:,}", file.path)
                if digest != file.sha256:
                    say(f"has sha256 {digest[:12]}…, the commit says {file.sha256[:12]}…: it was changed", file.path)
                    self._changed.add(file.path)
            with storage_errors(place.uri), open_ranges(place) as source:
                opened = pq.ParquetFile(source)
                check_groups(opened.metadata)
                opened.close()
                return opened
        except NotFound:
            say("a commit names it, but it is missing", file.path)
            self._changed.add(file.path)
        except StorageError as error:
            say(str(error), file.path)
        except (pa.ArrowException, ValueError) as error:  # damaged column names raise UnicodeDecodeError
            say(f"not a readable Parquet file: {_first_line(error)}", file.path)
        return None

    def _check_rows(self, file: CommittedFile, opened: pq.ParquetFile) -> bool:
        names = set(opened.schema_arrow.names)
        source = read_files(self._partition.output, [file.path], row_numbers=True)
        self._db.execute(f"CREATE OR REPLACE VIEW one_file AS SELECT * FROM {source}")
        for row in self._rows(f"{order_rule(file.table)} LIMIT {SHOWN}"):
            self._problem("is out of order", file.path, row.get("video_id"), {"row": row["file_row_number"]})
        rules = row_rules(file.table, names, self._facts.get("precision", ""))
        partition: dict[str, str | None] = {"dataset": self._partition.dataset, "release": self._partition.release}
        if file.table in DERIVED_TABLES:
            partition["derivation"] = derivation_of(file.path)
        elif file.table == "persons":
            partition["clustering"] = clustering_of(file.path)
        for name, value in {**partition, **self._partition.fields_of(file.path)}.items():
            if name in names:
                rules[name] = f"{identifier(name)} IS NOT DISTINCT FROM {'NULL' if value is None else literal(value)}"
        broken = ", ".join(f"CASE WHEN NOT coalesce({c}, false) THEN {_tell(n, names)} END" for n, c in rules.items())
        kept = " AND ".join(f"coalesce({condition}, false)" for condition in rules.values())
        key = [name for name in ("video_id", "frame_index", "face_index") if name in names]
        columns = ", ".join([*key, "file_row_number", f"concat_ws(', ', {broken}) AS text"])
        self._report_rows(f"SELECT {columns} FROM one_file WHERE NOT ({kept})", file.path, unless=kept)
        if "video_id" in names and pa.types.is_string(opened.schema_arrow.field("video_id").type):
            self._check_search(file)
        return True

    def _check_search(self, file: CommittedFile) -> None:
        """Search for some videos: filters and page indexes that leave out rows are read in a search alone."""
        source = read_files(self._partition.output, [file.path])
        counts = f"SELECT video_id, count(*) AS n FROM {source} WHERE video_id IS NOT NULL GROUP BY video_id"
        for row in self._rows(f"SELECT * FROM ({counts}) ORDER BY hash(video_id) LIMIT {_SEARCHED}"):
            search = f"SELECT count(*) AS n FROM {source} WHERE video_id = {literal(row['video_id'])}"
            (found,) = self._rows(search)
            if found["n"] != row["n"]:
                text = (
                    f"a search for it finds {found['n']:,} of its {counted(row['n'], 'row')}: the file's index is wrong"
                )
                self._problem(text, file.path, row["video_id"])

    def _check_statistics(self, file: CommittedFile, expected: pa.Schema) -> None:
        try:
            with open_parquet(self._partition.output.root.child(file.path)) as whole:
                wrong = wrong_statistics(whole, expected)
        except OutputError as error:
            self._problem(f"its values cannot be compared with its footer: {error}", file.path)
            return
        if wrong:
            columns = ", ".join(wrong[:3]) + (", ..." if len(wrong) > 3 else "")
            what = "footer: its statistics contradict the values, so queries miss rows and this check may have, too"
            self._problem(f"{what}: {columns}", file.path)

    def _account(self, commits: list[Commit], index: CommitIndex) -> None:
        """Check the rules on the rows of some commits."""
        if not any(commit.videos for commit in commits):
            return
        for table in (*PER_VIDEO_TABLES, *DERIVED_TABLES, *PRIVATE_TABLES):
            files = [file.path for commit in commits for file in commit.files if file.table == table]
            view = table_view(table, read_files(self._partition.output, files))
            try:
                self._db.execute(f"CREATE OR REPLACE VIEW {table} AS {view}")
            except duckdb.Error as error:  # each file can be read, but their schemas conflict
                self._problem(f"{table}: its files cannot be read together: {_first_line(error)}")
                return
        index.select_videos([commit.name for commit in commits])
        self._check_extra({video.video_id: video.extra_digest for commit in commits for video in commit.videos})
        self._db.execute("CREATE OR REPLACE VIEW persons AS FROM all_persons SEMI JOIN committed USING (video_id)")
        files_of = [file for commit in commits for file in commit.files]
        for rule in RULES:
            if all(table in self._tables or table not in ("blendshapes", "mesh") for table in rule.needs):
                self._report_rows(rule.sql, None, files_of, rule.needs)
        for rule in PERSON_RULES if self._persons else ():
            self._report_of_persons(rule, [*files_of, *self._persons])

    def _check_extra(self, digests: dict[str, str]) -> None:
        """Compare `videos.extra` with the digests by video; commits of older versions have none."""
        try:
            rows = self._rows("SELECT video_id::VARCHAR AS video_id, extra::VARCHAR AS extra FROM videos")
        except duckdb.Error:  # a column is missing or has another type, which its file's check reports
            return
        for row in rows:
            expected = digests.get(row["video_id"])
            if expected and digest_of_extra(row["extra"]) != expected:
                self._problem("extra is not what the commit has a digest of", video_id=row["video_id"])

    def _report_rows(
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
            if unless and not self._rows(f"SELECT 1 AS broken FROM one_file WHERE NOT ({unless}) LIMIT 1"):
                return
            rows = self._rows(f"SELECT *, count(*) OVER () AS of FROM ({sql}) LIMIT {SHOWN}")
        except duckdb.Error as error:
            self._problem(f"cannot be read: {_first_line(error)}", path)
            return
        for row in rows:
            place = {name: row[name] for name in ("frame_index", "face_index") if row.get(name) is not None}
            if not place and path and row.get("video_id") is None:
                place = {"row": row["file_row_number"]}
            where = path or self._file_of(row, files or [], tables)
            self._problem(row["text"] or _NULL, where, row.get("video_id"), place)
        if rows and rows[0]["of"] > len(rows):
            like = rows[0]["text"] or _NULL
            self._problem(f"{counted(rows[0]['of'] - len(rows), 'more row')} like these: {like}", path)

    def _file_of(self, row: dict[str, Any], files: list[CommittedFile], tables: tuple[str, ...]) -> str | None:
        """Return the file with the row that an accounting rule reports, from its last table or else earlier ones."""
        for table in reversed(tables):
            paths = [file.path for file in files if file.table == table]
            source = read_files(self._partition.output, paths, filename=True)
            if source and row.get("video_id"):
                keys = {"video_id": row["video_id"]}
                if table in (*FACE_TABLES, *PRIVATE_TABLES, "frames") and row.get("frame_index") is not None:
                    keys["frame_index"] = row["frame_index"]
                condition = " AND ".join(f"{name} = ${name}" for name in keys)
                try:
                    found = self._rows(f"SELECT filename FROM {source} WHERE {condition} LIMIT 1", keys)
                except duckdb.Error:  # a column is missing or has another type, which its file's check reports
                    continue
                if found:
                    return next((path for path in paths if found[0]["filename"].endswith(path)), None)
        return None

    def _check_derived(self, index: CommitIndex, count: int) -> None:
        """Derive rows of some commits again; skip commits with known problems, which would be reported twice."""
        again = Rederive(self._partition, index.commits)
        for commit in sample((commit for commit in index.commits() if commit.name in self._sound), count):
            try:
                for text, path, video_id in differences(self._partition, commit, again):
                    self._problem(text, path, video_id)
            except StorageError as error:
                self._problem(f"commit {commit.name}: its derived rows cannot be derived again: {error}")
        self._report.unfinished += [f"{self._where}: {text}" for text in again.unfinished]

    def _check_erasures(self, index: CommitIndex) -> None:
        for video_id in erased_videos(self._partition.output):
            try:
                erasures = read_erasures(self._partition.output, video_id)
            except StorageError as error:
                self._problem(str(error))
                continue
            mine = [e for e in erasures if e.release in (None, self._partition.release)]
            unfinished = [erasure for erasure in mine if not erasure.done]
            whole = [erasure for erasure in mine if erasure.track_id is None]
            for erasure in unfinished:
                self._problem(f"its erasure was interrupted; finish it: {erasure.command}", video_id=video_id)
            if whole and not unfinished and index.has_video(video_id):
                self._problem(f"was erased and has rows again; {whole[0].command}", video_id=video_id)

    def _check_edits(self) -> None:
        try:
            read_edits(self._partition)
        except StorageError as error:
            self._problem(str(error))

    def _rows(self, sql: str, values: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._db.sql(sql, params=values).to_arrow_table().to_pylist()
        return found


def _batches(commits: Iterator[Commit]) -> Iterator[list[Commit]]:
    batch: list[Commit] = []
    files = size = 0
    for commit in commits:
        batch.append(commit)
        files += len(commit.files)
        size += sum(file.size_bytes for file in commit.files)
        if files >= _BATCH_FILES or size >= _BATCH_BYTES:
            yield batch
            batch, files, size = [], 0, 0
    if batch:
        yield batch


def _digest(place: Any) -> tuple[int, str]:
    """Return size and sha256 of an object, read once."""
    digest, size = hashlib.sha256(), 0
    with storage_errors(place.uri), open_ranges(place) as source:
        while piece := source.read(8 << 20):
            digest.update(piece)
            size += len(piece)
    return size, digest.hexdigest()


def _tell(rule: str, columns: set[str]) -> str:
    """Return SQL for the message about a row that breaks a rule."""
    if rule not in columns:
        return literal(f"{rule} does not hold")
    return f"{literal(f'{rule} is ')} || coalesce(CAST({identifier(rule)} AS VARCHAR), 'null')"


def _first_line(error: Exception) -> str:
    lines = [raised_by_store(error) or "", *map(str.strip, str(error).splitlines())]
    return redact_links(next(filter(None, lines), type(error).__name__))
