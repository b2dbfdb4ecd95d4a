"""Upkeep. Store edits of persons, which `find_persons` applies whenever it rebuilds the table.

If an interrupted command is repeated, its edit is not stored twice, and no second edit is undone.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from featray.errors import UsageError
from featray.tables.database import literal
from featray.tables.layout import Partition
from featray.tables.lease import HeldPartition, hold
from featray.tables.person_edits import NamedTrack, PersonEdit, is_undoing, read_edits, write_edits
from featray.tables.persons import LIST_PERSONS, TrackKey
from featray.tables.query import connect, run_sql
from featray.tables.replace import PERSONS_PREFIX
from featray.upkeep.persons import read_rows

Change = Callable[[HeldPartition, list[PersonEdit]], list[PersonEdit]]
"""Function that returns the new edits of a release from the current ones."""


def change_edits(partition: Partition, change: Change) -> None:
    """Change the edits of a release while holding the same lock as a run.

    Raises:
        LeaseError: a run is active.
        OutputError: the record is damaged.
        UsageError: the change is not possible.
    """
    with hold(partition, f"{PERSONS_PREFIX}{secrets.token_hex(4)}") as lease:
        held = lease.partition
        edits = read_edits(held)
        changed = change(held, edits)
        if changed != edits:
            write_edits(held, changed, undoing=change is undo)


def knows(partition: Partition, person_ids: Sequence[str], tracks: Sequence[TrackKey]) -> bool:
    """Return whether a release has or had all these persons, and has a person for all these tracks."""
    rows = read_rows(partition)
    ids = {*pc.unique(rows["person_id"]).to_pylist(), *pc.unique(rows["previous"]).to_pylist()}
    return ids.issuperset(person_ids) and all(_row(rows, key) is not None for key in tracks)


def merge(person_ids: Sequence[str]) -> Change:
    """Return the change that merges persons."""

    def change(partition: HeldPartition, edits: list[PersonEdit]) -> list[PersonEdit]:
        rows = read_rows(partition)
        now = {one: _now(rows, one) for one in person_ids}
        if len(set(now.values())) < 2:
            return edits  # already merged: the command was repeated
        typical = [_typical(rows, one) for one in sorted(set(now.values()))]
        _check_apart(partition, rows, sorted(set(now.values())))
        edit = PersonEdit("merge", sorted(typical))
        return edits if edits and edits[-1] == edit else [*edits, edit]

    return change


def split(tracks: Sequence[TrackKey]) -> Change:
    """Return the change that splits tracks of a person off into a new person."""
    leave = sorted(NamedTrack(*key) for key in set(tracks))

    def change(partition: HeldPartition, edits: list[PersonEdit]) -> list[PersonEdit]:
        if edits and edits[-1].kind == "split" and edits[-1].tracks == leave:
            return edits
        rows = read_rows(partition)
        persons = {_row(rows, key) for key in tracks}
        if len(persons) != 1:
            raise UsageError("--split: the tracks are of several persons; split the tracks of one person at a time")
        stay = rows.filter(pc.equal(rows["person_id"], persons.pop()))
        left = set(tracks)
        stay = stay.filter(pa.array([key not in left for key in _keys(stay)], pa.bool_()))
        if not stay.num_rows:
            raise UsageError("--split: these are all tracks of the person; omit the tracks that stay")
        return [*edits, PersonEdit("split", leave, _most_typical(stay))]

    return change


def undo(partition: HeldPartition, edits: list[PersonEdit]) -> list[PersonEdit]:
    """Return the edits without the last one, or all if an undo was interrupted: the table is then only rebuilt.

    Raises:
        UsageError: there are no edits.
    """
    if is_undoing(partition):
        return edits
    if not edits:
        raise UsageError(f"--undo: {partition.dataset}/{partition.release} has no edits")
    return edits[:-1]


def _row(rows: pa.Table, key: TrackKey) -> str | None:
    """Return the person of a track; None if it has none."""
    found = rows.filter(pc.and_(pc.equal(rows["video_id"], key[0]), pc.equal(rows["track_id"], key[1])))
    return found["person_id"][0].as_py() if found.num_rows else None


def _now(rows: pa.Table, person_id: str) -> str:
    """Return the person's current id: its own, or that of the person it was merged into."""
    if pc.any(pc.equal(rows["person_id"], person_id)).as_py():
        return person_id
    into = pc.unique(rows.filter(pc.equal(rows["previous"], person_id))["person_id"]).to_pylist()
    if len(into) != 1:
        raise UsageError(f"--merge {person_id}: not a person; {LIST_PERSONS} lists the persons")
    return str(into[0])


def _typical(rows: pa.Table, person_id: str) -> NamedTrack:
    return _most_typical(rows.filter(pc.equal(rows["person_id"], person_id)))


def _most_typical(rows: pa.Table) -> NamedTrack:
    """Return the track nearest to its person's centre, which is the least likely to be moved to another person."""
    best = rows.sort_by([("similarity", "descending"), ("video_id", "ascending"), ("track_id", "ascending")])
    return NamedTrack(best["video_id"][0].as_py(), best["track_id"][0].as_py())


def _check_apart(partition: Partition, rows: pa.Table, person_ids: Sequence[str]) -> None:
    """Raise UsageError if the persons are on screen at the same time."""
    some = rows.filter(pc.is_in(rows["person_id"], value_set=pa.array(person_ids, pa.string())))
    per_video = some.group_by("video_id").aggregate([("person_id", "count_distinct")])
    videos = per_video.filter(pc.greater(per_video["person_id_count_distinct"], 1))["video_id"].to_pylist()
    if not videos:
        return
    person = dict(zip(_keys(some), some["person_id"].to_pylist(), strict=True))
    connection = connect(partition.output, partition.release, ("faces",))
    spans = run_sql(
        connection,
        "SELECT video_id, track_id, min(frame_index), max(frame_index) FROM faces "
        f"WHERE dataset = {literal(partition.dataset)} AND video_id IN ({', '.join(map(literal, videos))}) "
        "GROUP BY ALL ORDER BY video_id, min(frame_index)",
    ).read_all()
    on: dict[str, list[tuple[int, int, TrackKey]]] = {}
    for video, track, first, last in zip(*(column.to_pylist() for column in spans.columns), strict=True):
        key = video, track
        if key not in person:
            continue
        before = [one for one in on.get(video, []) if one[1] >= first]
        for _, _, other in before:
            if person[other] != person[key]:
                raise UsageError(
                    f"--merge: {person[other]} and {person[key]} are two people: they are on screen at the same time, "
                    f"as tracks {other[1]} and {track} of video {video}"
                )
        on[video] = [*before, (first, last, key)]


def _keys(rows: pa.Table) -> list[TrackKey]:
    return list(zip(rows["video_id"].to_pylist(), rows["track_id"].to_pylist(), strict=True))
