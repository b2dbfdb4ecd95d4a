"""Upkeep. Verify an output: files against commits, rows against rules, counts against counts. Nothing is changed.

A *problem* means that rows cannot be trusted or relied on. Partial work of a killed or active run,
which the next run replaces, is *unfinished*: it is reported, but it is not a problem.
"""

from __future__ import annotations

from typing import Final

import duckdb

from featray.errors import StorageError, UsageError
from featray.store.storage import exists
from featray.tables.commits import list_commits, read_commits
from featray.tables.layout import Output, Partition, list_partitions
from featray.tables.published import damaged_file
from featray.upkeep.orphans import find_uncommitted
from featray.upkeep.problems import Problem, Report
from featray.upkeep.verify_partition import PartitionCheck

_TRIES: Final = 3
"""Attempts to check a partition whose commits change during the check."""


def verify(output: Output, release: str | None = None, *, rederive: int = 3) -> Report:
    """Check an output, or one release of it.

    Args:
        output: output to check.
        release: check this release only.
        rederive: number of shards per release whose derived rows are all derived again.

    Raises:
        UsageError: there is no such release.
    """
    odd: list[str] = []
    partitions = [p for p in list_partitions(output, odd) if release in (None, p.release)]
    if release is not None and not partitions:
        known = ", ".join(sorted({p.release for p in list_partitions(output)})) or "none"
        raise UsageError(f"--release {release}: not in this output; it has: {known}")
    report = Report(partitions=len(partitions))
    if release is None:
        report.problems += [
            Problem("", "not a valid name of a dataset or release; delete it", folder) for folder in odd
        ]
    committed: set[str] = set()
    for partition in partitions:
        committed |= _verify_partition(partition, report, rederive)
    try:
        _find_uncommitted(output, partitions, committed, report, everything=release is None)
    except StorageError as error:
        report.problems.append(Problem("", str(error)))
    return report


def _verify_partition(partition: Partition, report: Report, rederive: int) -> set[str]:
    """Check a partition; return the paths that commits name. Repeat if problems may concern files replaced meanwhile.

    A run, an erasure or a compaction may be active at the same time.
    """
    for tries_left in reversed(range(_TRIES)):
        committed, found = set[str](), Report()
        before = list_commits(partition)
        try:
            committed = PartitionCheck(partition, found).verify(rederive)
        except (StorageError, duckdb.Error) as error:  # the others can still be checked
            told = damaged_file(error) if isinstance(error, duckdb.Error) else error
            found.problems.append(Problem(f"{partition.dataset}/{partition.release}", str(told)))
        now = list_commits(partition) if found.problems and tries_left else before
        if all(now.get(path) == version for path, version in before.items()):
            break
    report.add(found)
    return committed


def _find_uncommitted(
    output: Output, partitions: list[Partition], committed: set[str], report: Report, *, everything: bool
) -> None:
    """Find uncommitted files, except those that were committed or deleted since the commits were read."""
    found = Report()
    find_uncommitted(output, partitions, committed, found, everything=everything)
    if found.problems:
        named = {file.path for one in partitions for commit in read_commits(one) for file in commit.files}
        found.problems = [
            problem
            for problem in found.problems
            if problem.file is None or (problem.file not in named and exists(output.root.child(problem.file)))
        ]
    report.add(found)
