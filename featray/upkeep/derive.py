"""Upkeep. Deriving `tracks` and `events` for what is published: shard by shard, once under each settings.

What needs other shards (`baseline: neutral`) is done again where those have changed; see `neutral.py`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace

from featray.config import ExecutorSetting
from featray.errors import on_one_line
from featray.findings.derive import Derivation
from featray.graph.machine import on_cluster
from featray.schema import DERIVED_TABLES
from featray.tables.commits import Commit, read_commits
from featray.tables.derived import derivation_of, derive_commit
from featray.tables.layout import Partition
from featray.tables.lease import HeldPartition, Lease, hold
from featray.tables.replace import DERIVE_PREFIX
from featray.upkeep.baselines import Baselines, look_for_baselines
from featray.upkeep.finish import finish_committed, remove_leftovers
from featray.upkeep.neutral import NeutralVideos
from featray.upkeep.person_baselines import PersonBaselines


@dataclass(frozen=True)
class Derived:
    """The result of deriving a partition.

    Attributes:
        derivation: under which settings.
        shards: derived now.
        already: shards that had been.
        again: of `shards`, those whose neutral videos or persons had changed since.
        tracks, events: rows written.
        neutral_videos: how many there are; None where no setting asks for them.
        persons: how many there are; None where no setting asks for them.
        note: what is worth saying, or empty.
    """

    derivation: str
    shards: int
    already: int
    again: int
    tracks: int
    events: int
    neutral_videos: int | None = None
    persons: int | None = None
    note: str = ""


def derive_partition(partition: Partition, derivation: Derivation, executor: ExecutorSetting = "local") -> Derived:
    """Derive every shard of a partition that is not yet derived under these settings.

    Args:
        partition: which.
        derivation: the settings.
        executor: `ray`: a task a shard on the cluster that is there, or on Ray started here; `auto`: on a cluster if
            there is one. Rows are the same.

    Raises:
        UsageError: a path field has the name of a column of the derived tables.
        ConfigError: an expression takes a column that the output does not have.
        LeaseError: a run is on.
    """
    with hold(partition, f"{DERIVE_PREFIX}{secrets.token_hex(4)}") as lease:
        finish_committed(lease.partition)
        remove_leftovers(lease.partition)
        return derive_held(lease, derivation, executor)


def derive_held(lease: Lease, derivation: Derivation, executor: ExecutorSetting = "local") -> Derived:
    """Derive rows as `derive_partition` does, in a partition that is held and has no unfinished change."""
    held = lease.partition
    every = read_commits(held)
    baselines = look_for_baselines(held, derivation, every)
    commits = [commit for commit in every if any(file.table == "videos" for file in commit.files)]
    todo = [commit for commit in commits if not _is_done(commit, derivation, baselines)]
    again = sum(derivation.name in commit.derived for commit in todo)
    bound = ((commit, derivation if baselines is None else baselines.derivation_of(commit)) for commit in todo)
    rows = dict.fromkeys(DERIVED_TABLES, 0)
    for commit in _each(lease, bound, executor) if todo else ():
        for file in commit.files:
            if file.table in rows and derivation_of(file.path) == derivation.name:
                rows[file.table] += file.rows
    done = Derived(derivation.name, len(todo), len(commits) - len(todo), again, rows["tracks"], rows["events"])
    if isinstance(baselines, NeutralVideos):
        return _with_neutral(done, baselines)
    return _with_persons(done, baselines) if isinstance(baselines, PersonBaselines) else done


def _is_done(commit: Commit, derivation: Derivation, baselines: Baselines | None) -> bool:
    return derivation.name in commit.derived and (baselines is None or baselines.is_current(commit))


def _each(lease: Lease, todo: Iterator[tuple[Commit, Derivation]], executor: ExecutorSetting) -> Iterator[Commit]:
    """Derive commits, one after the other here or side by side on Ray; each as it is then."""
    held: HeldPartition = lease.partition
    if executor == "ray" or (executor == "auto" and on_cluster()):
        from featray.graph.derive_tasks import derive_on_ray

        for commit in derive_on_ray(held, ((commit.name, derivation) for commit, derivation in todo)):
            lease.check()
            yield commit
        return
    for commit, derivation in todo:
        lease.check()
        yield derive_commit(held, commit, derivation)


def _with_neutral(done: Derived, neutral: NeutralVideos) -> Derived:
    config, note = neutral.derivation.config.neutral, ""
    if not neutral.count and config is not None:
        known = ", ".join(sorted(map(on_one_line, neutral.columns))) or "none"
        wanted = f"column {config.marked_by!r} marks" + ("" if config.value is None else f" as {config.value!r}")
        note = f"no baselines: there is no video that {wanted}; columns there are: {known}"
    return replace(done, neutral_videos=neutral.count, note=note)


def _with_persons(done: Derived, people: PersonBaselines) -> Derived:
    note = "" if people.count else "no baselines: nobody is known here; run `featray persons OUT`, and then this again"
    return replace(done, persons=people.count, note=note)
