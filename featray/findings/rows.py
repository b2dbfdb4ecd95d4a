"""Findings. Read the rows of some videos from a commit's files, column by column.

A commit holds whole videos and its files are sorted. After a compaction, however, a table's files may overlap, and
other tables may be split at other videos. Rows are therefore located by video in each table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from featray.errors import OutputError
from featray.findings.samples import Floats


class Rows:
    """The rows of one table.

    Attributes:
        counts: number of rows of each video.
    """

    def __init__(self, files: Sequence[pq.ParquetFile]) -> None:
        self._files = files
        self._bounds = [_group_bounds(file) for file in files]
        self._places: dict[str, list[tuple[int, int, int]]] = {}
        for number, file in enumerate(files):
            for group in range(file.num_row_groups):
                self._note(number, self._bounds[number][group], file.read_row_group(group, columns=["video_id"]))
        self.counts = {video: sum(stop - start for _, start, stop in at) for video, at in self._places.items()}

    def _note(self, number: int, first: int, rows: pa.Table) -> None:
        ids = rows["video_id"].combine_chunks().dictionary_encode()
        ids = ids if isinstance(ids, pa.DictionaryArray) else ids.chunk(0)
        codes = ids.indices.to_numpy()
        starts = np.flatnonzero(np.concatenate([[True], codes[1:] != codes[:-1]]))[: len(codes)]
        names = ids.dictionary.to_pylist()
        for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(codes)], strict=True):
            self._places.setdefault(names[codes[start]], []).append((number, first + start, first + stop))

    def read(self, videos: Sequence[str], columns: list[str]) -> pa.Table:
        """Return columns of the rows of some videos, video by video; null if a file lacks the column."""
        pieces = list(self._pieces(videos, columns))
        return pa.concat_tables(pieces) if pieces else pa.table({name: pa.nulls(0) for name in columns})

    def pieces(self, videos: Sequence[str], column: str, most: int) -> Iterator[pa.ChunkedArray]:
        """Yield a column as `read` returns it, in pieces within a row group and of at most `most` rows."""
        for number, start, stop in self._ranges(videos):
            for group_start, group_stop in self._groups(number, start, stop):
                for first in range(max(start, group_start), min(stop, group_stop), most):
                    last = min(first + most, stop, group_stop)
                    yield self._slice(number, first, last, [column])[column]

    def _ranges(self, videos: Sequence[str]) -> Iterator[tuple[int, int, int]]:
        """Yield the ranges of the rows; adjacent ranges are joined."""
        held: tuple[int, int, int] | None = None
        for number, start, stop in (place for video in videos for place in self._places.get(video, [])):
            if held is not None and (held[0], held[2]) == (number, start):
                held = (number, held[1], stop)
                continue
            if held is not None:
                yield held
            held = (number, start, stop)
        if held is not None:
            yield held

    def _pieces(self, videos: Sequence[str], columns: list[str]) -> Iterator[pa.Table]:
        for number, start, stop in self._ranges(videos):
            yield self._slice(number, start, stop, columns)

    def _groups(self, number: int, start: int, stop: int) -> Iterator[tuple[int, int]]:
        bounds = self._bounds[number]
        for first, last in pairwise(bounds):
            if first < stop and last > start:
                yield first, last

    def _slice(self, number: int, start: int, stop: int, columns: list[str]) -> pa.Table:
        file, bounds = self._files[number], self._bounds[number]
        groups = [g for g in range(file.num_row_groups) if bounds[g] < stop and bounds[g + 1] > start]
        there = [name for name in columns if name in file.schema_arrow.names]
        rows = file.read_row_groups(groups, columns=there or ["video_id"]).replace_schema_metadata(None)
        rows = rows.slice(start - bounds[groups[0]], stop - start)
        for name in columns:
            if name not in there:
                rows = rows.append_column(name, pa.nulls(rows.num_rows, pa.float32()))
        return rows.select(columns)


def _group_bounds(file: pq.ParquetFile) -> list[int]:
    """Return the first row of each row group, and the end of the last one."""
    rows = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    return [0, *np.cumsum(rows).tolist()]


def floats(column: pa.ChunkedArray) -> Floats:
    """Return a column as float32 `[n]`, NaN where null."""
    values = column.cast(pa.float32())
    found: Floats = (values if not values.null_count else values.fill_null(float("nan"))).to_numpy()
    return found


def same_faces(one: Rows, other: Rows, videos: Sequence[str], table: str) -> None:
    """Raise unless two tables of faces have the same rows in the same order.

    Raises:
        OutputError: the rows differ.
    """
    keys = ["frame_index", "face_index"]
    if not one.read(videos, keys).equals(other.read(videos, keys)):
        raise OutputError(f"{table}: its rows differ from those of faces; run `featray verify`")
