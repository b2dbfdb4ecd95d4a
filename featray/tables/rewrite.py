"""Tables. Writing published files anew: some rows left out or changed, everything else as it was.

The new file keeps the old one's provenance: the rows are still that run's. Rows stream
through, a row group at a time; a file that needs no change is not written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from featray.errors import OutputError, one_line
from featray.store.storage import Location, open_ranges, storage_errors
from featray.tables.commits import Commit, CommittedFile
from featray.tables.layout import Partition
from featray.tables.lease import HeldPartition
from featray.tables.writer import TableWriter

Edit = Callable[[pa.Table], pa.Table]
"""From rows to the rows that stay, in the same order; the very same object if nothing changes."""

_PREFIX = b"featray."


def rewrite_files(
    partition: HeldPartition,
    commit: Commit,
    edits: dict[str, Edit],
    *,
    touching: set[str] | None,
    generation: str,
    scratch: str,
) -> list[CommittedFile]:
    """A commit's files after the edits, in order; what an edit leaves alone stays the file it is.

    Args:
        partition: where the commit is.
        commit: as it is now.
        edits: what to do with rows, by table; tables without an edit stay as they are.
        touching: the videos that the edits are about: files without rows of theirs are not read. None for all.
        generation: tells the new files' names from the old ones; the same for the same change.
        scratch: local folder for files in the making.
    """
    files: list[CommittedFile] = []
    for number, old in enumerate(commit.files):
        edit = edits.get(old.table)
        stem = f"part-{commit.name}-{generation}-{number:03d}"
        if edit is None or (touching is not None and not _holds(partition, old, touching)):
            files.append(old)
        else:
            files += _rewrite(partition, old, edit, stem, scratch)
    return files


@contextmanager
def open_parquet(place: Location, **options: Any) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file of the output to read it.

    Raises:
        OutputError: it is damaged, or no Parquet file; while it is read, too.
    """
    with storage_errors(place.uri), open_ranges(place) as source:
        try:
            yield pq.ParquetFile(source, **options)
        # KeyError: it has no such column; ValueError: names and facts that are no UTF-8; OverflowError: of times
        except (pa.ArrowException, KeyError, ValueError, OverflowError) as error:
            raise OutputError(f"{place.uri}: damaged ({one_line(error, 80)}); run `featray verify`") from error


def _rewrite(
    partition: HeldPartition,
    old: CommittedFile,
    edit: Edit,
    stem: str,
    scratch: str,
) -> list[CommittedFile]:
    place = partition.output.root.child(old.path)
    with open_parquet(place) as file:
        writer = writer_like(partition, old, file.schema_arrow, stem, scratch, footer_of(file))
        try:
            changed = False
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group)
                edited = edit(rows)
                changed = changed or edited is not rows
                writer.write(complete(edited, writer.schema))
            return writer.close() if changed else [old]
        finally:
            writer.abandon()


def without(videos: set[str]) -> Edit:
    """An edit that leaves out these videos."""
    ids = pa.array(sorted(videos), pa.string())

    def edit(rows: pa.Table) -> pa.Table:
        leave = pc.is_in(rows["video_id"], value_set=ids)
        return rows.filter(pc.invert(leave)) if pc.any(leave).as_py() else rows

    return edit


def holds_videos(place: Location, videos: set[str]) -> bool:
    """Return whether a file has rows of any of these videos; reads one small column.

    Raises:
        OutputError: it is no Parquet file with videos.
    """
    ids = pa.array(sorted(videos), pa.string())
    with open_parquet(place) as opened:
        return any(
            pc.any(pc.is_in(opened.read_row_group(g, columns=["video_id"])["video_id"], value_set=ids)).as_py()
            for g in range(opened.num_row_groups)
        )


def _holds(partition: Partition, file: CommittedFile, videos: set[str]) -> bool:
    return holds_videos(partition.output.root.child(file.path), videos)


def footer_of(file: pq.ParquetFile) -> dict[str, str]:
    """The `featray.*` keys of a file's footer, without the prefix."""
    stored: dict[bytes, bytes] = file.metadata.metadata or {}
    return {k.removeprefix(_PREFIX).decode(): v.decode() for k, v in stored.items() if k.startswith(_PREFIX)}


def merged_footer(footers: Iterable[dict[str, str]]) -> dict[str, str]:
    """The footer of a file made of several: what differs is listed."""
    merged: dict[str, set[str]] = {}
    for footer in footers:
        for name, value in footer.items():
            merged.setdefault(name, set()).add(value)
    return {name: ", ".join(sorted(values)) for name, values in merged.items()}


def complete(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Rows of an older schema version with the columns that it did not have, null."""
    for field in schema:
        if field.name not in rows.column_names:
            rows = rows.append_column(field.name, pa.nulls(rows.num_rows, field.type))
    return rows


def writer_like(
    partition: HeldPartition,
    old: CommittedFile,
    schema: Any,
    stem: str,
    scratch: str,
    footer: dict[str, str],
) -> TableWriter:
    """A writer for the same folder and columns as an existing file."""
    folder, _, name = old.path.rpartition("/")
    if not name.endswith(".parquet"):
        raise OutputError(f"{old.path}: a commit names a file that is no Parquet file; run `featray verify`")
    known = {part.partition("=")[0] for part in folder.split("/")[1:]}
    fields = tuple(n for n in schema.names if n in known - {"dataset", "release", "derivation", "clustering"})
    return TableWriter(
        old.table,
        partition,
        folder=partition.output.root.child(folder),
        stem=stem,
        scratch=scratch,
        footer=footer,
        path_fields=fields,
    )
