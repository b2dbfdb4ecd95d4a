"""Upkeep. The checks of one dataset and release, for `verify`.

Everything is streamed: commits are read one by one, files are hashed in pieces, and DuckDB checks
the accounting rules on a few commits at a time, with a memory limit.
"""

from __future__ import annotations

from collections.abc import Iterator

import duckdb

from featray.errors import OutputError, StorageError, shown
from featray.records import digest_of_extra
from featray.schema import DERIVED_TABLES, PER_VIDEO_TABLES, PRIVATE_TABLES
from featray.store.storage import list_ahead
from featray.tables.commits import Commit, CommittedFile, FileNames
from featray.tables.database import literal, read_files
from featray.tables.layout import Partition
from featray.tables.person_edits import read_edits
from featray.tables.persons import clustering_of
from featray.tables.provenance import read_config
from featray.tables.query import table_view
from featray.tables.rewrite import footer_of
from featray.tables.tombstones import Erasure, erased_videos, read_erasures
from featray.upkeep.accounting import (
    EVERY_PERSON,
    NAMED_TWICE,
    PERSON_RULES,
    RULES,
    UNPUBLISHED_PERSONS,
    Rule,
    twice_rule,
)
from featray.upkeep.persons import commit_name
from featray.upkeep.problems import Report
from featray.upkeep.rederive import Rederive, differences, sample
from featray.upkeep.verify_commits import CommitIndex, load_commits
from featray.upkeep.verify_file import FileCheck
from featray.upkeep.verify_rows import Findings, first_line

_BATCH_FILES = 512
_BATCH_BYTES = 4 << 30
"""Limits of files and bytes for commits whose accounting is checked together."""

_FOOTER_FACTS = (
    "dataset release model_name weights_sha256 weights_trained recipe precision detector detector_sha256 config_hash"
).split()
"""Facts that are constant in a release, so every file of it must state the same."""


class PartitionCheck:
    """The checks of one partition."""

    def __init__(self, partition: Partition, report: Report) -> None:
        self._partition = partition
        self._report = report
        self._findings = Findings(partition, report)
        self._files = FileCheck(self._findings)
        self._sound: set[str] = set()
        self._tables: tuple[str, ...] = ()
        self._persons: list[CommittedFile] = []
        self._persons_current, self._persons_outdated, self._persons_of_all = True, False, False

    def verify(self, rederive: int) -> set[str]:
        """Run every check; return the paths that commits name, or named until an unfinished change replaces them."""
        index = load_commits(self._partition, self._findings.db)
        for text in index.damaged:
            self._findings.problem(text)
        self._report.unfinished += [f"{self._findings.where}: {text}" for text in index.unfinished]
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
                if commit.cancelled and (commit.files or commit.videos):
                    self._findings.problem(f"commit {commit.name} is marked as cancelled, and has rows")
                if all([self._files.check(file) for file in commit.files]):
                    sound.append(commit)
                if any(file.path in self._files.changed for file in commit.files) and commit.videos:
                    place = self._partition.commit(commit.name)
                    self._report.damaged_commits.append(self._partition.output.relative(place.path))
            self._account(sound, index)
            if len(self._report.problems) == known:
                self._sound |= {commit.name for commit in batch}
            self._report.videos += sum(len(commit.videos) for commit in batch)
        for video_id, names in index.videos_twice():
            self._findings.problem(f"is in several commits: {', '.join(names)}", video_id=video_id)
        try:
            named.distinct()
        except OutputError as error:
            self._findings.problem(str(error))
        self._check_persons()
        self._check_erasures(index)
        self._check_edits()
        self._check_derived(index, rederive)
        self._findings.db.close()
        return paths

    def _check_runs(self, index: CommitIndex) -> None:
        """Read the runs; every file must state the same facts about the release."""
        files = [file for commit in index.commits() for file in commit.files if file.table == "runs"]
        self._findings.db.execute(f"CREATE TABLE all_runs AS {table_view('runs', '')}")
        for file in files:
            if self._files.open(file, quiet=True) is not None:
                source = read_files(self._partition.output, [file.path])
                try:
                    self._files.check_texts_of(file)
                    self._findings.read_whole(file.path)
                    self._findings.db.execute(f"INSERT INTO all_runs BY NAME SELECT * FROM {source}")
                except (duckdb.Error, OutputError) as error:
                    self._findings.problem(f"cannot be read: {first_line(error)}", file.path)
        for row in self._findings.rows(twice_rule("runs").replace("FROM runs", "FROM all_runs")):
            self._findings.problem(row["text"])
        known = self._findings.rows(
            f"SELECT run_id, config, {', '.join(f'CAST({name} AS VARCHAR) AS {name}' for name in _FOOTER_FACTS)} "
            "FROM all_runs ORDER BY started_at"
        )
        if not known:
            if any(commit.videos for commit in index.commits()):
                self._findings.problem("has no row in runs: the origin of its rows is unknown")
            return
        self._files.facts = {name: str(known[-1][name]) for name in _FOOTER_FACTS}
        for row in known[:-1]:
            for name, value in self._files.facts.items():
                if row[name] is not None and str(row[name]) != value:
                    what = f"runs: run {row['run_id']} has {name} {row[name]}, the last run of the release has {value}"
                    self._findings.problem(shown(what, 400))
        try:
            config = read_config(known[-1]["config"])
            self._tables, self._files.embedder = config.tables, config.embedder
        except ValueError:
            self._findings.problem(
                f"runs.config of run {known[-1]['run_id']} is not a valid config: the release's tables are unknown"
            )
        ids = {row["run_id"] for row in known}
        for commit in index.commits():
            if commit.videos and commit.run_id not in ids:
                self._findings.problem(f"commit {commit.name} names run {commit.run_id}, which is not in runs")

    def _read_persons(self, index: CommitIndex) -> None:
        """Create view `all_persons`: the table is in a separate commit and refers to all others."""
        files = [file for commit in index.commits() for file in commit.files if file.table == "persons"]
        self._persons = [file for file in files if self._files.open(file, quiet=True) is not None]
        made_us = [one.published_at_us for one in index.commits() if any(file in self._persons for file in one.files)]
        newer = (one for one in index.commits() if one.videos and one.published_at_us > min(made_us, default=0))
        self._persons_current = not made_us or next(newer, None) is None
        self._persons_of_all = self._are_of_all_tracks(index)
        source = read_files(self._partition.output, [file.path for file in self._persons])
        try:
            self._findings.db.execute(f"CREATE VIEW all_persons AS {table_view('persons', source)}")
            self._findings.rows("SELECT max(video_id), max(person_id) FROM all_persons")
        except duckdb.Error:  # the file itself is checked with its commit
            self._persons = []
            self._findings.db.execute(f"CREATE OR REPLACE VIEW all_persons AS {table_view('persons', '')}")

    def _are_of_all_tracks(self, index: CommitIndex) -> bool:
        """Return whether `persons` was made from the present tracks; if they were compacted since, it is not known."""
        made_from = [f for commit in index.commits() for f in commit.files if f.table in ("embeddings", "faces")]
        for file in self._persons[:1]:
            opened = self._files.open(file, quiet=True)
            gallery = "" if opened is None else footer_of(opened).get("gallery", "")
            try:
                name = commit_name(clustering_of(file.path) or "", read_edits(self._partition), gallery, made_from)
            except StorageError:  # `_check_edits` reports it
                return False
            return any(commit.name == name for commit in index.commits())
        return False

    def _check_persons(self) -> None:
        twice = twice_rule("persons").replace("FROM persons", "FROM all_persons")
        for rule in (twice, NAMED_TWICE):
            self._findings.report_rows(rule, None, self._persons, ("persons",))
        if self._persons_outdated or self._findings.rows(UNPUBLISHED_PERSONS):
            what = "persons contains tracks that no longer exist; run `featray persons OUT`"
            self._report.unfinished.append(f"{self._findings.where}: {what}")

    def _report_of_persons(self, rule: Rule, files: list[CommittedFile]) -> None:
        """Report the rows that break a rule; if the table is outdated, only note that it is."""
        if self._persons_current:
            self._findings.report_rows(rule.sql, None, files, rule.needs)
        elif not self._persons_outdated:
            self._persons_outdated = bool(self._findings.rows(f"SELECT 1 AS broken FROM ({rule.sql}) LIMIT 1"))

    def _account(self, commits: list[Commit], index: CommitIndex) -> None:
        """Check the rules on the rows of some commits."""
        if not any(commit.videos for commit in commits):
            return
        for table in (*PER_VIDEO_TABLES, *DERIVED_TABLES, *PRIVATE_TABLES):
            files = [file.path for commit in commits for file in commit.files if file.table == table]
            view = table_view(table, read_files(self._partition.output, files))
            try:
                self._findings.db.execute(f"CREATE OR REPLACE VIEW {table} AS {view}")
            except duckdb.Error as error:  # each file can be read, but their schemas conflict
                self._findings.problem(f"{table}: its files cannot be read together: {first_line(error)}")
                return
        index.select_videos([commit.name for commit in commits])
        self._check_extra({video.video_id: video.extra_digest for commit in commits for video in commit.videos})
        self._findings.db.execute(
            "CREATE OR REPLACE VIEW persons AS FROM all_persons SEMI JOIN committed USING (video_id)"
        )
        files_of = [file for commit in commits for file in commit.files]
        for rule in RULES:
            if all(table in self._tables or table not in ("blendshapes", "mesh") for table in rule.needs):
                self._findings.report_rows(rule.sql, None, files_of, rule.needs)
        if self._persons:
            for rule in (*PERSON_RULES, *([EVERY_PERSON] if self._persons_of_all else [])):
                self._report_of_persons(rule, [*files_of, *self._persons])

    def _check_extra(self, digests: dict[str, str]) -> None:
        """Compare `videos.extra` with the digests by video; commits of older versions have none."""
        try:
            rows = self._findings.rows("SELECT video_id::VARCHAR AS video_id, extra::VARCHAR AS extra FROM videos")
        except duckdb.Error:  # a column is missing or has another type, which its file's check reports
            return
        for row in rows:
            expected = digests.get(row["video_id"])
            if expected and digest_of_extra(row["extra"]) != expected:
                self._findings.problem("extra is not what the commit has a digest of", video_id=row["video_id"])

    def _check_derived(self, index: CommitIndex, count: int) -> None:
        """Derive rows of some commits again; skip commits with known problems, which would be reported twice."""
        again = Rederive(self._partition, index.commits)
        for commit in sample((commit for commit in index.commits() if commit.name in self._sound), count):
            try:
                for text, path, video_id in differences(self._partition, commit, again):
                    self._findings.problem(text, path, video_id)
            except StorageError as error:
                self._findings.problem(f"commit {commit.name}: its derived rows cannot be derived again: {error}")
        self._report.unfinished += [f"{self._findings.where}: {text}" for text in again.unfinished]

    def _check_erasures(self, index: CommitIndex) -> None:
        recorded: dict[str, Erasure] = {}
        tracks: list[Erasure] = []
        for video_id in erased_videos(self._partition.output):
            try:
                erasures = read_erasures(self._partition.output, video_id)
            except StorageError as error:
                self._findings.problem(str(error))
                continue
            recorded |= {one.erasure_id: one for one in erasures}
            mine = [e for e in erasures if e.release in (None, self._partition.release)]
            unfinished = [erasure for erasure in mine if not erasure.done]
            whole = [erasure for erasure in mine if erasure.track_id is None]
            tracks += [erasure for erasure in mine if erasure.track_id is not None and erasure.done]
            for erasure in unfinished:
                self._findings.problem(f"its erasure was interrupted; finish it: {erasure.command}", video_id=video_id)
            if whole and not unfinished and index.has_video(video_id):
                self._findings.problem(f"was erased and has rows again; {whole[0].command}", video_id=video_id)
        self._check_erased_tracks(index, tracks)
        self._check_audit(index, recorded)

    def _check_erased_tracks(self, index: CommitIndex, erasures: list[Erasure]) -> None:
        """Report erased tracks that are in `faces` again; no run processes their videos, so their ids stay free."""
        videos = {erasure.video_id for erasure in erasures}
        named = (one for one in index.commits() if any(video.video_id in videos for video in one.videos))
        paths = [file.path for commit in named for file in commit.files if file.table == "faces"] if videos else []
        if not paths:
            return
        source, listed = read_files(self._partition.output, paths), ", ".join(map(literal, sorted(videos)))
        sql = f"SELECT DISTINCT video_id, track_id FROM {source} WHERE video_id IN ({listed})"
        try:
            there = {(row["video_id"], row["track_id"]) for row in self._findings.rows(sql)}
        except duckdb.Error:  # reported by the file's check
            return
        for one in erasures:
            if (one.video_id, one.track_id) in there:
                text = f"track {one.track_id} was erased and has rows again; {one.command}"
                self._findings.problem(text, video_id=one.video_id)

    def _check_audit(self, index: CommitIndex, recorded: dict[str, Erasure]) -> None:
        """Compare the rows of `erasures` with the records; a video that was allowed again has none."""
        paths = [file.path for commit in index.commits() for file in commit.files if file.table == "erasures"]
        view = table_view("erasures", read_files(self._partition.output, paths))
        try:
            rows = self._findings.rows(f"SELECT erasure_id, video_id, track_id FROM ({view})")
        except duckdb.Error:  # reported by the file's check
            return
        for row in rows:
            record = recorded.get(row["erasure_id"])
            if record and (record.video_id, record.track_id) != (row["video_id"], row["track_id"]):
                track = "" if record.track_id is None else f" track {record.track_id}"
                what = f"erasures: {row['erasure_id']} is recorded as the erasure of video {record.video_id}{track}"
                self._findings.problem(what, video_id=row["video_id"])

    def _check_edits(self) -> None:
        try:
            read_edits(self._partition)
        except StorageError as error:
            self._findings.problem(str(error))


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
