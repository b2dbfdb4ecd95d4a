"""Replacing videos that are published already: changed bytes, a second try, an erasure.

Object stores have no transaction, so one commit carries the whole change: the new shard's
commit holds, under `rewrites`, the commits of older shards as they read without the replaced
videos. The moment it is written the change has happened for everyone who reads commits. Then
it is carried out: old files are deleted, older commits overwritten, the list emptied.
A kill in between is finished by the next run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from featray.errors import OutputError
from featray.sources.storage import delete, open_ranges, storage_errors
from featray.tables.commits import Commit, CommittedFile, read_commit, write_commit
from featray.tables.layout import Partition
from featray.tables.writer import TableWriter


def without_videos(
    partition: Partition,
    commit: Commit,
    videos: set[str],
    *,
    generation: str,
    scratch: str,
    footer: dict[str, str],
    check: Callable[[], None] | None = None,
) -> Commit:
    """Write a shard's files anew without some videos; its commit as it will read. Nothing is published yet.

    Args:
        partition: where the shard is.
        commit: of the shard as it is.
        videos: ids to leave out.
        generation: tells the new files' names from the old ones; the same for the same change.
        scratch: local folder for files in the making.
        footer: provenance for file footers.
        check: called before each upload; raises if nothing may be published any more.
    """
    files: list[CommittedFile] = []
    for number, old in enumerate(commit.files):
        stem = f"part-{commit.name}-{generation}-{number:03d}"
        files += _rewrite(partition, old, videos, stem, scratch, footer, check)
    rest = [video for video in commit.videos if video.video_id not in videos]
    return replace(commit, files=files, videos=rest, rewrites=[])


def carry_out(partition: Partition, commit: Commit, check: Callable[[], None] | None = None) -> Commit:
    """Bring older commits and files in line with a commit's rewrites; the commit without them.

    Old files go before the old commit that names them: until `commit` itself is written anew,
    readers take the older one as it stands in `rewrites`, and a second try still knows the files.

    Args:
        partition: where the commit is.
        commit: as it was created.
        check: called before each change; raises if nothing may be published any more.
    """
    check = check or _unchecked
    for rewritten in commit.rewrites:
        kept = {file.path for file in rewritten.files}
        old = read_commit(partition, rewritten.name)
        for file in old.files if old else []:
            if file.path not in kept:
                check()
                delete(partition.output.root.child(file.path))
        check()
        if rewritten.videos:
            write_commit(partition, rewritten)
        else:
            delete(partition.commit(rewritten.name))
    done = replace(commit, rewrites=[])
    if commit.rewrites:
        check()
        write_commit(partition, done)
    return done


def _unchecked() -> None:
    """For callers that know that they are alone."""


def _rewrite(
    partition: Partition,
    old: CommittedFile,
    videos: set[str],
    stem: str,
    scratch: str,
    footer: dict[str, str],
    check: Callable[[], None] | None,
) -> list[CommittedFile]:
    place = partition.output.root.child(old.path)
    with storage_errors(place.uri), open_ranges(place) as source:
        file = pq.ParquetFile(source)
        writer = _writer_like(partition, old, file.schema_arrow, stem, scratch, footer, check)
        try:
            kept = 0
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group)
                leave = pc.is_in(rows["video_id"], value_set=pa.array(sorted(videos), pa.string()))
                rows = rows.filter(pc.invert(leave))
                kept += rows.num_rows
                writer.write(rows)
            return writer.close() if kept < old.rows else [old]
        finally:
            writer.abandon()


def _writer_like(
    partition: Partition,
    old: CommittedFile,
    schema: Any,
    stem: str,
    scratch: str,
    footer: dict[str, str],
    check: Callable[[], None] | None,
) -> TableWriter:
    """A writer for the same folder and columns as an existing file."""
    folder, _, name = old.path.rpartition("/")
    if not name.endswith(".parquet"):
        raise OutputError(f"{old.path}: a commit names a file that is no Parquet file; run `featray verify`")
    known = {part.partition("=")[0] for part in folder.split("/")[1:]}
    fields = tuple(n for n in schema.names if n in known - {"dataset", "release"})
    return TableWriter(
        old.table,
        folder=partition.output.root.child(folder),
        stem=stem,
        scratch=scratch,
        footer=footer,
        path_fields=fields,
        root=partition.output.root,
        check=check,
    )
