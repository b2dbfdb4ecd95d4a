"""Extract. Plan a video: read its header and cut it into units.

A `VideoPlan` is made once per video and lands before its units are processed, so that a
resumed run cuts the video exactly as the previous run did.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from typing_extensions import TypedDict

from featray.config import DecodeConfig
from featray.errors import RETRYABLE, ErrorCode, StorageError, VideoError
from featray.extract.sequences import PictureReader, cut_sequence
from featray.records import SmallCount, SummedCount, load
from featray.sources.containers import read_member
from featray.sources.listing import Video
from featray.store.failures import explain, transport_errors, unreadable_code
from featray.store.location import Location, locate
from featray.store.storage import fetched_bytes, open_ranges
from featray.video.container import Header, open_video, parse_time_base, read_header
from featray.video.scan import scan_packets
from featray.video.units import WHOLE_VIDEO, Unit, cut_units, needs_scan

MAX_VALUE_BYTES: Final = 1 << 30
"""Uncompressed size limit for the video column of one row group: the decoding process reads it whole."""


class Failure(NamedTuple):
    """A failure of a video or a unit; becomes a row of `errors`."""

    stage: str
    code: str
    message: str


@dataclass(frozen=True)
class VideoPlan:
    """The plan of a video: its header and its units, or the reason why planning failed.

    Attributes:
        header: the file's header; None if it could not be opened.
        units: at least one; a video that cannot be opened has one unit that fails.
        failure: why planning failed, else None.
        bytes_read: bytes fetched from storage for planning.
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
        work_key: work key of the video in this release.
        shard: the output shard that the video belongs to.
        unit: which part of the video.
        units: how many units the video has.
        attempt: counts from 1.
        failure: set if planning failed; nothing is decoded and the failure lands.
        landed_parts: number of parts that landed in an earlier run; if set, the unit is complete.
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
        resume: whether units may have landed already, so that the ledger must be read.
        replaces: the published shard that holds this video's older rows, if there are any.
    """

    video: Video
    work_key: str
    shard: str
    attempt: int = 1
    resume: bool = False
    replaces: str | None = None

    def units(self, plan: VideoPlan, landed: dict[int, int]) -> Iterator[UnitTask]:
        """Yield the unit tasks of the plan; `landed` maps the index of a complete unit to its number of parts."""
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
"""Videos in batches, as the listing yields them."""


class Picture(TypedDict, total=False):
    """The stored form of a video's frames, as columns of `videos`."""

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
    """The outcome of a unit, partial or final; lands with its last part.

    Attributes:
        frames_decoded, frames_sampled: frame counts of the unit.
        frames_detected: frames given to the detector; fewer than sampled with detect.every or where frames repeat.
        bytes_read: bytes fetched from storage.
        picture: properties of the first frame, and whether any frame was squared or tone-mapped; empty if none was
            decoded.
        failures: failures, in the order they happened.
        seconds: time spent, by stage.
    """

    frames_decoded: SummedCount = 0
    frames_sampled: SummedCount = 0
    frames_detected: SummedCount = 0
    bytes_read: SummedCount = 0
    picture: Picture = field(default_factory=Picture)
    failures: list[Failure] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Return whether the unit failed and gave no frame."""
        return bool(self.failures) and not self.frames_decoded

    @property
    def told_failure(self) -> Failure | None:
        """Return the failure that stands for all: one that may be temporary if there is one, else the first."""
        return next((one for one in self.failures if one.code in RETRYABLE), next(iter(self.failures), None))


def parse_plan(data: bytes) -> VideoPlan:
    """Parse a plan that `records.dump` wrote as JSON.

    Raises:
        ValueError: it is damaged, its units are not consecutive, or its failure has an unknown code.
    """
    plan = load(VideoPlan, data)
    if not plan.units or [unit.index for unit in plan.units] != list(range(len(plan.units))):
        raise ValueError("units are not consecutive")
    check_failures([plan.failure] if plan.failure else [])
    return plan


def check_failures(failures: list[Failure]) -> None:
    """Raise ValueError if a failure from an untrusted source has a code outside the closed list."""
    if unknown := {failure.code for failure in failures} - set(ErrorCode):
        raise ValueError(f"{len(unknown)} unknown codes")


def plan_video(
    video: Video,
    settings: DecodeConfig,
    storage_options: dict[str, Any],
    stride: int = 1,
    location: Location | None = None,
) -> VideoPlan:
    """Read a video's header, scan its packets if it may be long, and cut it into units.

    Never raises for a bad video: its plan has one unit and the reason for the failure.

    Args:
        video: the video to plan.
        settings: decoding settings.
        storage_options: options for opening the video.
        stride: `detect.every`; units begin at sampled frames whose number is a multiple of it.
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

    `location`, if given, replaces the video's address: the child reads through its parent, which has network access.

    Raises:
        VideoError: the storage failed, or the video is too large.
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
