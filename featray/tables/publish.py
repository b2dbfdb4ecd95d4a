"""Tables. Publish one shard: landed units of whole videos become rows of the tables.

The order of writes makes publishing safe to kill and to repeat: first the files, under names that
follow from the shard; then the commit; then landing and manifest are deleted. Before the commit, a
second try writes the same bytes again; after it, only the deletions remain. Shards that replace
videos of older shards must be published one after the other, or they would undo each other's
rewrites. Before each write the process checks that its run still holds the lease; `lease.py`
explains what remains possible.

Memory is bounded by the settings: one landed part, plus at most one row group per table. Derived rows are made from the
files that were just written, in the same way as `featray derive` makes them from any commit.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import chain

from featray.errors import LeaseError, RunError, StorageError
from featray.schema import FACE_TABLES, PER_VIDEO_TABLES, PRIVATE_TABLES
from featray.store.scratch import scratch_folder
from featray.store.storage import delete, delete_folder
from featray.tables.commits import (
    Commit,
    ShardManifest,
    cancel_shard,
    close_shard,
    create_commit,
    read_commit,
)
from featray.tables.derived import Derive, derived_writers, open_sources, write_derived
from featray.tables.lease import HeldPartition
from featray.tables.merge import Embedded, merge_video
from featray.tables.replace import carry_out, without_videos
from featray.tables.writer import TableWriter


@dataclass(frozen=True)
class PublishSettings:
    """Settings of publishing that are common to all shards.

    Attributes:
        run_id: the run that publishes.
        tables: feature tables to write.
        path_fields: names of the path fields, in order.
        footer: provenance for file footers, without the `featray.` prefix.
        published_at_us: time of publishing in the rows; set once per shard so that a second try writes the same bytes;
            0 means now.
        derive: derives the rows of derived tables; None for none.
        embedded: which embeddings are published; None for none.
    """

    run_id: str
    tables: tuple[str, ...]
    path_fields: tuple[str, ...]
    footer: dict[str, str] = field(default_factory=dict)
    published_at_us: int = 0
    derive: Derive | None = None
    embedded: Embedded | None = None


def publish_shard(partition: HeldPartition, manifest: ShardManifest, settings: PublishSettings) -> Commit:
    """Merge, track, sort, write, commit and clean up; skip the steps that an earlier try finished.

    Raises:
        RunError: a unit of the shard has not landed, or a commit does not have the videos that the shard replaces.
        LeaseError: another run has taken over.
        StorageError: the storage failed; nothing was committed.
    """
    commit = read_commit(partition, manifest.shard)
    if commit is None:
        try:
            commit = _write_shard(partition, manifest, settings)
        except LeaseError:
            raise
        except (RunError, StorageError):
            # Another try of the same task may have been faster and cleaned up the files that this one needs.
            commit = read_commit(partition, manifest.shard)
            if commit is None:
                partition.check()  # the reason, if the output was moved or another run has taken over
                raise
    if commit.cancelled:
        raise LeaseError(f"shard {manifest.shard}: cancelled by run {commit.run_id}, which has taken over")
    commit = carry_out(partition, commit)
    clean_up_shard(partition, manifest)
    return commit


def _write_shard(partition: HeldPartition, manifest: ShardManifest, settings: PublishSettings) -> Commit:
    """Write the shard's files and its commit; return the commit that exists afterwards."""
    published_at_us = settings.published_at_us or time.time_ns() // 1000
    videos = sorted(manifest.videos, key=lambda video: video.video_id)
    with scratch_folder("publish") as scratch:
        writers = {table: _writer(table, partition, manifest, settings, scratch) for table in _tables(settings)}
        try:
            merged = [
                merge_video(
                    video,
                    partition,
                    writers,
                    run_id=settings.run_id,
                    published_at_us=published_at_us,
                    embedded=settings.embedded,
                )
                for video in videos
            ]
            files = [file for writer in list(writers.values()) for file in writer.close()]
            if settings.derive is not None:
                more = _derived_writers(settings.derive, partition, manifest, settings, scratch)
                writers |= more  # so that giving up the shard deletes their files too
                with open_sources(partition, files) as sources:
                    write_derived(settings.derive, partition, manifest.fields, sources, more)
                files += [file for writer in more.values() for file in writer.close()]
            rewrites = _rewrites(partition, manifest, scratch)
            partition.check()
        except LeaseError:
            if cancel_shard(partition, manifest.shard, settings.run_id).cancelled:
                for file in chain.from_iterable(writer.files for writer in writers.values()):
                    delete(partition.output.root.child(file.path))
            raise
        finally:
            for writer in writers.values():
                writer.abandon()
    committed, several = [one.committed for one in merged], sum(one.has_other_streams for one in merged)
    derived = {settings.derive.name: published_at_us} if settings.derive is not None else {}
    commit = Commit(manifest.shard, settings.run_id, published_at_us, files, committed, rewrites, several, derived)
    return create_commit(partition, commit)


def clean_up_shard(partition: HeldPartition, manifest: ShardManifest) -> None:
    """Delete the landing folders of a committed shard, then its manifest.

    One check of the lease covers all deletions, because a run that takes over would delete the same objects.
    """
    partition.check()
    for video in manifest.videos:
        delete_folder(partition.landing(video.video_id, video.work_key))
    close_shard(partition, manifest.shard)


def _rewrites(partition: HeldPartition, manifest: ShardManifest, scratch: str) -> list[Commit]:
    """Return the older shards without the videos that this one replaces.

    Raises:
        RunError: an older shard no longer has these videos, so they could end up in the tables twice.
    """
    replaced: dict[str, set[str]] = {}
    for video in manifest.videos:
        if video.replaces:
            replaced.setdefault(video.replaces, set()).add(video.video_id)
    rewritten = []
    for name, videos in sorted(replaced.items()):
        old = read_commit(partition, name)
        if old is None or not videos <= {video.video_id for video in old.videos}:
            raise RunError(
                f"shard {manifest.shard}: commit {name} no longer has the videos to be replaced; run again: the next "
                "run finds the commit that has them and uses what has landed"
            )
        rewritten.append(without_videos(partition, old, videos, generation=manifest.shard, scratch=scratch))
    return rewritten


def _tables(settings: PublishSettings) -> list[str]:
    private = PRIVATE_TABLES if settings.embedded is not None else ()
    return [t for t in (*PER_VIDEO_TABLES, *private) if t in settings.tables or t not in FACE_TABLES]


def _writer(
    table: str, partition: HeldPartition, manifest: ShardManifest, settings: PublishSettings, scratch: str
) -> TableWriter:
    return TableWriter(
        table,
        partition,
        folder=partition.folder(table, manifest.fields),
        stem=f"part-{manifest.shard}",
        scratch=scratch,
        footer=settings.footer,
        path_fields=settings.path_fields,
    )


def _derived_writers(
    derive: Derive, partition: HeldPartition, manifest: ShardManifest, settings: PublishSettings, scratch: str
) -> dict[str, TableWriter]:
    stem = f"part-{manifest.shard}"
    return derived_writers(derive, partition, manifest.fields, stem=stem, scratch=scratch, footer=settings.footer)
