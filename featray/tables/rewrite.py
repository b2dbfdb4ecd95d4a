"""Tables. Rewrite published files with some rows removed or changed.

The new file keeps the provenance of the old one, because its rows still come from that run. Rows
are streamed, one row group at a time; a file that needs no change is not written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from featray.errors import NotFound, OutputError, counted, one_line
from featray.redaction import redact_links
from featray.schema import ROWS_A_GROUP
from featray.store.failures import storage_errors
from featray.store.location import Location
from featray.store.storage import open_ranges
from featray.tables.commits import Commit, CommittedFile
from featray.tables.layout import Partition
from featray.tables.lease import HeldPartition
from featray.tables.writer import TableWriter

Edit = Callable[[pa.Table], pa.Table]
"""Maps rows to the rows that stay, in the same order; returns the same object if nothing changes."""

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
    """Apply edits to a commit's files and return the files in order; unchanged files are kept.

    Args:
        partition: the commit's partition.
        commit: the current commit.
        edits: edits by table; tables without an edit are not changed.
        touching: the videos that the edits affect; files without rows of theirs are not read. None for all.
        generation: distinguishes the new files' names from the old ones; the same for the same change.
        scratch: local folder for files that are being written.
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
def open_parquet(place: Location, *, folded: bool = False, **options: Any) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file of the output for reading.

    Args:
        place: the file.
        folded: whether texts that may fill the memory stay encoded by a dictionary when read; see `unfolded`.
        options: options of `pq.ParquetFile`.

    Raises:
        OutputError: it is damaged or not a Parquet file; also raised while the block reads it.
    """
    try:
        file = open_ranges(place)
    except NotFound:
        raise NotFound(f"{place.uri}: does not exist; `featray verify` says what to do") from None
    with storage_errors(place.uri), file as source:
        try:
            opened = pq.ParquetFile(source, **options)
            check_groups(opened.metadata)
            if folded and (texts := _may_unfold(opened)):
                opened = pq.ParquetFile(source, metadata=opened.metadata, read_dictionary=texts, **options)
            yield opened
        # KeyError: a missing column; ValueError: names and metadata that are not UTF-8; OverflowError: times
        except (pa.ArrowException, KeyError, ValueError, OverflowError) as error:
            raise _damaged(place, error) from error
        except OSError as error:  # Arrow's, of a damaged page or footer, has no number; a disk's has
            if not place.is_local or error.errno is not None:
                raise
            raise _damaged(place, error) from error


_MOST_GROUP_ROWS: Final = 1 << 22
"""featray writes at most 122,880 rows into a row group, and other software a million by default."""


def check_groups(footer: pq.FileMetaData) -> None:
    """Refuse row groups that fill the memory when one is read: a kilobyte can hold, or claim, any number of rows.

    Raises:
        ValueError: a row group is too large.
    """
    largest = max((footer.row_group(group).num_rows for group in range(footer.num_row_groups)), default=0)
    if largest > _MOST_GROUP_ROWS:
        raise ValueError(f"a row group of {counted(largest, 'row')}; at most {_MOST_GROUP_ROWS:,} are read")


_MOST_TEXT_BYTES: Final = 2 << 30
"""Rows that are held at once have some 10 MB of text; 200 configs of the largest size have less than this."""


def _may_unfold(file: pq.ParquetFile) -> list[str]:
    """Return the columns of texts that may be too large: if each of a group's rows had all of the group's text."""
    footer, found = file.metadata, set[str]()
    is_text = (pa.types.is_string, pa.types.is_large_string)
    texts = {field.name for field in file.schema_arrow if any(is_one(field.type) for is_one in is_text)}
    places = [place for place in range(footer.num_columns) if file.schema.column(place).path in texts]
    for group in map(footer.row_group, range(footer.num_row_groups)):
        for place in places:
            if group.column(place).total_uncompressed_size * group.num_rows > _MOST_TEXT_BYTES:
                found.add(file.schema.column(place).path)
    return sorted(found)


def check_texts(rows: pa.Table) -> list[str]:
    """Check the size of the texts of rows of a `folded` file; return the names of their columns.

    Raises:
        ValueError: they would fill the memory.
    """
    folded = [field.name for field in rows.schema if pa.types.is_dictionary(field.type)]
    chunks = (chunk for name in folded for chunk in rows[name].chunks)
    size = sum(pc.sum(pc.binary_length(one.dictionary).take(one.indices)).as_py() or 0 for one in chunks)
    if size > _MOST_TEXT_BYTES:
        raise ValueError(f"texts of {size:,} bytes in {counted(rows.num_rows, 'row')}")
    return folded


def unfolded(rows: pa.Table) -> pa.Table:
    """Return rows of a `folded` file with plain texts.

    Raises:
        ValueError: they would fill the memory: a dictionary of one text in a few kilobytes can stand for terabytes.
    """
    for name in check_texts(rows):
        position = rows.column_names.index(name)
        rows = rows.set_column(position, rows.schema.field(name).with_type(pa.string()), rows[name].cast(pa.string()))
    return rows


def _damaged(place: Location, error: Exception) -> OutputError:
    return OutputError(f"{place.uri}: damaged ({redact_links(one_line(error, 80))}); run `featray verify`")


def _rewrite(
    partition: HeldPartition,
    old: CommittedFile,
    edit: Edit,
    stem: str,
    scratch: str,
) -> list[CommittedFile]:
    place = partition.output.root.child(old.path)
    with open_parquet(place, folded=True) as file:
        writer = writer_like(partition, old, file.schema_arrow, stem, scratch, footer_of(file))
        try:
            changed = False
            # Not by row group: one of some kilobytes can hold millions of rows.
            for batch in file.iter_batches(ROWS_A_GROUP[writer.table]):
                rows = unfolded(pa.Table.from_batches([batch]))
                edited = edit(rows)
                changed = changed or edited is not rows
                writer.write(complete(edited, writer.schema))
            return writer.close() if changed else [old]
        finally:
            writer.abandon()


def without(videos: set[str]) -> Edit:
    """Return an edit that removes these videos."""
    ids = pa.array(sorted(videos), pa.string())

    def edit(rows: pa.Table) -> pa.Table:
        leave = pc.is_in(rows["video_id"], value_set=ids)
        return rows.filter(pc.invert(leave)) if pc.any(leave).as_py() else rows

    return edit


def holds_videos(place: Location, videos: set[str]) -> bool:
    """Return whether a file has rows of any of these videos; reads one small column.

    Raises:
        OutputError: it is not a Parquet file with videos.
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
    """Return the `featray.*` keys of a file's footer, without the prefix."""
    stored: dict[bytes, bytes] = file.metadata.metadata or {}
    return {k.removeprefix(_PREFIX).decode(): v.decode() for k, v in stored.items() if k.startswith(_PREFIX)}


def merged_footer(footers: Iterable[dict[str, str]]) -> dict[str, str]:
    """Return the footer of a file made from several; differing values are listed."""
    merged: dict[str, set[str]] = {}
    for footer in footers:
        for name, value in footer.items():
            merged.setdefault(name, set()).add(value)
    return {name: ", ".join(sorted(values)) for name, values in merged.items()}


def complete(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return rows of an older schema version with the missing columns added as null."""
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
    """Return a writer for the same folder and columns as an existing file."""
    folder, _, name = old.path.rpartition("/")
    if not name.endswith(".parquet"):
        raise OutputError(f"{old.path}: a commit names this file, but it is not a Parquet file; run `featray verify`")
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
