"""Persons. The rows of the table `persons`, from what was found and what stood there before; and what they come to."""

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

DOUBTFUL: Final = 0.01
"""Of the margin: below it, another person's centre is nearly as close as the own one."""

_SHOWN: Final = 10
"""Persons that are named in a report, of each kind."""


@dataclass(frozen=True)
class Before:
    """What stood in the table.

    Attributes:
        ids: of persons.
        had: int64 `[n]`, which of them each track of now had; -1 for none.
        previous: string `[n]`, the column of each track of now.
        names: of persons that have one.
    """

    ids: list[str]
    had: NDArray[np.int64]
    previous: pa.Array
    names: dict[str, str]

    @classmethod
    def of(cls, rows: pa.Table, keys: TrackKeys) -> Before:
        """Line up the rows of the table with the tracks of now."""
        ids = sorted(pc.unique(rows["person_id"]).to_pylist())
        code = pc.index_in(rows["person_id"], value_set=pa.array(ids, pa.string())).to_numpy().astype(np.int64)
        place = keys.places(rows["video_id"], rows["track_id"].to_numpy())
        known = np.flatnonzero(place >= 0)
        row = np.full(len(keys), -1)
        row[place[known]] = known
        had = np.where(row >= 0, code[row] if len(code) else -1, -1)
        previous = rows["previous"].combine_chunks().take(pa.array(row, mask=row < 0))
        return cls(ids, had, previous, _names(rows))

    def carried(self, ids: Sequence[str], index: NDArray[np.int64]) -> dict[str, str]:
        """Return the names that persons keep: with their id, or from a person that became part of them.

        Args:
            ids: of the persons of now.
            index: int64 `[n]`, which of them each track is of.
        """
        now = set(ids)
        names = {one: name for one, name in self.names.items() if one in now}
        for gone in sorted(set(self.names) - now):
            tracks = index[self.had == self.ids.index(gone)]
            if len(tracks):
                names.setdefault(ids[int(np.bincount(tracks).argmax())], self.names[gone])
        return names


def _names(rows: pa.Table) -> dict[str, str]:
    """Names of persons that have one."""
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
    """Return the rows, in order, without the columns that are the same in all.

    `previous` is the last id that a track had before its present one: it stays, whatever is done in between.

    Args:
        keys: of the tracks.
        ids: of persons.
        index: int64 `[n]`, which of them each track is of.
        found: how well tracks fit.
        before: what stood there.
        names: of persons that have one.
    """
    video_id, track_id = keys.columns()
    person_id = pa.array(ids, pa.string()).take(pa.array(index))
    had = pa.array(before.ids, pa.string()).take(pa.array(before.had, mask=before.had < 0))
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
    """Who is who in a release.

    Attributes:
        clustering: under which settings.
        fresh: whether it was made now; else it was there, and the rest is what stands in it.
        threshold: cosine from which on two centres were one person.
        without_embedding: tracks that have no person, since none of their faces was embedded; -1 if not counted.
        largest: persons with the most tracks, and how many.
        doubtful: tracks with a margin below `DOUBTFUL`.
        renamed: tracks that had another person before: persons were joined or parted.
        merged: persons that are gone, the person that their tracks went to, and how many; the largest ones.
        parted: persons that are still there, the one that tracks of theirs went to, and how many; the largest ones.
        names: of the persons with the most tracks that have one.
        named: persons that have a name.
        edits: kept edits.
        refused: edits that could not be applied, a line each.
        gallery: what there is to say of a gallery, a line each.
        histogram: tracks by similarity to their person's centre, in steps of 0.01, by the lower end.
    """

    clustering: str
    fresh: bool
    threshold: float
    tracks: int
    persons: int
    without_embedding: int = -1
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


def told(clustering: str, threshold: float, rows: pa.Table, *, fresh: bool) -> Persons:
    """Return what the rows of the table come to."""
    counts = pc.value_counts(rows["person_id"]).to_pylist()
    sizes = {one["values"]: one["counts"] for one in counts}
    moves = (
        rows.filter(pc.is_valid(rows["previous"])).group_by(["previous", "person_id"]).aggregate([([], "count_all")])
    )
    moved = sorted(
        zip(*(moves[name].to_pylist() for name in ("previous", "person_id", "count_all")), strict=True),
        key=lambda move: (-move[2], move),
    )
    similarity = rows["similarity"].to_numpy()
    steps = Counter(f"{step:.2f}" for step in (np.floor(similarity.astype(np.float64) * 100) / 100).tolist())
    largest = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))
    names = _names(rows)
    return Persons(
        clustering,
        fresh,
        threshold,
        rows.num_rows,
        len(sizes),
        doubtful=int(pc.sum(pc.less(rows["margin"], DOUBTFUL)).as_py() or 0),
        renamed=rows.num_rows - rows["previous"].null_count,
        largest=largest[:_SHOWN],
        merged=[move for move in moved if move[0] not in sizes][:_SHOWN],
        parted=[move for move in moved if move[0] in sizes][:_SHOWN],
        names={one: names[one] for one in [one for one, _ in largest if one in names][:_SHOWN]},
        named=len(names),
        histogram=dict(sorted(steps.items())),
    )
