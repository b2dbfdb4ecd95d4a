"""Meaning. The examination of a checkpoint: all rows, what they come to, and what to do."""

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
"""Rows of each group that have to agree."""


@dataclass(frozen=True)
class Examination:
    """The result of an examination.

    Attributes:
        rows: every pair.
        frames: that were looked at, over all clips.
        faults: what is wrong, a phrase each.
        advice: one line on what to do.
        passed: nothing is opposed, and enough agrees.
    """

    rows: tuple[Row, ...]
    frames: int
    faults: tuple[str, ...]
    advice: str
    passed: bool

    @property
    def counts(self) -> Counter[str]:
        """Rows by verdict."""
        return Counter(row.verdict for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
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
    """Compare what the network said with itself and with geometry.

    Args:
        clips: faces and outputs, as `footage.watch` gives them; at least one with a face.
        conventions: signs that their columns were made with.
        unusable: columns that the checkpoint is known not to estimate; their rows are shown and do not count.
    """
    rows = mesh_rows(clips)
    placed = rows[0].verdict != "no evidence"
    on_the_face = rows[0].verdict == "agrees"
    rows += [*pair_rows(clips, on_the_face=on_the_face), *mirror_rows(clips)]
    rows.append(channel_row(clips, on_the_face=on_the_face))
    if not placed:
        # Outputs of a network that does not see the face still hang together, since all come from one picture.
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
