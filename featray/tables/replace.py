"""Tables. Changing what is published already: bytes that changed, a second try, an erasure, a compaction.

Object stores have no transaction, so one commit carries the whole change: the new commit
holds, under `rewrites`, older commits as they read from then on. The moment it is written
the change has happened for everyone who reads commits. Then it is carried out: old files are
deleted, older commits overwritten, the list emptied. A kill in between is finished by the
next run, by `featray publish`, or by the same command again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from featray.store.storage import delete
from featray.tables.commits import Commit, read_commit, stored_commits, write_commit
from featray.tables.lease import HeldPartition
from featray.tables.rewrite import rewrite_files, without

ERASE_PREFIX: Final = "erase-"
COMPACT_PREFIX: Final = "compact-"
DERIVE_PREFIX: Final = "derive-"
PERSONS_PREFIX: Final = "persons-"
"""Names of changes that belong to no shard, so that no manifest tells that they are unfinished."""


def without_videos(
    partition: HeldPartition,
    commit: Commit,
    videos: set[str],
    *,
    generation: str,
    scratch: str,
) -> Commit:
    """Write a shard's files anew without some videos; its commit as it will read. Nothing is published yet.

    Args:
        partition: where the shard is.
        commit: of the shard as it is.
        videos: ids to leave out.
        generation: tells the new files' names from the old ones; the same for the same change.
        scratch: local folder for files in the making.
    """
    edits = dict.fromkeys({file.table for file in commit.files}, without(videos))
    files = rewrite_files(partition, commit, edits, touching=videos, generation=generation, scratch=scratch)
    rest = [video for video in commit.videos if video.video_id not in videos]
    return replace(commit, files=files, videos=rest, rewrites=[])


def carry_out(partition: HeldPartition, commit: Commit) -> Commit:
    """Bring older commits and files in line with a commit's rewrites; the commit without them.

    Old files go before the old commit that names them: until `commit` itself is written anew,
    readers take the older one as it stands in `rewrites`, and a second try still knows the files.

    Args:
        partition: where the commit is.
        commit: as it was created.
    """
    for rewritten in commit.rewrites:
        kept = {file.path for file in (*rewritten.files, *commit.files)}
        old = read_commit(partition, rewritten.name)
        for file in old.files if old else []:
            if file.path not in kept:
                partition.delete(file.path)
        partition.check()
        if rewritten.files:
            write_commit(partition, rewritten)
        else:
            delete(partition.commit(rewritten.name))
    done = replace(commit, rewrites=[])
    if commit.rewrites:
        write_commit(partition, done)
    return done


def finish_changes(partition: HeldPartition) -> int:
    """Carry out the rewrites of commits that were cut off after they were written; how many such commits there were."""
    pending = [commit for commit in stored_commits(partition) if commit.rewrites]
    for commit in pending:
        carry_out(partition, commit)
    return len(pending)
