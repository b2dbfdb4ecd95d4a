"""Upkeep. Clean up after a killed run, before a new one starts.

A shard is open while its manifest exists. If its commit exists too, only deletions remain.
Otherwise the shard is permanently cancelled: its videos are planned again, and their landed units are reused. Then all
files that no commit names are deleted. The caller holds the lease, so no process is still writing them; the lease is
checked before each change. Units that landed after their work had been published are deleted as well.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass

from featray.store.scratch import scratch_folder
from featray.store.storage import delete_folder, list_folders
from featray.tables.commits import Commit, cancel_shard, close_shard, create_commit, read_commit, read_manifests
from featray.tables.done import Done, read_done
from featray.tables.lease import HeldPartition
from featray.tables.publish import clean_up_shard
from featray.tables.replace import carry_out, finish_changes, without_videos
from featray.tables.runs import close_killed_runs
from featray.tables.tombstones import Blocked
from featray.upkeep.orphans import delete_strays, sweep_records

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recovered:
    """Numbers of killed runs, committed shards, cancelled shards, and stray files found in recovery."""

    runs: int
    finished_shards: int
    reopened_shards: int
    stray_files: int
    stray_landings: int


def recover(partition: HeldPartition, run_id: str) -> Done:
    """Finish or undo interrupted publishing, close the rows of killed runs, delete stray files; return finished work.

    The caller holds the lease.

    Args:
        partition: partition to recover.
        run_id: id of the recovering run.
    """
    finished = reopened = 0
    for manifest in read_manifests(partition):
        partition.check()
        commit = read_commit(partition, manifest.shard) or cancel_shard(partition, manifest.shard, run_id)
        if commit.cancelled:
            close_shard(partition, manifest.shard)
            reopened += 1
        else:
            if commit.rewrites:
                finish_changes(partition)
            clean_up_shard(partition, manifest)
            finished += 1
    runs = close_killed_runs(partition)
    done = read_done(partition)
    if done.pending:
        finish_changes(partition)
    if doubles := done.doubles():
        drop_videos(partition, doubles, f"fix-{run_id}")
        done = read_done(partition)
    strays = _sweep(partition, done.files)
    found = Recovered(runs, finished, reopened, strays, _sweep_landing(partition, done))
    if found != Recovered(0, 0, 0, 0, 0):
        log.info("recovered release %s: %s", partition.release, found)
    return done


def drop_videos(partition: HeldPartition, videos: dict[str, set[str]], name: str) -> None:
    """Remove videos from the tables, in one commit that replaces them by nothing.

    Args:
        partition: partition of the videos.
        videos: ids of videos, by the name of the commit that holds them.
        name: name of the new commit; ends in the id of the run.
    """
    with scratch_folder("drop") as scratch:
        rewrites, newest_us = [], 1
        for shard, ids in sorted(videos.items()):
            old = read_commit(partition, shard)
            if old is not None:
                newest_us = max(newest_us, old.published_at_us)
                rewrites.append(without_videos(partition, old, ids, generation=name, scratch=scratch))
    partition.check()
    # Keep the publication time: nothing new is published, so the release must not become the latest one.
    commit = create_commit(partition, Commit(name, name.partition("-")[2], newest_us, [], rewrites=rewrites))
    carry_out(partition, commit)


def sweep_temporary(partition: HeldPartition) -> int:
    """Delete the temporary files that dead workers left on a disk; return their number. Object stores keep none.

    Call this when nothing is being written: at the start and at the end of a run.
    """
    if not partition.output.root.is_local:
        return 0
    return sweep_records(partition) + delete_strays(partition, partition.table_folders(), set(), ".tmp")


def _sweep(partition: HeldPartition, published: set[str]) -> int:
    """Delete files of the partition that no commit names; return their number."""
    strays = delete_strays(partition, partition.table_folders(), published, ".parquet")
    return strays + sweep_temporary(partition)


def _sweep_landing(partition: HeldPartition, done: Done) -> int:
    """Delete landed files of published work and of erased videos; return the number of videos.

    They come from late workers, where another attempt was faster. For published work that is partial or failed, they
    may come from an interrupted second attempt: `Backlog.select` decides about those when the video is listed.
    """
    erased, swept = Blocked(partition), 0
    for name in list_folders(partition.landing()):
        video_id, _, key = name.partition("-")
        if not re.fullmatch("[0-9a-f]{16}-[0-9a-f]{16}", name):
            continue
        record = done.find(video_id)
        if video_id in erased or (record >= 0 and done.is_done(record, key) and done.status(record) == "ok"):
            partition.check()
            delete_folder(partition.landing().child(name))
            swept += 1
    return swept
