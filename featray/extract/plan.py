"""Extract. From a video to its units: what is to be done, as records that travel and that land.

A `VideoPlan` is made once a video and lands before its units are worked on, so that a
resumed run cuts the video exactly as the run before it did.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from typing_extensions import TypedDict

from featray.config import DecodeConfig
from featray.errors import ErrorCode, StorageError, VideoError
from featray.extract.sequences import PictureReader, cut_sequence
from featray.records import SmallCount, SummedCount, load
from featray.sources.containers import read_member
from featray.sources.listing import Video
from featray.store.storage import (
    Location,
    explain,
    fetched_bytes,
    locate,
    open_ranges,
    transport_errors,
    unreadable_code,
)
from featray.video.container import Header, open_video, parse_time_base, read_header
from featray.video.scan import scan_packets
from featray.video.units import WHOLE_VIDEO, Unit, cut_units, needs_scan

MAX_VALUE_BYTES: Final = 1 << 30
"""Of one row group's column of videos, uncompressed: it is read whole, in the decoding process."""


class Failure(NamedTuple):
    """A failure of a video or a unit; becomes a row of `errors`."""

    stage: str
    code: str
    message: str


@dataclass(frozen=True)
class VideoPlan:
    """The plan of a video: its header and its units, or why there is none.

    Attributes:
        header: what the file's header says; None if it could not be opened.
        units: at least one; a video that cannot be opened has one unit that fails.
        failure: why it cannot be worked on, else None.
        bytes_read: fetched from the storage to find that out.
    """

    header: Header | None
    units: tuple[Unit, ...]
    failure: Failure | None = None
    bytes_read: SummedCount = 0


@dataclass(frozen=True)
class UnitTask:
    """One unit of one video, on its way through the pipeline.

    Attributes:
        video: which video.
        work_key: of the video in this release.
        shard: the output shard that the video belongs to.
        unit: which part of the video.
        units: how many units the video has.
        attempt: counts from 1.
        failure: set if planning failed: nothing is decoded, the failure lands.
        landed_parts: parts of this unit that landed in an earlier run; if set, it is complete.
    """

    video: Video
    work_key: str
    shard: str
    unit: Unit
    units: int
    attempt: int
    failure: Failure | None = None
    landed_parts: int = 0


@dataclass(frozen=True)
class VideoTask:
    """One video on its way into the pipeline.

    Attributes:
        resume: whether parts of it may have landed already, so that the ledger has to be asked.
        replaces: the published shard that holds this video's older rows, if there are any.
    """

    video: Video
    work_key: str
    shard: str
    attempt: int = 1
    resume: bool = False
    replaces: str | None = None

    def units(self, plan: VideoPlan, landed: dict[int, int]) -> Iterator[UnitTask]:
        """The unit tasks of the plan; `landed` gives the number of parts of units that are complete."""
        for unit in plan.units:
            yield UnitTask(
                video=self.video,
                work_key=self.work_key,
                shard=self.shard,
                unit=unit,
                units=len(plan.units),
                attempt=self.attempt,
                failure=plan.failure,
                landed_parts=landed.get(unit.index, 0),
            )


Pages = Iterator[list[VideoTask]]
"""Videos as a listing hands them on, some at a time."""


class Picture(TypedDict, total=False):
    """How the frames of a video are stored, as columns of `videos`."""

    width: SmallCount
    height: SmallCount
    rotation: SmallCount
    mirrored: bool
    sar: str | None
    squared: bool
    transfer: str | None
    tone_mapped: bool


@dataclass
class Outcome:
    """The outcome of a unit, final or so far; lands with its last part.

    Attributes:
        frames_decoded, frames_sampled: counts of the unit.
        frames_detected: frames that the detector saw: fewer than were sampled with detect.every, and where they repeat.
        bytes_read: fetched from the storage.
        picture: of its first frame, and whether any was squared or tone-mapped; empty if none was decoded.
        failures: what went wrong, in order.
        seconds: time spent, by stage.
    """

    frames_decoded: SummedCount = 0
    frames_sampled: SummedCount = 0
    frames_detected: SummedCount = 0
    bytes_read: SummedCount = 0
    picture: Picture = field(default_factory=Picture)
    failures: list[Failure] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


def parse_plan(data: bytes) -> VideoPlan:
    """Return the plan that `records.dump` made JSON of.

    Raises:
        ValueError: it is damaged, or its units do not follow each other, or its failure has an unknown code.
    """
    plan = load(VideoPlan, data)
    if not plan.units or [unit.index for unit in plan.units] != list(range(len(plan.units))):
        raise ValueError("units that do not follow each other")
    check_failures([plan.failure] if plan.failure else [])
    return plan


def check_failures(failures: list[Failure]) -> None:
    """Check failures that were read from elsewhere; ValueError if a code is none of the closed list."""
    if unknown := {failure.code for failure in failures} - set(ErrorCode):
        raise ValueError(f"{len(unknown)} unknown codes")


def plan_video(
    video: Video,
    settings: DecodeConfig,
    storage_options: dict[str, Any],
    stride: int = 1,
    location: Location | None = None,
) -> VideoPlan:
    """Read a video's header, list its packets if it may be long, and cut it into units.

    Never raises for a bad video: the plan then has one unit and says why it fails.

    Args:
        video: which one.
        settings: of decoding.
        storage_options: to open it with.
        stride: units meet at sampled frames that are a multiple of this, `detect.every`.
        location: as for `open_source`.
    """
    if video.problem:
        return VideoPlan(None, WHOLE_VIDEO, Failure("plan", *video.problem))
    try:
        if video.sequence is not None:
            location = location or _locate(video, storage_options)
            return VideoPlan(*cut_sequence(video, location, settings, stride))
        with (
            open_source(video, storage_options, location) as file,
            open_video(file, max_pixels=settings.max_pixels) as (container, stream),
        ):
            header = read_header(container, stream)
            if not needs_scan(header, settings.sample, settings.unit_frames):
                return VideoPlan(header, WHOLE_VIDEO, bytes_read=fetched_bytes(file))
            index = scan_packets(container, stream)
            bytes_read = fetched_bytes(file)
        time_base = parse_time_base(header.time_base)
        units = cut_units(index, time_base, settings.sample, settings.unit_frames, stride)
        return VideoPlan(header, units, bytes_read=bytes_read)
    except VideoError as error:
        return VideoPlan(None, WHOLE_VIDEO, Failure("plan", error.code, str(error)))
    except StorageError as error:
        return VideoPlan(None, WHOLE_VIDEO, Failure("plan", unreadable_code(error), str(error)))
    except MemoryError:
        return VideoPlan(
            None, WHOLE_VIDEO, Failure("plan", ErrorCode.OUT_OF_MEMORY, "its header needs too much memory")
        )
    except transport_errors() as error:
        return VideoPlan(None, WHOLE_VIDEO, Failure("plan", unreadable_code(error), f"{video.uri}: {explain(error)}"))


def open_source(video: Video, storage_options: dict[str, Any], location: Location | None = None) -> Any:
    """Open a video's bytes as a seekable file, or a sequence as a `PictureReader`.

    A storage failure becomes a VideoError about this video.

    `location` is where its object is read in place of its address: by the process that may use the network.
    """
    try:
        location = location or _locate(video, storage_options)
        if video.sequence is not None:
            return PictureReader(video, location)
        if video.place:
            return read_member(location, video.place, MAX_VALUE_BYTES)
        return open_ranges(location, size_bytes=video.size_bytes if video.size_bytes >= 0 else None)
    except StorageError as error:
        raise VideoError(str(error), code=unreadable_code(error)) from None
    except MemoryError as error:
        raise VideoError(f"{video.uri}: {error}", code=ErrorCode.TOO_LARGE) from None


def _locate(video: Video, storage_options: dict[str, Any]) -> Location:
    return locate(video.address, storage_options if video.takes_options else {})
