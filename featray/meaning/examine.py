"""Meaning. Examine a checkpoint: all pairs, the resulting verdict, and what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from featray.meaning.faults import name_faults, remedy
from featray.meaning.pairs import Row, channel_row, mesh_rows, mirror_rows, pair_rows
from featray.meaning.watched import Watched
from featray.model.conventions import Conventions

ENOUGH: Final = {"mesh": 2, "head pose": 2, "gaze": 1, "expression": 2}
"""Minimum number of rows of each group that must agree."""


@dataclass(frozen=True)
class Examination:
    """The result of an examination.

    Attributes:
        rows: every pair.
        frames: number of frames examined, over all clips.
        faults: what is wrong, one phrase per fault.
        advice: one line on what to do.
        passed: whether no pair is opposed, and enough agree.
    """

    rows: tuple[Row, ...]
    frames: int
    faults: tuple[str, ...]
    advice: str
    passed: bool

    @property
    def counts(self) -> Counter[str]:
        """Return the number of rows per verdict."""
        return Counter(row.verdict for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """Return the examination as plain data."""
        rows = [{"pair": row.name, **asdict(row)} for row in self.rows]
        return {
            "passed": self.passed,
            "frames": self.frames,
            "counts": dict(self.counts),
            "faults": list(self.faults),
            "advice": self.advice,
            "rows": rows,
        }


def examine(clips: Sequence[Watched], conventions: Conventions, unusable: Collection[str] = ()) -> Examination:
    """Compare the network's outputs with each other and with geometry.

    Args:
        clips: faces and outputs, as returned by `footage.watch`; at least one with a face.
        conventions: signs with which their columns were computed.
        unusable: columns that the checkpoint is known not to estimate; their rows are shown but do not count.
    """
    rows = mesh_rows(clips)
    placed = rows[0].verdict != "no evidence"
    on_the_face = rows[0].verdict == "agrees"
    rows += [*pair_rows(clips, on_the_face=on_the_face), *mirror_rows(clips)]
    rows.append(channel_row(clips, on_the_face=on_the_face))
    if not placed:
        # If the network does not see the face, its outputs still correlate, since all come from the same picture.
        rows = [
            replace(row, verdict="no evidence", note=row.note or "the network does not find the face") for row in rows
        ]
    rows = [
        replace(row, verdict="not estimated", note="the checkpoint is known not to estimate it")
        if {row.first, row.second} & set(unusable)
        else row
        for row in rows
    ]
    faults = name_faults(rows)
    agreeing = Counter(row.group for row in rows if row.verdict == "agrees")
    missing = [group for group, least in ENOUGH.items() if agreeing[group] < least]
    return Examination(
        rows=tuple(rows),
        frames=sum(map(len, clips)),
        faults=tuple(faults),
        advice=remedy(faults, conventions) or _advice(missing, placed),
        passed=not faults and not missing,
    )


def _advice(missing: list[str], placed: bool) -> str:
    if not placed:
        return "no evidence: the network does not find the face, so its facial numbers carry no meaning here"
    if missing:
        return (
            f"not enough evidence for {', '.join(missing)}; "
            "give a video in which head, eyes and mouth of one person move: --video"
        )
    return "the columns mean what they say, as far as this footage shows"
