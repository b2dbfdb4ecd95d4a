"""Upkeep. Erase a video, or one track of it, from every table and every other place in the output.

The order of steps ensures that a kill at any point leaves the old or the new state, and that the same command
finishes the work: record the erasure (from then on no run processes the video); in each partition, rewrite the files
without the rows; write the commit that publishes them, with its audit row; delete the old files, landed rows, mentions
in open shards, and files that no commit names; record the erasure as done.
"""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from featray.errors import LeaseError, OutputError, UsageError
from featray.schema import DERIVED_TABLES, PER_VIDEO_TABLES, PERSON_TABLES, PRIVATE_TABLES
from featray.store.scratch import scratch_folder
from featray.store.storage import delete, delete_folder, list_files, list_folders
from featray.tables.commits import (
    Commit,
    CommittedFile,
    ManifestVideo,
    close_shard,
    read_commit,
    read_commits,
    read_manifests,
    write_commit,
    write_manifest,
)
from featray.tables.layout import Output, Partition, list_partitions
from featray.tables.lease import HeldPartition, hold
from featray.tables.person_edits import forget_edits
from featray.tables.replace import ERASE_PREFIX, carry_out
from featray.tables.rewrite import Edit, holds_videos, rewrite_files, without
from featray.tables.runs import running_rows, write_marker
from featray.tables.tombstones import Erasure, finish_erasure, note_erasure, read_erasures
from featray.tables.writer import TableWriter
from featray.upkeep.erase_edits import TrackFaces, counted, forget_uri, forget_uri_edit, read_track, uris_of
from featray.upkeep.erase_exports import erase_exports
from featray.upkeep.finish import finish_committed
from featray.upkeep.orphans import uncommitted_files

_TABLES = (*PER_VIDEO_TABLES, *DERIVED_TABLES, *PRIVATE_TABLES, *PERSON_TABLES)
_INTERNAL_FOLDERS = ("landing", "shards", "commits", "running")


@dataclass
class ErasedHere:
    """Counts of what was removed from one partition.

    Attributes:
        rows: rows removed, by table.
        landed: landing folders and mentions in open shards.
        uncommitted: files that no commit named.
        exports: exports inside the output that held its rows; reported for the first partition only.
    """

    partition: Partition
    rows: dict[str, int] = field(default_factory=dict)
    landed: int = 0
    uncommitted: int = 0
    exports: list[str] = field(default_factory=list)

    @property
    def anything(self) -> bool:
        """Return whether there was anything to remove."""
        return bool(any(self.rows.values()) or self.landed or self.uncommitted or self.exports)


def erase(
    output: Output, video_id: str, *, track_id: int | None = None, release: str | None = None, reason: str | None = None
) -> list[ErasedHere]:
    """Erase a video or one of its tracks; return what was removed, by partition.

    Args:
        output: erased from all its datasets and releases, unless `release` names one.
        video_id: 16 hex digits.
        track_id: erase only this track; the video is then never processed again in any release.
        release: the only release to erase from.
        reason: stored in the audit row; must not name the person.

    Raises:
        UsageError: the output does not have this video or track, or the track is ambiguous.
        LeaseError: a run is active; the erasure is recorded, and the same command finishes it.
    """
    if not re.fullmatch("[0-9a-f]{16}", video_id):
        raise UsageError(f"--video {video_id}: not a video_id; give 16 hex digits, as in the `videos` table")
    partitions = [p for p in list_partitions(output) if release in (None, p.release)]
    if release is not None and not partitions:
        known = ", ".join(sorted({p.release for p in list_partitions(output)})) or "none"
        raise UsageError(f"--release {release}: not in this output; it has: {known}")
    erasure = _begin(output, partitions, video_id, track_id, release, reason)
    if erasure is None:
        return []
    note_erasure(output, erasure)
    exports = erase_exports(output, video_id)
    with scratch_folder("erase") as scratch:
        found = []
        for partition in partitions:
            try:
                with hold(partition, f"{ERASE_PREFIX}{erasure.erasure_id}") as lease:
                    found.append(_erase_in(lease.partition, erasure, scratch))
                    found[0].exports = exports
            except LeaseError as error:
                again = "the erasure is recorded, and the same command, run again then, finishes it"
                raise LeaseError(f"{error}; {again}", **error.details) from error
    finish_erasure(output, erasure)
    return [here for here in found if here.anything]


def _begin(
    output: Output,
    partitions: list[Partition],
    video_id: str,
    track_id: int | None,
    release: str | None,
    reason: str | None,
) -> Erasure | None:
    """Return the erasure to perform, an interrupted one or a new one; None if it is already done."""
    at_us = time.time_ns() // 1000
    new = Erasure(secrets.token_hex(6), video_id, track_id, release, at_us, reason)
    known = [erasure for erasure in read_erasures(output, video_id) if erasure.same_as(new)]
    unfinished = [erasure for erasure in known if not erasure.done]
    if unfinished:
        return unfinished[-1]
    present = [partition for partition in partitions if _is_present(partition, video_id)]
    if track_id is not None:
        present = [p for p in present if read_track(p, _commits_of(p, video_id), video_id, track_id).rows]
    if not present and known:
        return None
    if not present:
        what = f"video {video_id}" + ("" if track_id is None else f" track {track_id}")
        raise UsageError(
            f'{output.root.uri}: has no {what}; see `featray query OUT "SELECT video_id, uri FROM videos"`'
        )
    releases = sorted({partition.release for partition in present})
    if track_id is not None and len(releases) > 1:  # in one release, every dataset has the same tracks of a video
        raise UsageError(
            f"--track {track_id}: track ids are valid within one release; add --release, one of {', '.join(releases)}"
        )
    return new


def _is_present(partition: Partition, video_id: str) -> bool:
    return bool(
        _commits_of(partition, video_id)
        or _landing_folders(partition, video_id)
        or any(_mentions(manifest.videos, video_id) for manifest in read_manifests(partition))
    )


def _commits_of(partition: Partition, video_id: str) -> list[Commit]:
    return [c for c in read_commits(partition) if any(video.video_id == video_id for video in c.videos)]


def _landing_folders(partition: Partition, video_id: str) -> list[str]:
    return [name for name in list_folders(partition.landing()) if name.startswith(f"{video_id}-")]


def _mentions(videos: list[ManifestVideo], video_id: str) -> bool:
    return any(video.video_id == video_id for video in videos)


def _erase_in(partition: HeldPartition, erasure: Erasure, scratch: str) -> ErasedHere:
    finish_committed(partition)
    here = ErasedHere(partition)
    done = read_commit(partition, f"{ERASE_PREFIX}{erasure.erasure_id}") is not None
    if not done and _is_present(partition, erasure.video_id):
        _publish_without(partition, erasure, here, scratch)
    forget_edits(partition, erasure.video_id, erasure.track_id)
    here.landed = _erase_unfinished(partition, erasure)
    here.uncommitted = _sweep(partition, erasure)
    return here


def _publish_without(partition: HeldPartition, erasure: Erasure, here: ErasedHere, scratch: str) -> None:
    """Write the commit that removes the rows, with the audit row, and apply it."""
    commits = read_commits(partition)
    affected = [c for c in commits if any(video.video_id == erasure.video_id for video in c.videos)]
    named = [c for c in commits if any(file.table in PERSON_TABLES for file in c.files)]
    track = None
    if erasure.track_id is not None:
        track = read_track(partition, affected, erasure.video_id, erasure.track_id)
    rewritten = [_without(partition, commit, erasure, track, here, scratch) for commit in (*affected, *named)]
    uris = uris_of(partition, affected, erasure.video_id) if track is None else set()
    for commit in commits if track is None else []:
        files = rewrite_files(
            partition,
            commit,
            {"runs": forget_uri_edit(uris, erasure.video_id)},
            touching=None,
            generation=f"{ERASE_PREFIX}{erasure.erasure_id}",
            scratch=scratch,
        )
        if files != commit.files and commit not in affected:
            rewritten.append(replace(commit, files=files, rewrites=[]))
    for row in running_rows(partition) if track is None else []:
        config = forget_uri(row["config"], uris, erasure.video_id)
        if config != row["config"]:
            partition.check()
            write_marker(partition, {**row, "config": config})
    name = f"{ERASE_PREFIX}{erasure.erasure_id}"
    # Keep the previous publication time: an erasure must not make a release the latest one.
    newest_us = max((commit.published_at_us for commit in commits), default=1)
    audit = _audit(partition, erasure, here, name, scratch)
    commit = Commit(name, "", newest_us, audit, [], rewritten)
    write_commit(partition, commit)
    carry_out(partition, commit)


def _without(
    partition: HeldPartition,
    commit: Commit,
    erasure: Erasure,
    track: TrackFaces | None,
    here: ErasedHere,
    scratch: str,
) -> Commit:
    """Return the commit without the video, or without the track."""
    video_id = erasure.video_id
    edits: dict[str, Edit] = dict.fromkeys(_TABLES, without({video_id})) if track is None else track.edits()
    files = rewrite_files(
        partition,
        commit,
        {table: counted(edit, here.rows, table) for table, edit in edits.items()},
        touching={video_id},
        generation=f"{ERASE_PREFIX}{erasure.erasure_id}",
        scratch=scratch,
    )
    if track is None:
        videos = [video for video in commit.videos if video.video_id != video_id]
    else:
        videos = [replace(v, faces=v.faces - track.rows) if v.video_id == video_id else v for v in commit.videos]
    # `derived_from` may identify the erased person; it is dropped, and rows are derived again where needed.
    return replace(commit, files=files, videos=videos, rewrites=[], derived_from={})


def _audit(
    partition: HeldPartition, erasure: Erasure, here: ErasedHere, name: str, scratch: str
) -> list[CommittedFile]:
    row = {
        "dataset": partition.dataset,
        "release": partition.release,
        "video_id": erasure.video_id,
        "erasure_id": erasure.erasure_id,
        "track_id": erasure.track_id,
        **{f"{table}_removed": here.rows.get(table, 0) for table in _TABLES},
        "reason": erasure.reason,
        "erased_at": datetime.fromtimestamp(erasure.at_us / 1_000_000, UTC),
    }
    writer = TableWriter(
        "erasures",
        partition,
        folder=partition.folder("erasures"),
        stem=f"part-{name}",
        scratch=scratch,
        footer={"dataset": partition.dataset, "release": partition.release},
        path_fields=(),
    )
    writer.write_rows([row])
    return writer.close()


def _erase_unfinished(partition: HeldPartition, erasure: Erasure) -> int:
    """Remove the video from landing and open shards; return the number of places it was in."""
    folders = _landing_folders(partition, erasure.video_id)
    removed = len(folders)
    for manifest in read_manifests(partition):
        if not _mentions(manifest.videos, erasure.video_id):
            continue
        removed += 1
        partition.check()
        rest = [video for video in manifest.videos if video.video_id != erasure.video_id]
        if rest:
            write_manifest(partition, replace(manifest, videos=rest))
        else:
            close_shard(partition, manifest.shard)
    for name in folders:
        partition.check()
        delete_folder(partition.landing().child(name))
    return removed


def _sweep(partition: HeldPartition, erasure: Erasure) -> int:
    """Delete files that no commit names and that hold the video or cannot be read; return their number.

    Killed processes leave such files: parts of a shard without a commit, and temporary files on a disk.
    """
    output = partition.output
    committed = {file.path for commit in read_commits(partition) for file in commit.files}
    strays = uncommitted_files(output, partition.table_folders(), committed)
    gone = [path for path in strays if _may_hold(partition, path, erasure)]
    for path in gone:
        partition.check()
        delete(output.root.child(path))
    for folder in _INTERNAL_FOLDERS:
        for path in list_files(output.internal(folder, partition.dataset, partition.release)):
            name = path.rsplit("/", 1)[-1]
            if name.startswith(".") and name.endswith(".tmp"):
                partition.check()
                delete(output.root.child(output.relative(path)))
    return len(gone)


def _may_hold(partition: Partition, path: str, erasure: Erasure) -> bool:
    if erasure.erasure_id in path or not path.endswith(".parquet"):
        return True
    try:
        return holds_videos(partition.output.root.child(path), {erasure.video_id})
    except OutputError:
        return not path.startswith("runs/")
