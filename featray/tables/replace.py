"""Tables. Change published rows: changed videos, retries, erasures, compactions.

Object stores have no transactions, so one commit contains the whole change: under `rewrites`,
the new commit has the new versions of older commits. As soon as it is written, every reader of
commits sees the change. It is then carried out: old files are deleted, older commits overwritten,
the list emptied. If that is killed, the next run, `featray publish` or the same command finishes
it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Final

from featray.store.storage import delete
from featray.tables.commits import Commit, FileNames, read_commit, stored_commits, write_commit
from featray.tables.lease import HeldPartition
from featray.tables.rewrite import rewrite_files, without

ERASE_PREFIX: Final = "erase-"
COMPACT_PREFIX: Final = "compact-"
DERIVE_PREFIX: Final = "derive-"
PERSONS_PREFIX: Final = "persons-"
"""Prefixes of changes that belong to no shard, so no manifest shows that they are unfinished."""


def without_videos(
    partition: HeldPartition,
    commit: Commit,
    videos: set[str],
    *,
    generation: str,
    scratch: str,
) -> Commit:
    """Rewrite a shard's files without some videos and return its new commit. Nothing is published yet.

    Args:
        partition: the shard's partition.
        commit: the shard's current commit.
        videos: ids to leave out.
        generation: distinguishes the new files' names from the old ones; the same for the same change.
        scratch: local folder for files that are being written.
    """
    edits = dict.fromkeys({file.table for file in commit.files}, without(videos))
    files = rewrite_files(partition, commit, edits, touching=videos, generation=generation, scratch=scratch)
    rest = [video for video in commit.videos if video.video_id not in videos]
    return replace(commit, files=files, videos=rest, rewrites=[])


def carry_out(partition: HeldPartition, commit: Commit, named: Collection[str] = ()) -> Commit:
    """Update older commits and files according to a commit's rewrites; return the commit without rewrites.

    Old files are deleted before the old commit that names them. Until `commit` itself is rewritten,
    readers use the versions in its `rewrites`, and a second try still knows the files.

    Args:
        partition: the commit's partition.
        commit: the commit as it was created.
        named: paths that must stay because a commit names them, if `commit` was written by another process.
    """
    for rewritten in commit.rewrites:
        kept = {file.path for file in (*rewritten.files, *commit.files)}
        old = read_commit(partition, rewritten.name)
        for file in old.files if old else []:
            if file.path not in kept and file.path not in named:
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
    """Carry out the rewrites of commits whose change was interrupted; return the number of such commits.

    Raises:
        OutputError: a commit is damaged, or two commits name one file.
    """
    names, pending = FileNames(partition), []
    for commit in stored_commits(partition):
        names.add(commit)
        if commit.rewrites:
            pending.append(commit)
    for rewritten in (one for commit in pending for one in commit.rewrites):
        names.add(rewritten)
    named, finished = names.distinct(), 0
    for name in [commit.name for commit in pending]:
        current = read_commit(partition, name)  # again, because another pending one may have rewritten it
        if current is not None and current.rewrites:
            carry_out(partition, current, named)
            finished += 1
    return finished
