"""Graph. Derive published shards in Ray tasks, one shard per task."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import ray
import ray.exceptions

from featray.errors import OutputError
from featray.graph.connection import connect, nodes
from featray.graph.ray_internals import let_go_of_streams
from featray.graph.ray_session import as_own_error
from featray.redaction import redact_logs
from featray.tables.commits import Commit, read_commit
from featray.tables.derived import Derive, derive_commit
from featray.tables.lease import HeldPartition

_WAITING: Final = 2
"""Submitted tasks per CPU. Not all at once, since a task's arguments are created when it is submitted."""


def derive_on_ray(partition: HeldPartition, todo: Iterator[tuple[str, Derive]]) -> Iterator[Commit]:
    """Derive commits by name and yield each updated commit as it finishes.

    Raises:
        FeatrayError: the error that ended a task; finished ones are kept.
    """
    started = connect()
    let_go_of_streams()
    try:
        most = max(1, int(sum(node.cpus for node in nodes().values()))) * _WAITING
        waiting: list[Any] = []
        for name, derive in todo:
            waiting.append(_derive.remote(partition, name, derive))
            if len(waiting) >= most:
                waiting, done = _next(waiting)
                yield done
        while waiting:
            waiting, done = _next(waiting)
            yield done
    except ray.exceptions.RayError as error:
        raise as_own_error(error) from error
    finally:
        if started:
            ray.shutdown()


def _next(waiting: list[Any]) -> tuple[list[Any], Commit]:
    done: list[Any] = []
    while not done:  # one second at a time, so that Python handles signals in between
        done, rest = ray.wait(waiting, timeout=1)
    commit: Commit = ray.get(done[0])
    return rest, commit


@ray.remote(num_cpus=1, max_retries=3)
def _derive(partition: HeldPartition, name: str, derive: Derive) -> Commit:
    """Run `derive_commit` as a task. A retry finds the commit unchanged, or already done."""
    redact_logs()
    commit = read_commit(partition, name)
    if commit is None:
        raise OutputError(f"commit {name} was removed while it was being derived; run again")
    if derive.name in commit.derived and commit.derived_from.get(derive.name, {}) == derive.made_from:
        return commit
    return derive_commit(partition, commit, derive)
