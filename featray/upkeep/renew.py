"""Upkeep. Renew what a manifest says of published videos: a corrected participant, a new column.

`videos.extra` is the only thing in the tables that comes from there, so nothing is processed again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import pyarrow as pa

from featray.records import digest_of_extra
from featray.store.scratch import scratch_folder
from featray.tables.commits import Commit, read_commit, write_commit
from featray.tables.lease import HeldPartition
from featray.tables.rewrite import Edit, rewrite_files

_EXTRA: Final = "extra"


def renew_extra(partition: HeldPartition, renewed: Mapping[str, Mapping[str, str]], run_id: str) -> None:
    """Write new values of `videos.extra`.

    A shard's commit is replaced as a whole, so that readers see all of its videos as before or all of them renewed.

    Args:
        partition: partition of the videos.
        renewed: the new JSON by video id, by the name of the commit that holds the videos.
        run_id: the run that read the manifest.
    """
    with scratch_folder("renew") as scratch:
        for shard, extras in sorted(renewed.items()):
            old = read_commit(partition, shard)
            if old is not None:
                _renew_shard(partition, old, extras, f"renew-{run_id}", scratch)


def _renew_shard(
    partition: HeldPartition, old: Commit, extras: Mapping[str, str], generation: str, scratch: str
) -> None:
    edits = {"videos": _with(extras)}
    files = rewrite_files(partition, old, edits, touching=set(extras), generation=generation, scratch=scratch)
    videos = [
        replace(video, extra_digest=digest_of_extra(extras[video.video_id])) if video.video_id in extras else video
        for video in old.videos
    ]
    write_commit(partition, replace(old, files=files, videos=videos))
    for path in {file.path for file in old.files} - {file.path for file in files}:
        partition.delete(path)  # if that is not reached, the next run deletes what no commit names


def _with(extras: Mapping[str, str]) -> Edit:
    def edit(rows: pa.Table) -> pa.Table:
        at = rows.schema.get_field_index(_EXTRA)
        before = rows[_EXTRA].to_pylist()
        after = [extras.get(video, extra) for video, extra in zip(rows["video_id"].to_pylist(), before, strict=True)]
        return rows if after == before else rows.set_column(at, _EXTRA, pa.array(after, pa.string()))

    return edit
