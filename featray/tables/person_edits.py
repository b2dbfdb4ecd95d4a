"""Tables. Edits of the table `persons` by users, which every clustering applies.

    _featray/edits/<dataset>/<release>/persons.json     {"edits": [{...}, ...]}

Edits refer to tracks, because ids of persons may change. They are written before the table is rebuilt, in one PUT:
after a kill, the next `featray persons` applies them. Erasing a track removes it from the edits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field

from featray.errors import NotFound, OutputError
from featray.records import SmallCount, VideoId, dump, load
from featray.store.location import Location
from featray.store.storage import delete, read_record, write_bytes
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
        kind: `merge` makes the persons of these tracks one. `split` makes these tracks a separate person, as far as
            they are of the same person as `stays`.
        tracks: the tracks; for a merge, one of each person.
        stays: for a split, a track that stays with the original person; None for a merge.
    """

    kind: Literal["merge", "split"]
    tracks: Annotated[list[NamedTrack], Field(min_length=1, max_length=1 << 16)]
    stays: NamedTrack | None = None

    def without(self, gone: set[NamedTrack]) -> PersonEdit | None:
        """Return the edit without some tracks; None if it no longer has an effect."""
        tracks = [track for track in self.tracks if track not in gone]
        if len(tracks) < (2 if self.kind == "merge" else 1) or self.stays in gone:
            return None
        return replace(self, tracks=tracks)


@dataclass(frozen=True)
class _Edits:
    """All edits of a release.

    Attributes:
        edits: in the order in which they are applied.
        undoing: whether an edit was removed and the table may still show it; a repeated `--undo` removes no other.
    """

    edits: list[PersonEdit]
    undoing: bool = False


def parse_edits(text: bytes) -> _Edits:
    """Return a record of edits.

    Raises:
        ValueError: the record is damaged, or an edit lacks tracks that it needs.
    """
    found = load(_Edits, text)
    for edit in found.edits:
        if edit.kind == "merge" and (len(edit.tracks) < 2 or edit.stays is not None):
            raise ValueError("a merge needs two tracks")
        if edit.kind == "split" and (edit.stays is None or edit.stays in edit.tracks):
            raise ValueError("a split needs a track that stays")
    return found


def read_edits(partition: Partition) -> list[PersonEdit]:
    """Return the edits of a release, oldest first.

    Raises:
        OutputError: the record is damaged.
    """
    return _read(partition).edits


def is_undoing(partition: Partition) -> bool:
    """Return whether an `--undo` was interrupted before it rebuilt the table."""
    return _read(partition).undoing


def has_edits(partition: Partition) -> bool:
    """Return whether a release has edits, or an interrupted `--undo`."""
    found = _read(partition)
    return bool(found.edits) or found.undoing


def _read(partition: Partition) -> _Edits:
    place = _place(partition)
    try:
        return parse_edits(read_record(place))
    except NotFound:
        return _Edits([])
    except ValueError:
        raise OutputError(
            f"{place.uri}: damaged record of edits of persons; restore a copy, or delete it and repeat the edits with "
            "`featray persons OUT --merge` and `--split`"
        ) from None


def write_edits(partition: HeldPartition, edits: list[PersonEdit], *, undoing: bool = False) -> None:
    """Replace the edits; checks first that the lease is still held."""
    partition.check()
    if edits or undoing:
        write_bytes(_place(partition), dump(_Edits(edits, undoing)))
    else:
        delete(_place(partition))


def finish_undo(partition: HeldPartition) -> None:
    """Record that the table has been rebuilt without the edit that was undone."""
    if (found := _read(partition)).undoing:
        write_edits(partition, found.edits)


def forget_edits(partition: HeldPartition, video_id: str, track_id: int | None) -> bool:
    """Remove a video, or one of its tracks, from all edits; return whether an edit referred to it."""
    found = _read(partition)
    named = {one for edit in found.edits for one in (*edit.tracks, edit.stays) if one is not None}
    gone = {one for one in named if one.video_id == video_id and track_id in (None, one.track_id)}
    if gone:
        left = [kept for edit in found.edits if (kept := edit.without(gone)) is not None]
        write_edits(partition, left, undoing=found.undoing)
    return bool(gone)


def edits_folder(partition: Partition) -> Location:
    """Return the location of the folder that has the record of edits."""
    return partition.output.internal("edits", partition.dataset, partition.release)


def _place(partition: Partition) -> Location:
    return edits_folder(partition).child("persons.json")
