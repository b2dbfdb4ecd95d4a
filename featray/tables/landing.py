"""Tables. The landing area: the results of units, one atomic PUT per part. It is also the resume ledger.

A video's landing folder has `plan.json` and, for each unit, parts `u<unit>-p<part>.arrow`. The last
part of a unit ends in `-last.arrow` and contains its outcome. A unit is done when a last part and all
parts before it exist; if there are several last parts, the one with the highest number counts. A unit
that a run gave up has one part that ends in `-lost.arrow`: that run publishes it as a failure, and a
later run processes the unit again. A part is one object with two Arrow streams, faces then frames; the
header is in the first stream's metadata.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from featray.errors import NotFound, OutputError
from featray.extract.plan import Outcome, VideoPlan, check_failures, parse_plan
from featray.names import MESH_VERTICES
from featray.records import Count, Micros, RecordName, SmallCount, VideoId, WorkKey, dump, load
from featray.schema import EMBEDDED_SCHEMA, FRAMES_SCHEMA, LANDED_SCHEMA
from featray.store.location import Location
from featray.store.storage import delete, list_files, read_record, write_bytes
from featray.tables.unfolded import unfolded
from featray.video.repeats import DIGEST_BYTES
from featray.video.shots import THUMBNAIL_BYTES

_HEADER = b"featray.landing"

_COMPRESSED_FROM_BYTES: Final = 128 << 10
_NEVER_NULL = {"frame_index", "faces", "box_x1", "box_y1", "box_x2", "box_y2"}
_LENGTHS: Final = {"mesh_xyz": 3 * MESH_VERTICES, "landmarks5": 10}
_MOST_BYTES: Final = 512 << 20
_MOST_ROWS: Final = 1 << 20
"""A part is one chunk of one unit. The chips of a chunk have some 64 MB, its rows a few."""
DAMAGED_PART = "damaged; delete its folder, and the next run processes this video again"


@dataclass(frozen=True)
class PartHeader:
    """The header of a landed part.

    Attributes:
        video_id, work_key: id and work key of the video.
        unit, part: numbers of the unit and the part.
        run_id: the run that made it.
        attempt: attempt at the unit.
        at_us: time of landing, microseconds since the epoch, UTC.
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
        """Return the unit's outcome; only a last part has one."""
        if self.header.outcome is None:
            raise OutputError(f"video {self.header.video_id}: landed part {self.header.part} has no outcome")
        return self.header.outcome


def write_plan(folder: Location, plan: VideoPlan) -> None:
    """Land a video's plan."""
    write_bytes(folder.child("plan.json"), dump(plan))


def read_plan(folder: Location) -> VideoPlan | None:
    """Return the plan that landed, or None.

    Raises:
        OutputError: the plan is damaged.
    """
    place = folder.child("plan.json")
    try:
        return parse_plan(read_record(place))
    except NotFound:
        return None
    except ValueError:
        raise OutputError(f"{place.uri}: {DAMAGED_PART}") from None


def forget_units(folder: Location) -> None:
    """Delete the landed parts of a video's units, because they belong to an older plan."""
    for path in list_files(folder):
        if path.endswith(".arrow"):
            delete(folder.child(path.rsplit("/", 1)[-1]))


def write_part(folder: Location, header: PartHeader, faces: pa.Table, frames: pa.Table, *, lost: bool = False) -> None:
    """Land one part as one object, written atomically. Writing it again gives the same rows.

    Args:
        folder: the video's landing folder.
        header: the part's header.
        faces: rows of LANDED_SCHEMA, followed by EMBEDDED_SCHEMA if embeddings are made.
        frames: rows of FRAMES_SCHEMA.
        lost: whether it stands for a unit that gave no result and was given up.
    """
    sink = pa.BufferOutputStream()
    # Columns are compressed one by one; for a few rows of 200 columns that is most of the time of landing.
    small = faces.nbytes + frames.nbytes < _COMPRESSED_FROM_BYTES
    options = pa.ipc.IpcWriteOptions(compression=None if small else "zstd")
    described = faces.schema.with_metadata({_HEADER: dump(header)})
    with pa.ipc.new_stream(sink, described, options=options) as stream:
        stream.write_table(faces.cast(described))
    with pa.ipc.new_stream(sink, FRAMES_SCHEMA, options=options) as stream:
        stream.write_table(frames)
    ending = "-lost" if lost else "-last" if header.outcome is not None else ""
    write_bytes(folder.child(_part_name(header.unit, header.part, ending)), sink.getvalue().to_pybytes())


def read_outcome(folder: Location, unit: int, last: int) -> Outcome:
    """Return the outcome of a landed unit, from its last part, number `last`.

    Raises:
        OutputError: the part is damaged.
    """
    return read_part(folder.child(_part_name(unit, last, "-last"))).outcome


def _part_name(unit: int, part: int, ending: str) -> str:
    return f"u{unit:06d}-p{part:04d}{ending}.arrow"


def read_part(location: Location) -> Part:
    """Read a landed part.

    Raises:
        OutputError: it is damaged or not a landed part.
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
    # Arrow raises OSError for a truncated stream
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError):
        raise OutputError(f"{location.uri}: {DAMAGED_PART}") from None


def _whole_schema(faces: pa.Table) -> pa.Schema:
    """Return the schema that the faces of a part must have, with embeddings if the part has some."""
    if "embedding" not in faces.column_names:
        return LANDED_SCHEMA
    return pa.schema([*LANDED_SCHEMA, *EMBEDDED_SCHEMA])


def _checked(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the rows if they match a schema, else raise ValueError. Columns of newer versions are filled with null."""
    rows.validate(full=True)  # offsets and lengths, which reading does not check
    there = set(rows.column_names)  # Arrow builds a new list at each access
    for column in schema:
        if column.name not in there:
            rows = rows.append_column(column, pa.nulls(rows.num_rows, column.type))
    rows = rows.select(schema.names).cast(schema).replace_schema_metadata(None)
    for name, length in _LENGTHS.items():
        if name in schema.names and set(pc.unique(pc.list_value_length(rows[name])).to_pylist()) - {None, length}:
            raise ValueError(f"{name} of another length")
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
        raise ValueError("pts_us is null")  # only pictures may have no time
    return frames


def landed_units(folder: Location, *, with_lost: bool = False) -> dict[int, list[str]]:
    """Return the complete units, with the names of their parts in order.

    Args:
        folder: the video's landing folder.
        with_lost: whether to include units that were given up and did not land later.
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
        # One attempt may land its last part but lose an earlier one, and a later attempt may fail and end earlier.
        if reached := [final for final in finals if all(part in before for part in range(final))]:
            whole[unit] = [*(before[part] for part in range(max(reached))), finals[max(reached)]]
    return {**lost, **whole} if with_lost else whole
