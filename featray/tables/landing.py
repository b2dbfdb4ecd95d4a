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

import pyarrow as pa

from featray.errors import NotFound, OutputError
from featray.extract.plan import Outcome, VideoPlan
from featray.records import dump, load
from featray.schema import FRAMES_SCHEMA
from featray.store.storage import Location, delete, list_files, read_bytes, write_bytes

_HEADER = b"featray.landing"


@dataclass(frozen=True)
class PartHeader:
    """What stands at the head of a landed part.

    Attributes:
        video_id, work_key: of the video.
        unit, part: which part of which unit.
        run_id: the run that made it.
        attempt: of the unit.
        at_us: when it landed, microseconds since the epoch, UTC.
        outcome: only in a unit's last part.
    """

    video_id: str
    work_key: str
    unit: int
    part: int
    run_id: str
    attempt: int
    at_us: int
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
    """The plan that landed, or None."""
    try:
        return load(VideoPlan, read_bytes(folder.child("plan.json")))
    except NotFound:
        return None


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
        faces: its rows of LANDED_SCHEMA.
        frames: its rows of FRAMES_SCHEMA.
        lost: whether it stands for a unit that gave no result and was given up.
    """
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    described = faces.schema.with_metadata({_HEADER: dump(header)})
    with pa.ipc.new_stream(sink, described, options=options) as stream:
        stream.write_table(faces.cast(described))
    with pa.ipc.new_stream(sink, FRAMES_SCHEMA, options=options) as stream:
        stream.write_table(frames)
    ending = "-lost" if lost else "-last" if header.outcome is not None else ""
    name = f"u{header.unit:06d}-p{header.part:04d}{ending}.arrow"
    write_bytes(folder.child(name), sink.getvalue().to_pybytes())


def read_part(location: Location) -> Part:
    """Read a landed part."""
    source = pa.BufferReader(read_bytes(location))
    try:
        with pa.ipc.open_stream(source) as stream:
            faces = stream.read_all()
        header = load(PartHeader, faces.schema.metadata[_HEADER])
        with pa.ipc.open_stream(source) as stream:
            frames = stream.read_all()
    except (pa.ArrowInvalid, KeyError, TypeError, ValueError) as error:
        raise OutputError(f"{location.uri}: damaged landing file ({error}); delete it and run again") from None
    for field in FRAMES_SCHEMA:  # of an older version, which did not have it
        if field.name not in frames.schema.names:
            frames = frames.append_column(field, pa.nulls(frames.num_rows, field.type))
    return Part(header, faces.replace_schema_metadata(None), frames)


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
