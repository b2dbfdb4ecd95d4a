"""Tables. What is published: the commits of each dataset and release, in the form that readers need.

Readers hold no lease. Meanwhile runs, erasures, derivations and compactions continue: commits appear, change and
disappear, and files that a commit named a moment ago are deleted. Therefore commits are listed until two listings are
equal: they then belong to one point in time, and no change is seen half done. Files are read through `read_steadily`,
which starts again if files were replaced during the work.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final, TypeVar

import duckdb
import pyarrow as pa

from featray.errors import AccessDenied, FeatrayError, OutputError, Unreachable, UsageError, one_line, shown
from featray.redaction import redact_links
from featray.schema import DERIVED_TABLES
from featray.store.storage import Version
from featray.tables.commits import Commit, CommittedFile, commits_at, list_commits
from featray.tables.layout import Output, Partition, list_partitions

log = logging.getLogger(__name__)

_Answer = TypeVar("_Answer")

_AHEAD_US: Final = 300_000_000
"""Clocks of hosts that are set by NTP differ by less."""

_LOOKS: Final = 10
"""Number of listings after which added commits no longer count as a change. After twice as many, reading stops."""


@dataclass(frozen=True)
class Published:
    """A partition with its published files, without the commits' lists of videos.

    Attributes:
        newest_us: time of the last publication, microseconds since the epoch.
        damaged: one line per unreadable commit; if there are any, `committed` is incomplete.
        derived: for each derivation, when it was last made and how many commits with videos have it.
        with_videos: number of commits with videos.
        shown: the derivation that views show; None for all.
    """

    partition: Partition
    newest_us: int
    committed: tuple[CommittedFile, ...]
    damaged: tuple[str, ...] = ()
    derived: dict[str, tuple[int, int]] = field(default_factory=dict)
    with_videos: int = 0
    shown: str | None = None

    @property
    def rank(self) -> tuple[bool, int]:
        """Return what views choose a release by, the highest first: whether it has videos, and its last publication.

        A release without videos, of a run that was stopped before it published any, does not hide another one's.
        """
        return self.with_videos > 0, self.newest_us

    def files(self, table: str) -> list[str]:
        """Return the paths of a table's files, relative to the output's root; for derived tables, only those shown."""
        found = [file.path for file in self.committed if file.table == table]
        if table in DERIVED_TABLES and self.shown is not None:
            return [path for path in found if f"/derivation={self.shown}/" in path]
        return found


def read_published(
    output: Output, release: str | tuple[str, ...] | None = None, derivation: str | None = None
) -> list[Published]:
    """Return what is published, per dataset and release; by default the latest release of each dataset.

    Derived tables show the derivation that was made last in a release, unless one or `all` is given.

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


def of_dataset(published: list[Published], dataset: str | None) -> list[Published]:
    """Return what a dataset has published; all for None. So damaged records of others are no concern."""
    return [one for one in published if dataset in (None, one.partition.dataset)]


def sound(published: list[Published]) -> list[Published]:
    """Return the releases without damaged commits, and warn of the others.

    Raises:
        OutputError: all are damaged.
    """
    found = [one for one in published if not one.damaged]
    if published and not found:
        raise OutputError(published[0].damaged[0])
    for one in published:
        if one.damaged:
            log.warning("release %s is left out: %s", one.partition.release, one.damaged[0])
    return found


def shown_release(output: Output, dataset: str) -> str | None:
    """Return the release of a dataset that views show, the one published last; None for an unknown dataset."""
    partitions = [one for one in list_partitions(output) if one.dataset == dataset]
    if len(partitions) < 2:
        return partitions[0].release if partitions else None
    (latest,) = _latest(partitions)
    return latest.partition.release


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
    return _latest(chosen)


def _latest(partitions: list[Partition]) -> list[Published]:
    """Return the release of each dataset with the highest `rank`; warn if another one may be newer."""
    latest: dict[str, Published] = {}
    several = set[str]()
    for one in map(_read, partitions):  # one by one, so that memory holds at most two per dataset
        before = latest.get(one.partition.dataset)
        several |= {one.partition.dataset} if before else set()
        if before is None or one.rank >= before.rank:
            latest[one.partition.dataset], one = one, before or one
        if one.damaged and one is not latest[one.partition.dataset]:
            log.warning("release %s is left out, although it may be newer: %s", one.partition.release, one.damaged[0])
    for dataset in sorted(several):
        _warn_if_ahead(latest[dataset])
    return list(latest.values())


def _warn_if_ahead(latest: Published) -> None:
    """Warn of a release that was published in the future: those published until then do not become the latest."""
    if latest.newest_us > time.time_ns() // 1000 + _AHEAD_US:
        at = datetime.fromtimestamp(latest.newest_us / 1e6, UTC)
        log.warning(
            "dataset %s: release %s counts as the latest, published at %s UTC by a clock that is ahead of this one; "
            "set the clocks (NTP), or choose with --release",
            latest.partition.dataset,
            latest.partition.release,
            f"{at:%F %T}",
        )


def read_steadily(
    output: Output,
    work: Callable[[list[Published]], _Answer],
    release: str | tuple[str, ...] | None = None,
    derivation: str | None = None,
) -> _Answer:
    """Call `work` with what is published; call it again if it fails because a file was replaced.

    Args:
        output: the output to read.
        work: reads the files; it may be called several times.
        release: as for `read_published`.
        derivation: as for `read_published`.

    Returns:
        The result of `work`.

    Raises:
        Exception: the exception of `work`, if all files that it was given are still published; instead of DuckDB's and
            Arrow's own, an OutputError.
    """
    published = read_published(output, release, derivation)
    while True:
        try:
            return work(published)
        except (FeatrayError, duckdb.Error, OSError, pa.ArrowException) as error:
            before = published
            if _may_be_of_files(error):
                published = read_published(output, release, derivation)
            if not _paths(before) <= _paths(published):
                continue
            if isinstance(error, FeatrayError | duckdb.InterruptException | _OF_MACHINE):
                raise
            if isinstance(error, OSError) and error.errno is not None:  # Arrow's, of a damaged page, has no number
                raise
            raise damaged_file(error) from error


def damaged_file(error: Exception) -> OutputError:
    """Return DuckDB's or Arrow's error while it read published files as featray's own."""
    raised = raised_by_store(error)
    why = redact_links(raised or one_line(error, 240))
    if raised or isinstance(error, _OF_MACHINE):
        return OutputError(f"published files could not be read ({why})")
    return OutputError(f"a published file is damaged, or has a column of another type ({why}); run `featray verify`")


def raised_by_store(error: Exception) -> str | None:
    """Return what a store's Python library raised while DuckDB read through it; None if the error is DuckDB's own.

    DuckDB passes on its traceback as the message.
    """
    lines = str(error).splitlines()
    if lines[:1] != ["Traceback (most recent call last):"]:
        return None
    last_frame = max((number for number, line in enumerate(lines) if line.startswith(" ")), default=0)
    return shown(" ".join(lines[last_frame + 1 :]), 240)


_OF_MACHINE: Final = duckdb.IOException | duckdb.OutOfMemoryException
"""Errors of a disk, the memory or the working folder, which the command line explains."""


def _may_be_of_files(error: Exception) -> bool:
    """Return whether a missing file may have caused an error, judged without asking the storage."""
    if isinstance(error, UsageError):  # from SQL that fails, or from a user's request
        behind = error.__context__
        return isinstance(behind, duckdb.Error | OSError | pa.ArrowInvalid) and not isinstance(behind, _OF_SQL)
    return not isinstance(error, AccessDenied | Unreachable | duckdb.InterruptException)


_OF_SQL: Final = (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException, duckdb.SyntaxException)


def _paths(published: list[Published]) -> set[str]:
    return {file.path for one in published for file in one.committed}


def _read(partition: Partition) -> Published:
    """Return what a partition has published, with pending rewrites applied."""
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
    """Read commits into `stored` and problems of damaged commits into `damaged`, by path, until nothing changes.

    Raises:
        NotFound: a commit is listed but cannot be opened.
    """
    listed: dict[str, Version] = {}
    for look in range(2 * _LOOKS):
        now = list_commits(partition)
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
                now.pop(path)  # read it again if the next listing still has it
            elif isinstance(commit, str):
                damaged[path] = commit
            else:
                old = [_without_videos(one) for one in commit.rewrites]
                stored[path] = replace(_without_videos(commit), rewrites=old)
        listed = now
        if only_new and look >= _LOOKS:
            return


def _without_videos(commit: Commit) -> Commit:
    """Return a commit without its videos, which take most of its memory."""
    return replace(commit, videos=[], rewrites=[])
