"""Upkeep. Derive all rows of a shard again from its faces, and compare them bit by bit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import pyarrow as pa

from featray.errors import OutputError, counted
from featray.findings.derive import Derivation
from featray.findings.recorded import recorded_derivation
from featray.schema import DERIVED_TABLES, SORT_KEYS, TABLES
from featray.tables.commits import Commit, CommittedFile, read_commits
from featray.tables.derived import derivation_of, open_sources
from featray.tables.layout import Partition
from featray.tables.published import Published
from featray.tables.rewrite import complete, open_parquet
from featray.upkeep.baselines import Baselines, look_for_baselines

_SHARED = ("dataset", "release", "derivation")


def sample(commits: Iterator[Commit], count: int) -> list[Commit]:
    """Return a pseudo-random sample of the commits with derived rows; the sample is the same every time."""
    marked = ((hashlib.sha256(commit.name.encode()).hexdigest(), commit) for commit in commits if commit.derived)
    return [commit for _, commit in sorted(marked, key=lambda one: one[0])[:count]]


@dataclass
class Rederive:
    """Derives rows of a partition's commits again.

    Attributes:
        unfinished: derivations to repeat because the sources of their baselines have changed, one line each.
    """

    partition: Partition
    commits: Callable[[], Iterable[Commit]]
    unfinished: list[str] = field(default_factory=list)
    _baselines: dict[str, Baselines | None] = field(default_factory=dict)

    def bound(self, derivation: Derivation, commit: Commit) -> Derivation | None:
        """Return the derivation with the baselines that a commit's rows need; None if those have changed."""
        if not derivation.crosses_shards:
            return derivation
        if derivation.name not in self._baselines:
            self._baselines[derivation.name] = look_for_baselines(self.partition, derivation, self.commits())
        baselines = self._baselines[derivation.name]
        if baselines is None or baselines.is_current(commit):
            return derivation if baselines is None else baselines.derivation_of(commit)
        why = f"{baselines.sources} have changed, or rows were erased,"
        what = f"commit {commit.name}: {why} since derivation {derivation.name} was made"
        self.unfinished.append(f"{what}; the next run, or `featray derive` with its settings, derives it again")
        return None


def chosen_settings(published: Published) -> dict[str, str]:
    """Return, by derivation, its settings other than the defaults, as one line.

    Derivations with a damaged file, or of another version of featray, are left out.
    """
    found = {}
    for name in published.derived:
        files = (file for file in published.committed if derivation_of(file.path) == name)
        with suppress(OutputError, StopIteration):
            derivation = recorded_derivation(published.partition, next(files))
            if derivation is not None:
                chosen = derivation.config.model_dump(mode="json", exclude_defaults=True)
                found[name] = ", ".join(f"{key}: {_as_text(value)}" for key, value in chosen.items()) or "defaults"
    return found


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False).replace('"', "")


def stale_shards(published: Published) -> dict[str, int]:
    """Return, by derivation whose baselines cross shards, the number of shards made from outdated baselines.

    Derivations with a damaged file or commit are left out; `verify` reports the damage.
    """
    found = {}
    for name in published.derived:
        files = (file for file in published.committed if derivation_of(file.path) == name)
        with suppress(OutputError, StopIteration):
            derivation = recorded_derivation(published.partition, next(files))
            if derivation is not None and derivation.crosses_shards:
                commits = read_commits(published.partition)
                baselines = look_for_baselines(published.partition, derivation, commits)
                derived = [commit for commit in commits if name in commit.derived]
                found[name] = 0 if baselines is None else sum(not baselines.is_current(commit) for commit in derived)
    return found


def differences(
    partition: Partition, commit: Commit, rederive: Rederive
) -> Iterator[tuple[str, str | None, str | None]]:
    """Derive a commit's rows again; yield each difference as text, file and video id.

    Raises:
        OutputError: a file is damaged.
    """
    for name in sorted(commit.derived):
        stored = {
            table: [file for file in commit.files if file.table == table and derivation_of(file.path) == name]
            for table in DERIVED_TABLES
        }
        if not any(stored.values()):
            continue  # a shard without faces has no derived rows; a separate rule checks shards with faces
        derivation = recorded_derivation(partition, next(file for files in stored.values() for file in files))
        if derivation is None:
            continue
        if derivation.name != name:
            path = next(file.path for files in stored.values() for file in files)
            yield f"its footer has the settings of derivation {derivation.name}, not of {name}", path, None
            continue
        bound = rederive.bound(derivation, commit)
        if bound is None:
            continue
        with open_sources(partition, commit.files) as sources:
            found: dict[str, list[pa.Table]] = {table: [] for table in DERIVED_TABLES}
            for table, rows in bound(sources):
                found[table].append(rows)
        for table in DERIVED_TABLES:
            yield from _compare(table, _read(partition, table, stored[table]), found[table], stored[table])


def _read(partition: Partition, table: str, files: list[CommittedFile]) -> pa.Table:
    columns = [column.name for column in TABLES[table] if column.name not in _SHARED]
    parts = []
    for file in files:
        with open_parquet(partition.output.root.child(file.path)) as opened:
            schema = pa.schema([(c.name, c.type) for c in TABLES[table]])
            parts.append(complete(opened.read(), schema).select(columns))
    return pa.concat_tables(parts).replace_schema_metadata() if parts else pa.table({name: [] for name in columns})


def _compare(
    table: str, stored: pa.Table, derived: list[pa.Table], files: list[CommittedFile]
) -> Iterator[tuple[str, str | None, str | None]]:
    path = files[0].path if len(files) == 1 else None
    again = pa.concat_tables(derived) if derived else stored.slice(0, 0)
    if again.num_rows != stored.num_rows:
        yield f"{table}: has {counted(stored.num_rows, 'row')}, deriving again makes {again.num_rows:,}", path, None
        return
    order = [(name, "ascending") for name in SORT_KEYS[table]]
    again, stored = again.sort_by(order), stored.sort_by(order)
    for name in stored.column_names:
        one, other = stored[name].combine_chunks(), again[name].cast(stored[name].type).combine_chunks()
        if not one.equals(other):
            values = zip(one.to_pylist(), other.to_pylist(), stored["video_id"].to_pylist(), strict=True)
            was, now, video = next((was, now, video) for was, now, video in values if was != now)
            yield f"{table}.{name} is {was}, derived again {now}", path, video
