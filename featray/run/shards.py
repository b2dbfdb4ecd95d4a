"""Run. Group listed videos into output shards, and pass them to the executor.

A shard holds whole videos of one partition folder. Its name is a hash of its videos and of the
run that opens it, so no run ever overwrites another run's file, even if one is delayed.
Listings come folder by folder, so few shards are open at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from featray.extract.plan import VideoTask
from featray.run.tally import Tally
from featray.tables.commits import ManifestVideo, ShardManifest, write_manifest
from featray.tables.layout import Partition

SHARD_VIDEOS: Final = 1000
SHARD_BYTES: Final = 8 << 30
"""About 8 hours of 360p or 1080p web video: its faces fill a file of 256 MB, and its landing fits a local disk."""

OPEN_SHARDS: Final = 64
"""Maximum open shards; if a listing interleaves more partition folders, the oldest shard is closed early."""

_PAGE = 16
"""Videos per page."""


@dataclass
class _Group:
    tasks: list[VideoTask] = field(default_factory=list)
    size_bytes: int = 0

    @property
    def full(self) -> bool:
        return len(self.tasks) >= SHARD_VIDEOS or self.size_bytes >= SHARD_BYTES


def open_shards(
    todo: Iterator[VideoTask], partition: Partition, run_id: str, tally: Tally
) -> Iterator[list[VideoTask]]:
    """Group videos into output shards, open each, and yield its tasks in pages.

    The listing is one shard ahead, so that a run knows early how much work there is; the first page does not wait.
    """
    listed_all = False

    def watched() -> Iterator[VideoTask]:
        nonlocal listed_all
        yield from todo
        listed_all = True

    shards = cut_shards(watched(), run_id)
    following = next(shards, None)
    while following is not None:
        manifest, tasks = following
        write_manifest(partition, manifest)
        tally.expect(manifest, tasks)
        pages = in_pages(tasks)
        if not listed_all:
            yield next(pages)
        following = next(shards, None)
        if following is None:
            tally.expect_no_more()
        yield from pages


def unfinished_first(tally: Tally, rest: Iterator[list[VideoTask]]) -> Iterator[list[VideoTask]]:
    """Yield, in pages, the videos of open shards without a complete result, then those not listed yet."""
    tasks = tally.unfinished()
    known = {(task.shard, task.video.video_id) for task in tasks}
    yield from in_pages(tasks)
    for page in rest:  # skip the remaining videos of the last open shard, already yielded
        if fresh := [task for task in page if (task.shard, task.video.video_id) not in known]:
            yield fresh


def in_pages(tasks: list[VideoTask]) -> Iterator[list[VideoTask]]:
    """Return videos in pages, the form that executors take."""
    return (tasks[i : i + _PAGE] for i in range(0, len(tasks), _PAGE))


def cut_shards(tasks: Iterable[VideoTask], run_id: str) -> Iterator[tuple[ShardManifest, list[VideoTask]]]:
    """Yield shards with their tasks, each as soon as it is full; the rest when the listing ends.

    Args:
        tasks: tasks in the order of the listing.
        run_id: id of the run that opens the shards.
    """
    groups: dict[tuple[str | None, ...], _Group] = {}
    for task in tasks:
        key = tuple(task.video.fields.values())
        group = groups.setdefault(key, _Group())
        group.tasks.append(task)
        group.size_bytes += max(task.video.size_bytes, 0)
        if group.full:
            yield _close(groups.pop(key), run_id)
        elif len(groups) > OPEN_SHARDS:
            yield _close(groups.pop(next(iter(groups))), run_id)
    for group in groups.values():
        yield _close(group, run_id)


def _close(group: _Group, run_id: str) -> tuple[ShardManifest, list[VideoTask]]:
    names = sorted(f"{task.video.video_id}:{task.work_key}" for task in group.tasks)
    shard = hashlib.sha256("\n".join([run_id, *names]).encode()).hexdigest()[:12]
    tasks = [replace(task, shard=shard) for task in group.tasks]
    videos = [
        ManifestVideo(
            video_id=task.video.video_id,
            uri=task.video.uri,
            work_key=task.work_key,
            fields=task.video.fields,
            member=task.video.member,
            size_bytes=task.video.size_bytes,
            content_id=task.video.content_id,
            extra=task.video.extra_json,
            replaces=task.replaces,
        )
        for task in tasks
    ]
    return ShardManifest(shard, run_id, tasks[0].video.fields, videos), tasks
