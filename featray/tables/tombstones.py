"""Tables. Records of what was erased and must not come back: one small object per video.

    _featray/erased/<video_id>.json     {"video_id": ..., "erasures": [{...}, ...]}

The record is written before anything is deleted, so an interrupted erasure is known. It is
deleted when the user allows the video again. It contains neither URI nor content.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field

from featray.errors import NotFound, OutputError
from featray.records import Micros, RecordName, VideoId, dump, load
from featray.store.location import Location
from featray.store.storage import delete, list_files, read_record, write_bytes
from featray.tables.layout import Output, Partition


@dataclass(frozen=True)
class Erasure:
    """One requested erasure, which may not be finished.

    Attributes:
        erasure_id: names its commits and its row in `erasures`.
        video_id: the erased video.
        track_id: the erased track, or None for the whole video.
        release: the affected release, or None for all.
        at_us: time of the request, microseconds since the epoch, UTC.
        reason: reason given by the user.
        done: whether every step is finished.
    """

    erasure_id: RecordName
    video_id: VideoId
    track_id: Annotated[int, Field(ge=0, lt=1 << 31)] | None
    release: str | None
    at_us: Micros
    reason: str | None = None
    done: bool = False

    def same_as(self, other: Erasure) -> bool:
        """Return whether it requests the same erasure."""
        return (self.track_id, self.release) == (other.track_id, other.release)

    @property
    def command(self) -> str:
        """Return the command that finishes or repeats exactly this erasure."""
        track = "" if self.track_id is None else f" --track {self.track_id}"
        release = "" if self.release is None else f" --release {shlex.quote(self.release)}"
        return f"featray erase OUT --video {self.video_id}{track}{release}"

    def blocks(self, release: str) -> bool:
        """Return whether it blocks the video in a release; an erased track blocks all releases, because ids change."""
        return self.track_id is not None or self.release in (None, release)


@dataclass(frozen=True)
class _Erasures:
    """The stored erasures of a video."""

    video_id: VideoId
    erasures: list[Erasure]


def parse_erasures(video_id: str, text: bytes) -> list[Erasure]:
    """Parse the erasures stored under a video's id.

    Raises:
        ValueError: the record is damaged or belongs to another video.
    """
    stored = load(_Erasures, text)
    if {stored.video_id, *(erasure.video_id for erasure in stored.erasures)} != {video_id}:
        raise ValueError("is of another video")
    return stored.erasures


def read_erasures(output: Output, video_id: str) -> list[Erasure]:
    """Return what has been erased of a video, oldest first.

    Raises:
        OutputError: the record is damaged.
    """
    place = place_of_erasures(output, video_id)
    try:
        return parse_erasures(video_id, read_record(place))
    except NotFound:
        return []
    except ValueError:
        fix = (
            f"delete it, then run `featray erase OUT --video {video_id}`, with --track if only a track was to be erased"
        )
        raise OutputError(f"{place.uri}: damaged record of an erasure; {fix}") from None


def note_erasure(output: Output, erasure: Erasure) -> None:
    """Store an erasure, replacing the one with the same id if there is one."""
    known = [e for e in read_erasures(output, erasure.video_id) if e.erasure_id != erasure.erasure_id]
    _write(output, erasure.video_id, [*known, erasure])


def finish_erasure(output: Output, erasure: Erasure) -> None:
    """Mark an erasure as finished."""
    note_erasure(output, replace(erasure, done=True))


def allow_again(output: Output, video_id: str) -> bool:
    """Delete the record of a video's erasures, so that the next run may process it; return whether there was one."""
    known = bool(read_erasures(output, video_id))
    delete(place_of_erasures(output, video_id))
    return known


def erased_videos(output: Output) -> list[str]:
    """Return the ids of all videos with erasures; ignore other files in the folder."""
    names = (path.rsplit("/", 1)[-1] for path in list_files(place_of_erasures(output)))
    return [name.removesuffix(".json") for name in names if re.fullmatch(r"[0-9a-f]{16}\.json", name)]


class Blocked:
    """Tells whether a video is blocked in a partition. Reads only the records of the videos it is asked about."""

    def __init__(self, partition: Partition) -> None:
        self._partition = partition
        self._known = set(erased_videos(partition.output))

    def __contains__(self, video_id: str) -> bool:
        return bool(self.blocking(video_id))

    def blocking(self, video_id: str) -> list[Erasure]:
        """Return the erasures of a video if any of them blocks it in the partition, else none; oldest first."""
        if video_id not in self._known:
            return []
        erasures = read_erasures(self._partition.output, video_id)
        return erasures if any(one.blocks(self._partition.release) for one in erasures) else []


def _write(output: Output, video_id: str, erasures: list[Erasure]) -> None:
    write_bytes(place_of_erasures(output, video_id), dump(_Erasures(video_id, erasures)))


def place_of_erasures(output: Output, video_id: str = "") -> Location:
    """Return the location of a video's record of erasures, or of the folder of records."""
    return output.internal("erased", f"{video_id}.json" if video_id else "")
