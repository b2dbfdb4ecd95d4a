"""Tables. The landing area: results of units, one atomic PUT a part, which is also the resume ledger.

A video's landing folder holds `plan.json` and, for each unit, parts `u<unit>-p<part>.arrow`;
the last part of a unit ends in `-last.arrow` and brings its outcome. A unit is done when a last
part and all before it are there; of several such, the one furthest on counts. A unit that a run gave up
has one part that ends in `-lost.arrow`: that run publishes it as a failure, a later run does the unit again. A part is
two Arrow streams, faces then frames, in one object; the header is the first stream's metadata.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from featray.errors import NotFound, OutputError
from featray.extract.plan import Outcome, VideoPlan, check_failures, parse_plan
from featray.records import Count, Micros, RecordName, SmallCount, VideoId, WorkKey, dump, load
from featray.schema import EMBEDDED_SCHEMA, FRAMES_SCHEMA, LANDED_SCHEMA
from featray.store.storage import Location, delete, list_files, read_record, write_bytes
from featray.tables.unfolded import unfolded
from featray.video.repeats import DIGEST_BYTES
from featray.video.shots import THUMBNAIL_BYTES

_HEADER = b"featray.landing"

_COMPRESSED_FROM_BYTES: Final = 128 << 10
_NEVER_NULL = {"frame_index", "faces", "box_x1", "box_y1", "box_x2", "box_y2"}
_MOST_BYTES: Final = 512 << 20
_MOST_ROWS: Final = 1 << 20
"""A part is of one chunk, whose chips have some 64 MB, and of one unit; its rows take a few."""
DAMAGED_PART = "damaged; delete its folder, and the next run does this video again"


@dataclass(frozen=True)
class PartHeader:
    """The header of a landed part.

    Attributes:
        video_id, work_key: of the video.
        unit, part: which part of which unit.
        run_id: the run that made it.
        attempt: of the unit.
        at_us: when it landed, microseconds since the epoch, UTC.
        outcome: only in a unit's last part.
    """

    video_id: VideoId
    work_key: WorkKey
    unit: Count
    part: Count
    run_id: RecordName
    attempt: SmallCount
    at_us: Micros
    outcome: Outcome | None = None


@dataclass(frozen=True)
class Part:
    """A landed part."""

    header: PartHeader
    faces: pa.Table
    frames: pa.Table

    @property
    def outcome(self) -> Outcome:
        """The unit's outcome; only a last part has one."""
        if self.header.outcome is None:
            raise OutputError(f"landing of video {self.header.video_id}: part {self.header.part} has no outcome")
        return self.header.outcome


def write_plan(folder: Location, plan: VideoPlan) -> None:
    """Land a video's plan."""
    write_bytes(folder.child("plan.json"), dump(plan))


def read_plan(folder: Location) -> VideoPlan | None:
    """The plan that landed, or None.

    Raises:
        OutputError: it is damaged.
    """
    place = folder.child("plan.json")
    try:
        return parse_plan(read_record(place))
    except NotFound:
        return None
    except ValueError:
        raise OutputError(f"{place.uri}: {DAMAGED_PART}") from None


def forget_units(folder: Location) -> None:
    """Delete what has landed of a video's units: it is of another plan than the one that is made now."""
    for path in list_files(folder):
        if path.endswith(".arrow"):
            delete(folder.child(path.rsplit("/", 1)[-1]))


def write_part(folder: Location, header: PartHeader, faces: pa.Table, frames: pa.Table, *, lost: bool = False) -> None:
    """Land one part: one object, written atomically. Writing it again gives the same rows.

    Args:
        folder: of the video's work.
        header: which part it is.
        faces: its rows of LANDED_SCHEMA, followed by EMBEDDED_SCHEMA where embeddings are made.
        frames: its rows of FRAMES_SCHEMA.
        lost: whether it stands for a unit that gave no result and was given up.
    """
    sink = pa.BufferOutputStream()
    # Each column is compressed on its own, and of a few rows of 200 columns that takes most of the time to land them.
    small = faces.nbytes + frames.nbytes < _COMPRESSED_FROM_BYTES
    options = pa.ipc.IpcWriteOptions(compression=None if small else "zstd")
    described = faces.schema.with_metadata({_HEADER: dump(header)})
    with pa.ipc.new_stream(sink, described, options=options) as stream:
        stream.write_table(faces.cast(described))
    with pa.ipc.new_stream(sink, FRAMES_SCHEMA, options=options) as stream:
        stream.write_table(frames)
    ending = "-lost" if lost else "-last" if header.outcome is not None else ""
    name = f"u{header.unit:06d}-p{header.part:04d}{ending}.arrow"
    write_bytes(folder.child(name), sink.getvalue().to_pybytes())


def read_part(location: Location) -> Part:
    """Read a landed part.

    Raises:
        OutputError: it is damaged, or not of this kind.
    """
    source = pa.BufferReader(read_record(location, _MOST_BYTES))
    try:
        for _ in range(2):
            rows, size_bytes = unfolded(source)
            if rows > _MOST_ROWS or size_bytes > _MOST_BYTES:
                raise ValueError("asks for more memory than any part")
        source.seek(0)
        with pa.ipc.open_stream(source) as stream:
            faces = stream.read_all()
        header = load(PartHeader, faces.schema.metadata[_HEADER])
        check_failures(header.outcome.failures if header.outcome else [])
        with pa.ipc.open_stream(source) as stream:
            frames = stream.read_all()
        landed = _whole_schema(faces)
        return Part(header, _checked(faces, landed), _checked_frames(frames))
    # Arrow calls a stream that is cut off an OSError
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError):
        raise OutputError(f"{location.uri}: {DAMAGED_PART}") from None


def _whole_schema(faces: pa.Table) -> pa.Schema:
    """Return what the faces of a part have to have: with embeddings where it has some."""
    if "embedding" not in faces.column_names:
        return LANDED_SCHEMA
    return pa.schema([*LANDED_SCHEMA, *EMBEDDED_SCHEMA])


def _checked(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows, if they are what a schema says; ValueError if they are not. Columns that came later are null."""
    rows.validate(full=True)  # offsets and lengths, which nothing checks as they are read
    there = set(rows.column_names)  # a list that Arrow makes each time
    for column in schema:
        if column.name not in there:
            rows = rows.append_column(column, pa.nulls(rows.num_rows, column.type))
    rows = rows.select(schema.names).cast(schema).replace_schema_metadata(None)
    for name in _NEVER_NULL.intersection(schema.names):
        if rows[name].null_count:
            raise ValueError(f"{name} is null")
    return rows


def _checked_frames(frames: pa.Table) -> pa.Table:
    frames = _checked(frames, FRAMES_SCHEMA)
    for name, size in (("thumbnail", THUMBNAIL_BYTES), ("digest", DIGEST_BYTES)):
        if set(pc.unique(pc.binary_length(frames[name])).to_pylist()) - {None, size}:
            raise ValueError(f"a {name} of another size")
    if pc.any(pc.and_(pc.is_null(frames["pts_us"]), pc.is_null(frames["source_name"]))).as_py():
        raise ValueError("pts_us is null")  # but of a picture, which need not have a time
    return frames


def landed_units(folder: Location, *, with_lost: bool = False) -> dict[int, list[str]]:
    """Units that landed whole, with the names of their parts in order.

    Args:
        folder: of the video's work.
        with_lost: whether units that were given up are among them, unless they landed after all.
    """
    parts: dict[int, dict[int, str]] = {}
    ends: dict[int, dict[int, str]] = {}
    lost: dict[int, list[str]] = {}
    for path in list_files(folder):
        name = path.rsplit("/", 1)[-1]
        match = re.fullmatch(r"u(\d+)-p(\d+)(-last|-lost)?\.arrow", name)
        if match and match[3] == "-lost":
            lost[int(match[1])] = [name]
        elif match and match[3]:
            ends.setdefault(int(match[1]), {})[int(match[2])] = name
        elif match:
            parts.setdefault(int(match[1]), {})[int(match[2])] = name
    whole = {}
    for unit, finals in sorted(ends.items()):
        before = parts.get(unit, {})
        # One attempt may land its last part and lose one before it, and a later one end earlier, with a failure.
        if reached := [final for final in finals if all(part in before for part in range(final))]:
            whole[unit] = [*(before[part] for part in range(max(reached))), finals[max(reached)]]
    return {**lost, **whole} if with_lost else whole
