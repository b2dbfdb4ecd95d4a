"""Upkeep. Setting right what a killed run left behind, before a new one starts.

A shard is open while its manifest exists. If its commit exists too, only deletions were left
to do. If not, it is cancelled, once and for all: its videos are planned again, and what landed of
them is used. Then files that no commit names are deleted, whoever left them: the lease is held, so
none of them is in the making. That it still is, is asked before each change. What landed late, of
work that was published without waiting for it, is deleted as well.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass

from featray.store.scratch import scratch_folder
from featray.store.storage import Location, delete, delete_folder, list_folders
from featray.tables.commits import Commit, cancel_shard, close_shard, create_commit, read_commit, read_manifests
from featray.tables.done import Done, read_done
from featray.tables.lease import HeldPartition
from featray.tables.publish import clean_up_shard
from featray.tables.replace import carry_out, without_videos
from featray.tables.runs import close_killed_runs, marker
from featray.tables.tombstones import Blocked
from featray.upkeep.orphans import uncommitted_files

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recovered:
    """Findings of recovery: killed runs, shards that were committed, shards that were not, and stray files."""

    runs: int
    finished_shards: int
    reopened_shards: int
    stray_files: int
    stray_landings: int


def recover(partition: HeldPartition, run_id: str) -> Done:
    """Finish or undo half-done publishing, close the rows of killed runs, delete stray files; what is published.

    The caller holds the lease.

    Args:
        partition: what to set right.
        run_id: of the run that does it.
    """
    finished = reopened = 0
    for manifest in read_manifests(partition):
        partition.check()
        commit = read_commit(partition, manifest.shard) or cancel_shard(partition, manifest.shard, run_id)
        if commit.cancelled:
            close_shard(partition, manifest.shard)
            reopened += 1
        else:
            carry_out(partition, commit)
            clean_up_shard(partition, manifest)
            finished += 1
    runs = close_killed_runs(partition)
    done = read_done(partition)
    for commit in done.pending:
        carry_out(partition, commit)
    if doubles := done.doubles():
        drop_videos(partition, doubles, f"mend-{run_id}")
        done = read_done(partition)
    strays = _sweep(partition, done.files)
    found = Recovered(runs, finished, reopened, strays, _sweep_landing(partition, done))
    if found != Recovered(0, 0, 0, 0, 0):
        log.info("recovered release %s: %s", partition.release, found)
    return done


def drop_videos(partition: HeldPartition, videos: dict[str, set[str]], name: str) -> None:
    """Take videos out of the tables, in one commit that replaces them by nothing.

    Args:
        partition: where they are.
        videos: under the name of the commit that holds them.
        name: of the commit; new, and by its ending the run that does it.
    """
    with scratch_folder("drop") as scratch:
        rewrites, newest_us = [], 1
        for shard, ids in sorted(videos.items()):
            old = read_commit(partition, shard)
            if old is not None:
                newest_us = max(newest_us, old.published_at_us)
                rewrites.append(without_videos(partition, old, ids, generation=name, scratch=scratch))
    partition.check()
    # Nothing new is published: the release must not become the latest one by this.
    commit = create_commit(partition, Commit(name, name.partition("-")[2], newest_us, [], rewrites=rewrites))
    carry_out(partition, commit)


def sweep_temporary(partition: HeldPartition) -> int:
    """Delete what workers that died left of uploads to a disk; how many files. Object stores keep nothing of the kind.

    To be called when nothing is being written: at the start of a run, and at its end.
    """
    if not partition.output.root.is_local:
        return 0
    folders = [*partition.table_folders(), partition.commit(), partition.shard(), marker(partition)]
    return _delete_strays(partition, folders, set(), ".tmp")


def _sweep(partition: HeldPartition, published: set[str]) -> int:
    """Delete files of the partition that no commit names; how many there were."""
    strays = _delete_strays(partition, partition.table_folders(), published, ".parquet")
    return strays + sweep_temporary(partition)


def _sweep_landing(partition: HeldPartition, done: Done) -> int:
    """Delete what has landed of published work and of erased videos; of how many videos.

    Workers leave it that were late: another try of theirs was faster. Of published work that is partial or failed it
    may be from a second try that was cut off: that is decided when the video is listed, in `Backlog.select`.
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


def _delete_strays(partition: HeldPartition, folders: list[Location], published: set[str], suffix: str) -> int:
    found = uncommitted_files(partition.output, folders, published)
    strays = [path for path in found if path.endswith(suffix)]
    for path in strays:
        partition.check()  # what is listed here and not ours any more is another run's, in the making
        delete(partition.output.root.child(path))
    return len(strays)
