"""Grouping videos into output shards as they are listed.

A shard holds whole videos of one partition folder. Its name follows from what it holds and from
the run that opens it: no run ever writes over a file of another, whoever is slow or late.
Listings come folder by folder, so few shards are open at a time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from featray.plan import VideoTask
from featray.tables.commits import ShardManifest

SHARD_VIDEOS: Final = 1000
SHARD_BYTES: Final = 8 << 30
"""Some 8 hours of 360p or 1080p-web video: its faces fill a file of 256 MB, its landing fits a local disk."""

OPEN_SHARDS: Final = 64
"""Partition folders that may be interleaved in a listing before their shards are cut short."""


@dataclass
class _Group:
    tasks: list[VideoTask] = field(default_factory=list)
    size_bytes: int = 0

    @property
    def full(self) -> bool:
        return len(self.tasks) >= SHARD_VIDEOS or self.size_bytes >= SHARD_BYTES


def cut_shards(tasks: Iterable[VideoTask], run_id: str) -> Iterator[tuple[ShardManifest, list[VideoTask]]]:
    """Shards with their tasks, each as soon as it is full; the rest when the listing ends.

    Args:
        tasks: in the order of the listing.
        run_id: of the run that opens the shards.
    """
    groups: dict[tuple[str, ...], _Group] = {}
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
        {
            "video_id": task.video.video_id,
            "uri": task.video.uri,
            "member": task.video.member,
            "size_bytes": task.video.size_bytes,
            "content_id": task.video.content_id,
            "work_key": task.work_key,
            "fields": task.video.fields,
            "extra": json.dumps(task.video.extra, default=str) if task.video.extra else None,
            "replaces": task.replaces,
        }
        for task in tasks
    ]
    return ShardManifest(shard, run_id, tasks[0].video.fields, videos), tasks
