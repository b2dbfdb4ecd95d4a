"""Upkeep. Merge the small files that many small runs leave, without changing a row.

Commits of one partition folder are merged into one that holds their videos' records and the
merged files; files that are already large are kept unchanged. It is the same kind of commit as
a replacement: readers see either the old files or the new ones. After a kill, the next run,
`featray publish`, or the same command completes it.
"""

from __future__ import annotations

import hashlib
import heapq
import secrets
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from featray.schema import ALL_TABLES, ROWS_A_GROUP, SORT_KEYS
from featray.store.scratch import scratch_folder
from featray.tables.commits import Commit, CommittedFile, read_commits, read_manifests, write_commit
from featray.tables.layout import Partition
from featray.tables.lease import HeldPartition, hold
from featray.tables.replace import COMPACT_PREFIX, carry_out
from featray.tables.rewrite import complete, footer_of, merged_footer, open_parquet, unfolded, writer_like
from featray.tables.runs import running_rows
from featray.upkeep.finish import finish_committed, remove_leftovers

LARGE_BYTES: Final = 128 << 20
"""Files of at least this size are large enough for query engines and are not merged."""

VIDEOS_A_COMMIT: Final = 20_000
"""About 5 MB of record: a commit is read completely whenever one of its videos is replaced."""

INPUTS_AT_ONCE: Final = 200
"""Commits merged at once; each keeps a file open and a batch of rows in memory."""

_BATCH_BYTES: Final = 4 << 20


@dataclass(frozen=True)
class Compacted:
    """The result of compacting a partition: commits and files before and after, or why nothing was done."""

    commits_before: int
    files_before: int
    commits: int
    files: int
    refused: str | None = None


def compact_partition(partition: Partition) -> Compacted:
    """Merge the small files of a partition, folder by folder.

    Raises:
        LeaseError: a run is active.
    """
    with hold(partition, f"{COMPACT_PREFIX}{secrets.token_hex(4)}") as lease:
        return _compact(lease.partition)


def _compact(partition: HeldPartition) -> Compacted:
    finish_committed(partition)
    remove_leftovers(partition)
    commits = read_commits(partition)
    before = len(commits), sum(len(commit.files) for commit in commits)
    if read_manifests(partition):
        # An open shard names the commits it replaces; those names must stay valid until it is published.
        why = "a run is active or was interrupted; wait for it, run it again, or use `featray publish`"
        return Compacted(*before, *before, refused=why)
    for group in _groups(partition, commits):
        _merge_group(partition, group)
    commits = read_commits(partition)
    return Compacted(*before, len(commits), sum(len(commit.files) for commit in commits))


def _groups(partition: Partition, commits: list[Commit]) -> Iterator[list[Commit]]:
    """Yield groups of commits to merge: each of one folder, in the order of their names, bounded in size."""
    running = {f"run-{row['run_id']}" for row in running_rows(partition)}
    folders: dict[str, list[Commit]] = {}
    for commit in sorted(commits, key=lambda commit: commit.name):
        if commit.files and commit.name not in running:
            folders.setdefault(_folder(commit), []).append(commit)
    for _, members in sorted(folders.items()):
        group: list[Commit] = []
        videos = 0
        for commit in members:
            if group and (videos + len(commit.videos) > VIDEOS_A_COMMIT or len(group) >= INPUTS_AT_ONCE):
                yield from _worth_it(group)
                group, videos = [], 0
            group.append(commit)
            videos += len(commit.videos)
        yield from _worth_it(group)


def _folder(commit: Commit) -> str:
    """Return the group key of a commit: the table for runs and erasures, the shared folder for shards.

    The key includes the derivations, because a commit's derivations cover all its rows.
    """
    table, _, rest = commit.files[0].path.partition("/")
    kind = table if table in ("runs", "erasures") else "videos"
    return "/".join([kind, rest.rpartition("/")[0], *sorted(commit.derived)])


def _worth_it(group: list[Commit]) -> Iterator[list[Commit]]:
    """Yield the group if merging reduces its number of files."""
    small = Counter(_place(file) for commit in group for file in commit.files if file.size_bytes < LARGE_BYTES)
    if any(count > 1 for count in small.values()):
        yield group


def _place(file: CommittedFile) -> tuple[int, str]:
    """Return the order of a file's table and its folder; derived tables have one folder per derivation."""
    return list(ALL_TABLES).index(file.table), file.path.rpartition("/")[0]


def _merge_group(partition: HeldPartition, group: list[Commit]) -> None:
    every = [file for commit in group for file in commit.files]
    identity = "\n".join([*(commit.name for commit in group), *(file.path for file in every)])
    name = f"{COMPACT_PREFIX}{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    files: list[CommittedFile] = []
    with scratch_folder("compact") as scratch:
        for place in sorted(set(map(_place, every))):
            of_table = [file for file in every if _place(file) == place]
            small = [file for file in of_table if file.size_bytes < LARGE_BYTES]
            files += [file for file in of_table if file.size_bytes >= LARGE_BYTES]
            files += _merge_files(partition, small, f"part-{name}", scratch) if len(small) > 1 else small
    commit = Commit(
        name=name,
        run_id=group[0].run_id,
        published_at_us=max(commit.published_at_us for commit in group),
        files=files,
        videos=sorted((video for commit in group for video in commit.videos), key=lambda video: video.video_id),
        rewrites=[replace(old, files=[], videos=[], rewrites=[]) for old in group],
        derived={name: max(commit.derived[name] for commit in group) for name in group[0].derived},
        derived_from={name: _made_from(name, group) for name in group[0].derived_from},
    )
    write_commit(partition, commit)
    carry_out(partition, commit)


def _made_from(derivation: str, group: list[Commit]) -> dict[str, str]:
    """Return the sources that these commits' rows were made from, without those that differ: they are derived again."""
    merged: dict[str, str] = {}
    differs = set()
    for whose, what in (item for commit in group for item in commit.derived_from.get(derivation, {}).items()):
        if merged.setdefault(whose, what) != what:
            differs.add(whose)
    return {whose: what for whose, what in merged.items() if whose not in differs}


def _merge_files(partition: HeldPartition, files: list[CommittedFile], stem: str, scratch: str) -> list[CommittedFile]:
    """Merge sorted files of one table into sorted files, streaming the rows."""
    with ExitStack() as stack:
        places = [partition.output.root.child(file.path) for file in files]
        opened = [stack.enter_context(open_parquet(place, folded=True, buffer_size=1 << 20)) for place in places]
        footer = merged_footer(footer_of(file) for file in opened)
        writer = writer_like(partition, files[0], opened[0].schema_arrow, stem, scratch, footer)
        try:
            if any(pa.types.is_dictionary(field.type) for file in opened for field in file.schema_arrow):
                writer.measure_texts()
            streams = [_runs(file, writer.table, writer.schema) for file in opened]
            for _, _, rows in heapq.merge(*(_numbered(s, n) for n, s in enumerate(streams)), key=_head):
                writer.write(rows)
            return writer.close()
        finally:
            writer.abandon()


_Run = tuple[tuple[Any, ...], int, pa.Table]


def _numbered(stream: Iterator[tuple[tuple[Any, ...], pa.Table]], number: int) -> Iterator[_Run]:
    for key, rows in stream:
        yield key, number, rows


def _head(run: _Run) -> tuple[Any, ...]:
    return run[0], run[1]


def _runs(file: pq.ParquetFile, table: str, schema: pa.Schema) -> Iterator[tuple[tuple[Any, ...], pa.Table]]:
    """Yield a file's rows video by video (run by run in `runs`), each with the sort key of its first row."""
    keys, metadata = SORT_KEYS[table], file.metadata
    uncompressed = sum(metadata.row_group(g).total_byte_size for g in range(metadata.num_row_groups))
    batch_rows = max(64, _BATCH_BYTES * metadata.num_rows // max(uncompressed, 1))
    batch_rows = min(batch_rows, ROWS_A_GROUP[table])  # rows of nulls take no bytes in the file
    for batch in file.iter_batches(batch_size=batch_rows):
        rows = complete(unfolded(pa.Table.from_batches([batch])), schema)
        names = rows[keys[0]].to_numpy(zero_copy_only=False)
        starts = [0, *(np.flatnonzero(names[1:] != names[:-1]) + 1).tolist(), len(names)]
        for start, end in pairwise(starts):
            values = (rows[name][start].as_py() for name in keys)
            key = tuple((value is not None, value) for value in values)  # a null cannot be compared
            yield key, rows.slice(start, end - start)
