"""Tables. Write Parquet files as documented: sorted, zstd, with statistics, checksums, comments and footers.

Files are written to local disk first and uploaded whole: an object is never partial, and its
sha256 is known before it exists. Rows are streamed; memory is bounded by one row group per
table.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from featray.schema import ROWS_A_GROUP, SCHEMA_VERSION, SORT_KEYS, arrow_schema
from featray.store.location import Location
from featray.store.scratch import scratch_errors
from featray.store.storage import upload
from featray.tables.commits import CommittedFile
from featray.tables.lease import HeldPartition

FILE_BYTES: Final = 256 << 20
"""Size at which a new file starts: within the 128 to 512 MB that suit query engines."""

_GROUP_TEXT: Final = 1 << 30
"""Bytes of text that end a row group early; only texts can be of any size."""


class TableWriter:
    """Writes sorted rows of one table to one partition folder, in as few files as possible.

    Args:
        table: the table; determines schema, sort order and row-group length.
        partition: the partition; nothing is uploaded unless it is held.
        folder: destination of the files.
        stem: file names are `<stem>-<n>.parquet`.
        scratch: local folder for files that are being written.
        footer: `featray.*` keys for every file's metadata.
        path_fields: names of the path fields.
    """

    def __init__(
        self,
        table: str,
        partition: HeldPartition,
        *,
        folder: Location,
        stem: str,
        scratch: str,
        footer: dict[str, str],
        path_fields: tuple[str, ...],
    ) -> None:
        self.table = table
        self._folder = folder
        self._stem = stem
        self._scratch = scratch
        self._partition = partition
        schema = arrow_schema(table, path_fields)
        facts = {**footer, "schema_version": str(SCHEMA_VERSION)}
        self.schema = schema.with_metadata({f"featray.{k}": v for k, v in facts.items()})
        self._waiting: list[pa.Table] = []
        self._waiting_rows = self._waiting_text = 0
        self._measured: list[int] = []
        self._writer: pq.ParquetWriter | None = None
        self._local = ""
        self._rows = 0
        self.files: list[CommittedFile] = []

    def measure_texts(self) -> None:
        """End row groups early where texts are large; not done otherwise, since it costs a sixth of a compaction."""
        self._measured = [place for place, field in enumerate(self.schema) if pa.types.is_string(field.type)]

    def write(self, rows: pa.Table) -> None:
        """Add rows, which must be in sort order and have the table's columns."""
        if not rows.num_rows:
            return
        rows = rows.select(self.schema.names).cast(self.schema)
        self._waiting.append(rows)
        self._waiting_rows += rows.num_rows
        self._waiting_text += self._text_bytes(rows)
        while self._waiting_rows >= ROWS_A_GROUP[self.table]:
            self._write_group(ROWS_A_GROUP[self.table])
        if self._waiting_text > _GROUP_TEXT:
            self._write_group(self._waiting_rows)

    def write_rows(self, rows: list[dict[str, Any]]) -> None:
        """Add rows given as dictionaries; missing keys are null."""
        self.write(pa.Table.from_pylist(rows, schema=self.schema))

    def close(self) -> list[CommittedFile]:
        """Write the remaining rows, upload the last file and return the files in order; none if there are no rows."""
        if self._waiting_rows:
            self._write_group(self._waiting_rows)
        if self._writer is not None:
            self._finish_file()
        return self.files

    def abandon(self) -> None:
        """Discard the unfinished file."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(OSError):  # a full disk: another error is being raised already
                writer.close()
            os.unlink(self._local)

    def _text_bytes(self, rows: pa.Table) -> int:
        return sum(rows.column(place).nbytes for place in self._measured)

    def _write_group(self, rows: int) -> None:
        waiting = pa.concat_tables(self._waiting)
        if self._writer is None:
            self._begin_file()
        assert self._writer is not None
        with scratch_errors(self._scratch):
            self._writer.write_table(waiting.slice(0, rows), row_group_size=rows)
        self._rows += rows
        self._waiting = [waiting.slice(rows)] if rows < self._waiting_rows else []
        self._waiting_rows -= rows
        self._waiting_text = sum(map(self._text_bytes, self._waiting))
        if os.path.getsize(self._local) >= FILE_BYTES:
            self._finish_file()

    def _begin_file(self) -> None:
        self._local = os.path.join(self._scratch, f"{self.table}-{self._stem}-{len(self.files):03d}.parquet")
        columns = self.schema.names
        sorting = [pq.SortingColumn(columns.index(name)) for name in SORT_KEYS[self.table]]
        # Each row group has few videos, but ids are random, so statistics exclude little; a Bloom filter does.
        bloom = {"video_id": {"ndv": 4096, "fpp": 0.01}} if "video_id" in columns else None
        with scratch_errors(self._scratch):
            self._writer = pq.ParquetWriter(
                self._local,
                self.schema,
                compression="zstd",
                write_statistics=True,
                write_page_checksum=True,
                write_page_index=True,
                sorting_columns=sorting,
                bloom_filter_options=bloom,
                use_dictionary=[f.name for f in self.schema if pa.types.is_string(f.type)],
            )
        self._rows = 0

    def _finish_file(self) -> None:
        assert self._writer is not None
        with scratch_errors(self._scratch):
            self._writer.close()
        self._writer = None
        place = self._folder.child(f"{self._stem}-{len(self.files):03d}.parquet")
        size_bytes, digest = os.path.getsize(self._local), _sha256(self._local)
        self._partition.check()
        upload(self._local, place)
        path = self._partition.output.relative(place.path)
        self.files.append(CommittedFile(self.table, path, self._rows, size_bytes, digest))


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
