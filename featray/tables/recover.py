"""Setting right what a killed run left behind, before a new one starts.

A shard is open while its manifest exists. If its commit exists too, only deletions were
left to do. If not, files it may have written are removed: its videos are planned again, and
what landed of them is used.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from featray.sources.storage import delete, storage_errors
from featray.tables.commits import ShardManifest, close_shard, read_commit, read_manifests
from featray.tables.layout import Partition
from featray.tables.publish import clean_up_shard
from featray.tables.replace import carry_out, finish_changes
from featray.tables.runs import close_killed_runs
from featray.tables.schema import PER_VIDEO_TABLES

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recovered:
    """What was found: runs that were killed, shards that had been committed, shards that had not."""

    runs: int
    finished_shards: int
    reopened_shards: int


def recover(partition: Partition) -> Recovered:
    """Finish or undo half-done publishing; close the rows of killed runs."""
    finish_changes(partition)
    finished = reopened = 0
    for manifest in read_manifests(partition):
        commit = read_commit(partition, manifest.shard)
        if commit is not None:
            carry_out(partition, commit)
            clean_up_shard(partition, manifest)
            finished += 1
        else:
            _remove_uncommitted(partition, manifest)
            close_shard(partition, manifest.shard)
            reopened += 1
    found = Recovered(close_killed_runs(partition), finished, reopened)
    if found != Recovered(0, 0, 0):
        log.info("recovered release %s: %s", partition.release, found)
    return found


def _remove_uncommitted(partition: Partition, manifest: ShardManifest) -> None:
    stems = {f"part-{manifest.shard}-"}
    stems |= {f"part-{video['replaces']}-{manifest.shard}-" for video in manifest.videos if video["replaces"]}
    for table in PER_VIDEO_TABLES:
        folder = partition.folder(table, manifest.fields)
        with storage_errors(folder.uri):
            try:
                names = [path.rsplit("/", 1)[-1] for path in folder.fs.ls(folder.path, detail=False)]
            except FileNotFoundError:
                continue
        for name in names:
            if name.startswith(tuple(stems)):
                delete(folder.child(name))
