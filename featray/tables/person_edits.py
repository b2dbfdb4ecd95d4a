"""Tables. What people have said of who is who: edits of the table `persons`, which every clustering respects.

    _featray/edits/<dataset>/<release>/persons.json     {"edits": [{...}, ...]}

Edits name tracks, since ids of persons may change. They are written before the table is made anew, in one PUT: a kill
leaves an edit that the next `featray persons` applies. Whoever erases a track takes it out of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field

from featray.errors import NotFound, OutputError
from featray.records import SmallCount, VideoId, dump, load
from featray.store.storage import Location, delete, read_bytes, write_bytes
from featray.tables.layout import Partition
from featray.tables.lease import HeldPartition


@dataclass(frozen=True, order=True)
class NamedTrack:
    """A track of the release."""

    video_id: VideoId
    track_id: SmallCount


@dataclass(frozen=True)
class PersonEdit:
    """One edit.

    Attributes:
        kind: `merge`: the persons of these tracks are one. `split`: those of these tracks that are of the same person
            as `stays` are a person of their own.
        tracks: which ones; of a merge, one of each person.
        stays: of a split, a track of the person that they leave.
    """

    kind: Literal["merge", "split"]
    tracks: Annotated[list[NamedTrack], Field(min_length=1, max_length=1 << 16)]
    stays: NamedTrack | None = None

    def without(self, gone: set[NamedTrack]) -> PersonEdit | None:
        """Return the edit without some tracks; None if nothing is left of it."""
        tracks = [track for track in self.tracks if track not in gone]
        if len(tracks) < (2 if self.kind == "merge" else 1) or self.stays in gone:
            return None
        return replace(self, tracks=tracks)


@dataclass(frozen=True)
class _Edits:
    """All edits of a release, in the order in which they are applied."""

    edits: list[PersonEdit]


def parse_edits(text: bytes) -> list[PersonEdit]:
    """The edits of a record.

    Raises:
        ValueError: it is damaged, or an edit names no tracks that it could be about.
    """
    edits = load(_Edits, text).edits
    for edit in edits:
        if edit.kind == "merge" and (len(edit.tracks) < 2 or edit.stays is not None):
            raise ValueError("a merge needs two tracks")
        if edit.kind == "split" and (edit.stays is None or edit.stays in edit.tracks):
            raise ValueError("a split needs a track that stays")
    return edits


def read_edits(partition: Partition) -> list[PersonEdit]:
    """Return the edits of a release, oldest first.

    Raises:
        OutputError: the record is damaged.
    """
    place = _place(partition)
    try:
        return parse_edits(read_bytes(place))
    except NotFound:
        return []
    except ValueError:
        raise OutputError(
            f"{place.uri}: damaged record of edits of persons; put back a copy of it, or delete it and make them again "
            "with `featray persons OUT --merge` and `--split`"
        ) from None


def write_edits(partition: HeldPartition, edits: list[PersonEdit]) -> None:
    """Put edits in the place of those that are there; asks first whether that is still allowed."""
    partition.check()
    if edits:
        write_bytes(_place(partition), dump(_Edits(edits)))
    else:
        delete(_place(partition))


def forget_edits(partition: HeldPartition, video_id: str, track_id: int | None) -> bool:
    """Take a video, or one of its tracks, out of all edits; whether it was in one."""
    edits = read_edits(partition)
    named = {one for edit in edits for one in (*edit.tracks, edit.stays) if one is not None}
    gone = {one for one in named if one.video_id == video_id and track_id in (None, one.track_id)}
    if gone:
        write_edits(partition, [left for edit in edits if (left := edit.without(gone)) is not None])
    return bool(gone)


def _place(partition: Partition) -> Location:
    return partition.output.internal("edits", partition.dataset, partition.release, "persons.json")
