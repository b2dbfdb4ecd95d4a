"""Persons. Build the rows of the table `persons` from the clustering and the previous rows, and summarise them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from featray.persons.cluster import Fit
from featray.persons.keys import TrackKeys
from featray.persons.naming import Former, name_persons
from featray.tables.persons import DOUBTFUL

_SHOWN: Final = 10
"""Persons listed per kind in a report."""


@dataclass(frozen=True)
class Before:
    """Content of the table before this clustering.

    Attributes:
        ids: previous ids of persons.
        had: int64 `[n]`, index into `ids` of each current track's previous person; -1 for none.
        previous: string `[n]`, the column `previous` of each current track.
        names: names of the persons that have one, by id.
    """

    ids: list[str]
    had: NDArray[np.int64]
    previous: pa.Array
    names: dict[str, str]

    @classmethod
    def of(cls, rows: pa.Table, keys: TrackKeys) -> Before:
        """Align the rows of the table with the current tracks."""
        ids = sorted(pc.unique(rows["person_id"]).to_pylist())
        code = pc.index_in(rows["person_id"], value_set=pa.array(ids, pa.string())).to_numpy().astype(np.int64)
        place = keys.places(rows["video_id"], rows["track_id"].to_numpy())
        known = np.flatnonzero(place >= 0)
        row = np.full(len(keys), -1)
        row[place[known]] = known
        had = np.where(row >= 0, code[row] if len(code) else -1, -1)
        previous = rows["previous"].combine_chunks().take(pa.array(row, mask=row < 0))
        return cls(ids, had, previous, _names(rows))

    def person_ids(self) -> pa.Array:
        """Return the previous person of each current track, null for none: string `[n]`."""
        return pa.array(self.ids, pa.string()).take(pa.array(self.had, mask=self.had < 0))

    def name(self, keys: TrackKeys, index: NDArray[np.int64], split_off: NDArray[np.bool_]) -> list[str]:
        """Return the ids of the current persons; `index` is `person` of `name_persons`, `split_off` as there."""
        encoded = self.previous.dictionary_encode()
        code = pc.fill_null(encoded.indices.cast(pa.int64()), -1).to_numpy(zero_copy_only=False)
        earlier = Former(code, encoded.dictionary.to_pylist())
        return name_persons(keys.at, index, Former(self.had, self.ids), earlier, split_off)

    def carried(self, ids: Sequence[str], index: NDArray[np.int64]) -> dict[str, str]:
        """Return the names that persons keep, by id: their own, or that of a person merged into them.

        Args:
            ids: ids of the current persons.
            index: int64 `[n]`, index into `ids` of each track's person.
        """
        now = set(ids)
        names = {one: name for one, name in self.names.items() if one in now}
        for gone in sorted(set(self.names) - now):
            tracks = index[self.had == self.ids.index(gone)]
            if len(tracks):
                names.setdefault(ids[int(np.bincount(tracks).argmax())], self.names[gone])
        return names


def _names(rows: pa.Table) -> dict[str, str]:
    """Return the names of the persons that have one, by id."""
    named = rows.filter(pc.is_valid(rows["name"])).group_by("person_id").aggregate([("name", "min")])
    return dict(zip(named["person_id"].to_pylist(), named["name_min"].to_pylist(), strict=True))


def person_rows(
    keys: TrackKeys,
    ids: Sequence[str],
    index: NDArray[np.int64],
    found: Fit,
    before: Before,
    names: dict[str, str],
) -> pa.Table:
    """Return the rows, in order, without the columns that are constant in a release.

    `previous` is the last id that a track had before its current one; it is kept when the table is rebuilt.

    Args:
        keys: keys of the tracks.
        ids: ids of persons.
        index: int64 `[n]`, index into `ids` of each track's person.
        found: how well tracks fit their persons.
        before: previous content of the table.
        names: names of the persons that have one, by id.
    """
    video_id, track_id = keys.columns()
    person_id = pa.array(ids, pa.string()).take(pa.array(index))
    had = before.person_ids()
    changed = pc.fill_null(pc.not_equal(had, person_id), False)
    return pa.table(
        {
            "video_id": video_id,
            "track_id": track_id,
            "person_id": person_id,
            "similarity": pa.array(found.similarity),
            "margin": pa.array(found.margin, mask=np.isnan(found.margin)),
            "previous": pc.if_else(changed, had, before.previous),
            "name": pa.array([names.get(one) for one in ids], pa.string()).take(pa.array(index)),
        }
    )


@dataclass(frozen=True)
class Persons:
    """Summary of the persons in a release.

    Attributes:
        clustering: value of the partition, which identifies the settings.
        fresh: true if the table was made by this call; false if it already existed and was only read: nothing moved.
        threshold: minimum cosine of two centres that are one person.
        without_embedding: tracks without a person, because none of their faces was embedded; None if not counted.
        largest: persons with the most tracks, and their numbers of tracks.
        doubtful: tracks with a margin below `DOUBTFUL`.
        renamed: tracks that this call moved to another person, because persons were merged or split.
        merged: ids no longer in use, the person their tracks moved to, and how many; the largest moves.
        parted: ids still in use, the person some of their tracks moved to, and how many; the largest moves.
        names: names of the largest named persons, by id.
        named: number of persons with a name.
        edits: number of stored edits.
        refused: edits that could not be applied, one line each.
        gallery: notes about the gallery, one line each.
        histogram: tracks by similarity to their person's centre, in bins of 0.01, keyed by the lower edge.
    """

    clustering: str
    fresh: bool
    threshold: float
    tracks: int
    persons: int
    without_embedding: int | None = None
    doubtful: int = 0
    renamed: int = 0
    largest: list[tuple[str, int]] = field(default_factory=list)
    merged: list[tuple[str, str, int]] = field(default_factory=list)
    parted: list[tuple[str, str, int]] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    named: int = 0
    edits: int = 0
    refused: list[str] = field(default_factory=list)
    gallery: list[str] = field(default_factory=list)
    histogram: dict[str, int] = field(default_factory=dict)


def told(clustering: str, threshold: float, rows: pa.Table, before: Before | None) -> Persons:
    """Return the summary of the rows of the table.

    Args:
        clustering: value of the partition.
        threshold: minimum cosine of two centres that are one person.
        rows: the table.
        before: its content before this call; None if this call did not change it.
    """
    counts = pc.value_counts(rows["person_id"]).to_pylist()
    sizes = {one["values"]: one["counts"] for one in counts}
    moved = [] if before is None else _moves(rows["person_id"], before)
    similarity = rows["similarity"].to_numpy()
    steps = Counter(f"{step:.2f}" for step in (np.floor(similarity.astype(np.float64) * 100) / 100).tolist())
    largest = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))
    names = _names(rows)
    return Persons(
        clustering,
        before is not None,
        threshold,
        rows.num_rows,
        len(sizes),
        doubtful=int(pc.sum(pc.less(rows["margin"], DOUBTFUL)).as_py() or 0),
        renamed=sum(tracks for *_, tracks in moved),
        largest=largest[:_SHOWN],
        merged=[move for move in moved if move[0] not in sizes][:_SHOWN],
        parted=[move for move in moved if move[0] in sizes][:_SHOWN],
        names={one: names[one] for one in [one for one, _ in largest if one in names][:_SHOWN]},
        named=len(names),
        histogram=dict(sorted(steps.items())),
    )


def _moves(person_id: pa.ChunkedArray, before: Before) -> list[tuple[str, str, int]]:
    """Return the previous and the present person of tracks that moved, and how many; the largest moves first."""
    tracks = pa.table({"had": before.person_ids(), "has": person_id})
    moved = tracks.filter(pc.not_equal(tracks["had"], tracks["has"])).group_by(["had", "has"])
    counts = moved.aggregate([([], "count_all")])
    moves = zip(*(counts[name].to_pylist() for name in ("had", "has", "count_all")), strict=True)
    return sorted(moves, key=lambda move: (-move[2], move))
