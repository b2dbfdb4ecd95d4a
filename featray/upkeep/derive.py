"""Upkeep. Derive `tracks` and `events` for published shards, once for each set of settings.

Derivations that need other shards (`baseline: neutral`) are repeated if those have changed; see `neutral.py`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace

from featray.config import ExecutorSetting
from featray.errors import OutputError, columns_shown
from featray.findings.derive import Derivation
from featray.graph.machine import on_cluster
from featray.schema import DERIVED_TABLES
from featray.tables.commits import Commit, read_commits, write_commit
from featray.tables.derived import derivation_of, derive_commit, now_us
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
        derivation: name of the derivation.
        shards: number of shards derived by this call.
        already: number of shards that were already derived.
        again: number of `shards` derived again because their neutral videos or persons had changed, or rows were
            erased.
        tracks, events: rows written.
        neutral_videos: number of neutral videos; None if the settings do not use them.
        persons: number of persons; None if the settings do not use them.
        note: note for the user, or empty.
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
        partition: partition to derive.
        derivation: settings of the derivation.
        executor: `ray` runs one task per shard on the existing cluster, or on a local Ray; `auto` uses a cluster if
            there is one. The rows are the same.

    Afterwards views show this derivation, even if there was nothing to derive.

    Raises:
        UsageError: a path field has the name of a column of the derived tables.
        ConfigError: an expression uses a column that the output does not have.
        OutputError: there are no sources of baselines, and no rows made from earlier ones; nothing was changed.
        LeaseError: a run is active.
    """
    with hold(partition, f"{DERIVE_PREFIX}{secrets.token_hex(4)}") as lease:
        finish_committed(lease.partition)
        remove_leftovers(lease.partition)
        done = derive_held(lease, derivation, executor, needs_baselines=True)
        if not done.shards and _show(lease.partition, derivation.name):
            words = f"views show derivation {derivation.name} from now on"
            return replace(done, note="; ".join(filter(None, [done.note, words])))
        return done


def derive_held(
    lease: Lease, derivation: Derivation, executor: ExecutorSetting = "local", *, needs_baselines: bool = False
) -> Derived:
    """Derive rows as `derive_partition` does, in a locked partition without unfinished changes.

    Without sources of baselines, rows have null baselines and `Derived.note` says so, unless `needs_baselines`.
    """
    held = lease.partition
    every = read_commits(held)
    baselines = look_for_baselines(held, derivation, every)
    commits = [commit for commit in every if any(file.table == "videos" for file in commit.files)]
    todo = [commit for commit in commits if not _is_done(commit, derivation, baselines)]
    again = sum(derivation.name in commit.derived for commit in todo)
    note = _missing(baselines)
    if needs_baselines and note and not again:  # rows made from sources that are gone are derived again
        raise OutputError(f"{held.dataset}/{held.release}: {note}; nothing was derived")
    bound = ((commit, derivation if baselines is None else baselines.derivation_of(commit)) for commit in todo)
    rows = dict.fromkeys(DERIVED_TABLES, 0)
    for commit in _each(lease, bound, executor) if todo else ():
        for file in commit.files:
            if file.table in rows and derivation_of(file.path) == derivation.name:
                rows[file.table] += file.rows
    done = Derived(
        derivation.name, len(todo), len(commits) - len(todo), again, rows["tracks"], rows["events"], note=note
    )
    if isinstance(baselines, NeutralVideos):
        return replace(done, neutral_videos=baselines.count)
    return replace(done, persons=baselines.count) if isinstance(baselines, PersonBaselines) else done


def _is_done(commit: Commit, derivation: Derivation, baselines: Baselines | None) -> bool:
    return derivation.name in commit.derived and (baselines is None or baselines.is_current(commit))


def _each(lease: Lease, todo: Iterator[tuple[Commit, Derivation]], executor: ExecutorSetting) -> Iterator[Commit]:
    """Derive commits, sequentially in this process or in parallel on Ray; yield each in its new state."""
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


def _missing(baselines: Baselines | None) -> str:
    """Return a note if the release has no sources of the baselines that the settings ask for, else an empty text."""
    if isinstance(baselines, PersonBaselines) and not baselines.count:
        return (
            "no baselines: the release has no persons; run `featray persons OUT`, then repeat; "
            "it needs a run with identify.enabled"
        )
    if not isinstance(baselines, NeutralVideos) or baselines.count:
        return ""
    config = baselines.derivation.config.neutral
    assert config is not None
    known = columns_shown(sorted(baselines.columns))
    if baselines.without_key and config.key is not None:
        there = config.key in baselines.columns
        why = f"the videos that it marks have no text in column {config.key!r}" if there else (
            f"there is no column {config.key!r}, which derive.neutral.key names"
        )  # fmt: skip
        return f"no baselines: {why}; available columns: {known}"
    wanted = f"column {config.marked_by!r} marks" + ("" if config.value is None else f" as {config.value!r}")
    has = f" (it has values such as {', '.join(sorted(baselines.values))})" if baselines.values else ""
    return f"no baselines: there is no video that {wanted}{has}; available columns: {known}"


def _show(held: HeldPartition, name: str) -> bool:
    """Make an existing derivation the one that views show, the latest; return whether it was not.

    The time in one commit is enough, since views compare the latest time of each derivation.
    """
    commits = read_commits(held)
    made = {(made_us, other): commit for commit in commits for other, made_us in commit.derived.items()}
    mine = [time_and_name for time_and_name in made if time_and_name[1] == name]
    if not mine or max(made) == max(mine):
        return False
    commit = made[max(mine)]
    write_commit(
        held, replace(commit, derived={**commit.derived, name: now_us(after=(made_us for made_us, _ in made))})
    )
    return True
