"""Upkeep. Delete exports that were written into the output itself and contain erased rows.

Only files whose columns are those of an export are deleted; all other files are left alone.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import IO, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from featray.errors import OutputError
from featray.schema import ALL_TABLES
from featray.store.failures import storage_errors
from featray.store.location import Location
from featray.store.storage import delete, list_files, open_ranges
from featray.tables.layout import INTERNAL, Output

_EXPORTED: Final = frozenset({"dataset", "release", "video_id"})
"""Columns of every export that names its videos."""

_HEADER_BYTES: Final = 1 << 16
_PIECE_BYTES: Final = 1 << 20
_BATCH_ROWS: Final = 8192


def erase_exports(output: Output, video_id: str) -> list[str]:
    """Delete exports inside the output that hold rows of a video; return their paths relative to its root."""
    gone = []
    for path in _others(output):
        place = output.root.child(path)
        if not _is_file(place):
            continue
        if (path.endswith(".csv") and _csv_holds(place, video_id)) or (
            path.endswith(".parquet") and _parquet_holds(place, video_id)
        ):
            delete(place)
            gone.append(path)
    return gone


def unsearched_files(output: Output) -> list[str]:
    """Return the files beside the tables in which `erase_exports` finds no video: pages, pictures, clips, recordings.

    Also exports for OpenFace, which contain no id. Paths are relative to the output's root.
    """
    found = []
    for path in _others(output):
        place, suffix = output.root.child(path), path.rpartition(".")[2].lower()
        if suffix in _UNSEARCHED or not _is_file(place) or (suffix == "csv" and _is_for_openface(place)):
            found.append(path)
    return sorted(found)


_UNSEARCHED: Final = frozenset("html eaf textgrid rrd png jpg jpeg mp4".split())
"""Suffixes of what featray writes about videos, other than CSV and Parquet."""


_OF_OPENFACE: Final = b"intensity_scale"
"""The column that featray adds to OpenFace's."""


def _is_for_openface(place: Location) -> bool:
    with storage_errors(place.uri), open_ranges(place) as file:
        return _OF_OPENFACE in file.readline(_HEADER_BYTES)


def _is_file(place: Location) -> bool:
    """Return whether it is no pipe, no device, and no link that leads out of the output."""
    try:
        place.check_inside()
    except OutputError:
        return False
    return True


def _others(output: Output) -> Iterator[str]:
    with storage_errors(output.root.uri):
        entries = output.root.fs.ls(output.root.path, detail=True)
    for entry in entries:
        path = output.relative(entry["name"].rstrip("/"))
        if path in (*ALL_TABLES, INTERNAL):
            continue
        if entry["type"] == "directory":
            yield from map(output.relative, list_files(output.root.child(path)))
        else:
            yield path


def _csv_holds(place: Location, video_id: str) -> bool:
    with storage_errors(place.uri), open_ranges(place) as file:
        head = file.readline(_HEADER_BYTES)
        try:
            columns = next(csv.reader([head.decode("utf-8-sig", "replace")]), [])
        except csv.Error:  # a carriage return within the line, as in files of old Macs: no export
            return False
        return _EXPORTED.issubset(columns) and _is_in(file, video_id.encode())


def _is_in(file: IO[bytes], text: bytes) -> bool:
    """Search in pieces: a line of somebody else's file can be longer than the memory."""
    before = b""
    while piece := file.read(_PIECE_BYTES):
        if text in before + piece:
            return True
        before = piece[1 - len(text) :]
    return False


def _parquet_holds(place: Location, video_id: str) -> bool:
    try:
        with storage_errors(place.uri), open_ranges(place) as source:
            opened = pq.ParquetFile(source)
            if not _EXPORTED.issubset(opened.schema_arrow.names):
                return False
            batches = opened.iter_batches(_BATCH_ROWS, columns=["video_id"])
            return any(pc.any(pc.equal(rows["video_id"], video_id)).as_py() for rows in batches)
    # not a Parquet file, whatever its name; KeyError: it has the column twice
    except (pa.ArrowException, ValueError, KeyError):
        return False
