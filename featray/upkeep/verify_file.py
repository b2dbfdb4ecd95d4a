"""Upkeep. The checks of one committed file, for `verify`: size, digest, footer, statistics, and each row alone."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from featray.errors import NotFound, OutputError, StorageError, counted
from featray.schema import DERIVED_TABLES, ROWS_A_GROUP, arrow_schema
from featray.store.failures import storage_errors
from featray.store.storage import open_ranges
from featray.tables.commits import CommittedFile
from featray.tables.database import identifier, literal, read_files
from featray.tables.derived import derivation_of
from featray.tables.persons import clustering_of
from featray.tables.rewrite import check_groups, check_texts, open_parquet
from featray.upkeep.accounting import order_rule, row_rules
from featray.upkeep.footers import wrong_in_footer, wrong_statistics
from featray.upkeep.verify_rows import SHOWN, Findings, first_line

_QUOTED: Final = 80
"""Characters quoted of a wrong value."""

_SEARCHED: Final = 3
"""Videos searched for in each file; each takes a few requests if the output is remote."""


class FileCheck:
    """The checks of a file alone.

    Attributes:
        facts: facts about the release that every footer must state.
        embedder: the release's embedder; None if it is unknown.
        changed: paths of the files that are missing or were changed.
    """

    def __init__(self, findings: Findings) -> None:
        self.facts: dict[str, str] = {}
        self.embedder: str | None = None
        self.changed: set[str] = set()
        self._findings = findings
        self._partition = findings.partition

    def check(self, file: CommittedFile) -> bool:
        """Check one file alone; return whether its rows can be used for the accounting."""
        report = self._findings.report
        report.files += 1
        report.bytes += file.size_bytes
        report.rows += file.rows
        opened = self.open(file)
        if opened is None:
            return False
        expected = arrow_schema(file.table, tuple(self._partition.fields_of(file.path)))
        try:
            for text in wrong_in_footer(opened, file, expected, self.facts):
                self._findings.problem(text, file.path)
            if file.path in self.changed:
                self._findings.read_whole(file.path)
            self.check_texts_of(file)
            checked = self._check_rows(file, opened)
            self._check_statistics(file, expected)
            return checked
        except (duckdb.Error, pa.ArrowException, ValueError, KeyError, OutputError) as error:
            self._findings.problem(f"cannot be read: {first_line(error)}", file.path)
            return False

    def open(self, file: CommittedFile, *, quiet: bool = False) -> pq.ParquetFile | None:
        """Compare size and sha256; return the opened file, or None if it cannot be read."""
        place = self._partition.output.root.child(file.path)
        say = (lambda *_: None) if quiet else self._findings.problem
        try:
            if not quiet:
                size, digest = _digest(place)
                if size != file.size_bytes:
                    say(f"has {counted(size, 'byte')}, the commit says {file.size_bytes:,}", file.path)
                if digest != file.sha256:
                    say(f"has sha256 {digest[:12]}…, the commit says {file.sha256[:12]}…: it was changed", file.path)
                    self.changed.add(file.path)
            with storage_errors(place.uri), open_ranges(place) as source:
                opened = pq.ParquetFile(source)
                check_groups(opened.metadata)
                opened.close()
                return opened
        except NotFound:
            say("a commit names it, but it is missing", file.path)
            self.changed.add(file.path)
        except StorageError as error:
            say(str(error), file.path)
        except (pa.ArrowException, ValueError) as error:  # damaged column names raise UnicodeDecodeError
            say(f"not a readable Parquet file: {first_line(error)}", file.path)
        return None

    def _check_rows(self, file: CommittedFile, opened: pq.ParquetFile) -> bool:
        names = set(opened.schema_arrow.names)
        source = read_files(self._partition.output, [file.path], row_numbers=True)
        self._findings.db.execute(f"CREATE OR REPLACE VIEW one_file AS SELECT * FROM {source}")
        for row in self._findings.rows(f"{order_rule(file.table)} LIMIT {SHOWN}"):
            self._findings.problem("is out of order", file.path, row.get("video_id"), {"row": row["file_row_number"]})
        rules = row_rules(file.table, names, self.facts.get("precision", ""))
        constant: dict[str, str | None] = {"dataset": self._partition.dataset, "release": self._partition.release}
        if file.table in DERIVED_TABLES:
            constant["derivation"] = derivation_of(file.path)
        elif file.table == "persons":
            constant["clustering"] = clustering_of(file.path)
        elif file.table == "embeddings" and self.embedder:
            constant["embedder"] = self.embedder
        for name, value in {**constant, **self._partition.fields_of(file.path)}.items():
            if name in names:
                rules[name] = f"{identifier(name)} IS NOT DISTINCT FROM {'NULL' if value is None else literal(value)}"
        broken = ", ".join(f"CASE WHEN NOT coalesce({c}, false) THEN {_tell(n, names)} END" for n, c in rules.items())
        kept = " AND ".join(f"coalesce({condition}, false)" for condition in rules.values())
        key = [name for name in ("video_id", "frame_index", "face_index") if name in names]
        columns = ", ".join([*key, "file_row_number", f"concat_ws(', ', {broken}) AS text"])
        self._findings.report_rows(f"SELECT {columns} FROM one_file WHERE NOT ({kept})", file.path, unless=kept)
        if "video_id" in names and pa.types.is_string(opened.schema_arrow.field("video_id").type):
            self._check_search(file)
        return True

    def _check_search(self, file: CommittedFile) -> None:
        """Search for some videos: filters and page indexes that leave out rows are read in a search alone."""
        source = read_files(self._partition.output, [file.path])
        counts = f"SELECT video_id, count(*) AS n FROM {source} WHERE video_id IS NOT NULL GROUP BY video_id"
        for row in self._findings.rows(f"SELECT * FROM ({counts}) ORDER BY hash(video_id) LIMIT {_SEARCHED}"):
            search = f"SELECT count(*) AS n FROM {source} WHERE video_id = {literal(row['video_id'])}"
            (found,) = self._findings.rows(search)
            if found["n"] != row["n"]:
                text = (
                    f"a search for it finds {found['n']:,} of its {counted(row['n'], 'row')}: the file's index is wrong"
                )
                self._findings.problem(text, file.path, row["video_id"])

    def check_texts_of(self, file: CommittedFile) -> None:
        """Measure texts before DuckDB or Arrow unfolds them; raise OutputError if they would fill the memory."""
        with open_parquet(self._partition.output.root.child(file.path), folded=True) as whole:
            texts = [field.name for field in whole.schema_arrow if pa.types.is_dictionary(field.type)]
            for batch in whole.iter_batches(ROWS_A_GROUP[file.table], columns=texts) if texts else ():
                check_texts(pa.Table.from_batches([batch]))

    def _check_statistics(self, file: CommittedFile, expected: pa.Schema) -> None:
        try:
            with open_parquet(self._partition.output.root.child(file.path)) as whole:
                wrong = wrong_statistics(whole, expected)
        except OutputError as error:
            self._findings.problem(f"its values cannot be compared with its footer: {error}", file.path)
            return
        if wrong:
            columns = ", ".join(wrong[:3]) + (", ..." if len(wrong) > 3 else "")
            what = "footer: its statistics contradict the values, so queries miss rows and this check may have, too"
            self._findings.problem(f"{what}: {columns}", file.path)


def _digest(place: Any) -> tuple[int, str]:
    """Return size and sha256 of an object, read once."""
    digest, size = hashlib.sha256(), 0
    with storage_errors(place.uri), open_ranges(place) as source:
        while piece := source.read(8 << 20):
            digest.update(piece)
            size += len(piece)
    return size, digest.hexdigest()


def _tell(rule: str, columns: set[str]) -> str:
    """Return SQL for the message about a row that breaks a rule; it quotes no embedding, and of long lists a part."""
    if rule not in columns or rule == "embedding":
        return literal(f"{rule} does not hold")
    return f"{literal(f'{rule} is ')} || coalesce(left(CAST({identifier(rule)} AS VARCHAR), {_QUOTED}), 'null')"
