"""Tables. What is published: the commits of each dataset and release, as readers need them.

Readers hold no lease. Runs, erasures, derivations and compactions go on beside them: commits appear, change and go
while they are read, and files are deleted that a commit named a moment ago. So commits are listed until none has
changed between two listings: they are then those of one moment, and no change is seen by half. Reading what they name
goes through `read_steadily`, which begins again if files were replaced in the middle.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

import duckdb
import pyarrow as pa

from featray.errors import AccessDenied, FeatrayError, Unreachable, UsageError
from featray.schema import DERIVED_TABLES
from featray.store.storage import Version, list_versions
from featray.tables.commits import Commit, CommittedFile, commits_at
from featray.tables.layout import Output, Partition, list_partitions

log = logging.getLogger(__name__)

_Answer = TypeVar("_Answer")

_LOOKS: Final = 10
"""Listings of commits before those that have only been added no longer count as a change, and twice that before any."""


@dataclass(frozen=True)
class Published:
    """A partition with the files that it has published; what commits say of videos is not kept.

    Attributes:
        newest_us: when it was last published to, microseconds since the epoch.
        damaged: of commits that cannot be read, one line each: there is more than `committed` then.
        derived: which derivations there are: when each was last made, and of how many of the commits with videos.
        with_videos: how many commits have videos.
        shown: the derivation that views show, the one that was made last; None for all.
    """

    partition: Partition
    newest_us: int
    committed: tuple[CommittedFile, ...]
    damaged: tuple[str, ...] = ()
    derived: dict[str, tuple[int, int]] = field(default_factory=dict)
    with_videos: int = 0
    shown: str | None = None

    def files(self, table: str) -> list[str]:
        """Paths of a table's files, relative to the output's root; of derived tables, of the derivation shown."""
        found = [file.path for file in self.committed if file.table == table]
        if table in DERIVED_TABLES and self.shown is not None:
            return [path for path in found if f"/derivation={self.shown}/" in path]
        return found


def read_published(
    output: Output, release: str | tuple[str, ...] | None = None, derivation: str | None = None
) -> list[Published]:
    """Return what is published, per dataset and release; of each dataset the latest release unless some are named.

    Of derived tables it is the derivation that was made last in a release, unless one is named, or `all`.

    Raises:
        UsageError: no such release or derivation; the message lists those that exist.
    """
    found = _read_releases(output, release)
    known = sorted({name for one in found for name in one.derived})
    if derivation is None:
        return [replace(one, shown=max(one.derived, key=_made(one), default=None)) for one in found]
    if derivation != "all" and derivation not in known:
        raise UsageError(f"--derivation {derivation}: not in this output; it has: {', '.join(known) or 'none'}")
    return [replace(one, shown=None if derivation == "all" else derivation) for one in found]


def _made(one: Published) -> Callable[[str], tuple[int, str]]:
    return lambda name: (one.derived[name][0], name)


def _read_releases(output: Output, release: str | tuple[str, ...] | None) -> list[Published]:
    partitions = list_partitions(output)
    every = release in (None, "all")
    named = (release,) if isinstance(release, str) else release or ()
    chosen = [partition for partition in partitions if every or partition.release in named]
    if not every and not chosen:
        known = ", ".join(sorted({partition.release for partition in partitions})) or "none"
        raise UsageError(f"--release {' '.join(named)}: not in this output; it has: {known}")
    if release is not None:
        return [_read(partition) for partition in chosen]
    latest: dict[str, Published] = {}
    for one in map(_read, chosen):  # one by one: no more than two of a dataset are held
        before = latest.get(one.partition.dataset)
        if before is None or one.newest_us >= before.newest_us:
            latest[one.partition.dataset], one = one, before or one
        if one.damaged and one is not latest[one.partition.dataset]:
            log.warning("release %s is left out, it may be newer: %s", one.partition.release, one.damaged[0])
    return list(latest.values())


def read_steadily(
    output: Output,
    work: Callable[[list[Published]], _Answer],
    release: str | tuple[str, ...] | None = None,
    derivation: str | None = None,
) -> _Answer:
    """Call `work` with what is published; again if it fails and a file that it was told of has been replaced since.

    Args:
        output: whose tables.
        work: reads the files; it may be called several times.
        release: as for `read_published`.
        derivation: as for `read_published`.

    Returns:
        What `work` gave.

    Raises:
        Exception: what `work` raised, if all files that it was told of still count.
    """
    published = read_published(output, release, derivation)
    while True:
        try:
            return work(published)
        except (FeatrayError, duckdb.Error, OSError) as error:
            if not _may_be_of_files(error):
                raise
            before = published
            published = read_published(output, release, derivation)
            if _paths(before) <= _paths(published):
                raise


def _may_be_of_files(error: Exception) -> bool:
    """Return whether a file that is gone can be behind an error, as far as that is known without asking the storage."""
    if isinstance(error, UsageError):  # of SQL that fails, or of what a user asked for
        behind = error.__context__
        return isinstance(behind, duckdb.Error | OSError | pa.ArrowInvalid) and not isinstance(behind, _OF_SQL)
    return not isinstance(error, AccessDenied | Unreachable | duckdb.InterruptException)


_OF_SQL: Final = (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException, duckdb.SyntaxException)


def _paths(published: list[Published]) -> set[str]:
    return {file.path for one in published for file in one.committed}


def _read(partition: Partition) -> Published:
    """Return what a partition has published, with rewrites that are still to be carried out applied."""
    stored: dict[str, Commit] = {}
    damaged: dict[str, str] = {}
    _read_until_settled(partition, stored, damaged)
    found = {stored[path].name: stored[path] for path in sorted(stored)}
    found |= {old.name: old for commit in stored.values() for old in commit.rewrites}
    newest_us = max((commit.published_at_us for commit in found.values()), default=0)
    derived: dict[str, tuple[int, int]] = {}
    for name, made_us in (item for commit in found.values() for item in commit.derived.items()):
        last_us, commits = derived.get(name, (0, 0))
        derived[name] = max(last_us, made_us), commits + 1
    files = tuple(file for commit in found.values() for file in commit.files)
    with_videos = sum(any(file.table == "videos" for file in commit.files) for commit in found.values())
    return Published(partition, newest_us, files, tuple(damaged.values()), derived, with_videos)


def _read_until_settled(partition: Partition, stored: dict[str, Commit], damaged: dict[str, str]) -> None:
    """Read commits, by path, into `stored`, or of damaged ones the problem into `damaged`, until none changes.

    Raises:
        NotFound: a commit is listed, and cannot be opened.
    """
    listed: dict[str, Version] = {}
    for look in range(2 * _LOOKS):
        now = list_versions(partition.commit(), suffix=".json")
        changed = [path for path, version in now.items() if listed.get(path) != version]
        gone = listed.keys() - now.keys()
        if not changed and not gone:
            return
        only_new = not gone and listed.keys().isdisjoint(changed)
        for path in (*gone, *changed):
            stored.pop(path, None)
            damaged.pop(path, None)
        for path, commit in commits_at(
            partition, {path: now[path] for path in changed}, may_be_gone=look < 2 * _LOOKS - 1
        ):
            if commit is None:
                now.pop(path)  # is asked for again, if the next listing still has it
            elif isinstance(commit, str):
                damaged[path] = commit
            else:
                old = [_without_videos(one) for one in commit.rewrites]
                stored[path] = replace(_without_videos(commit), rewrites=old)
        listed = now
        if only_new and look >= _LOOKS:
            return


def _without_videos(commit: Commit) -> Commit:
    """Return what is kept of a commit; what it says of videos is most of it."""
    return replace(commit, videos=[], rewrites=[])
