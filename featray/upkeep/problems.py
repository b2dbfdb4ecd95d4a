"""Upkeep. What verification finds, as records."""

from __future__ import annotations

from dataclasses import dataclass, field

from featray.errors import on_one_line


@dataclass(frozen=True)
class Problem:
    """Something that is not as it should be, in one line.

    Attributes:
        where: dataset/release, or empty for the whole output.
        file: relative to the output's root.
        video_id: of the row, where it is about one.
        row: what tells the row: `frame_index` and `face_index`, or `row` in the file, from 0.
    """

    where: str
    text: str
    file: str | None = None
    video_id: str | None = None
    row: dict[str, int] = field(default_factory=dict)

    def line(self) -> str:
        """Return the problem as one printed line."""
        row = " ".join(f"{name} {value}" for name, value in self.row.items())
        parts = [self.where if not self.file else "", self.file, self.video_id and f"video {self.video_id}", row]
        return on_one_line(": ".join([" ".join(part for part in parts if part) or "output", self.text]))


@dataclass
class Report:
    """The problems that were found.

    Attributes:
        files, bytes, rows, videos: what was looked at.
        problems: in the order they were found.
        unfinished: what the next run, or `featray publish`, finishes.
    """

    partitions: int = 0
    files: int = 0
    bytes: int = 0
    rows: int = 0
    videos: int = 0
    problems: list[Problem] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)

    def add(self, other: Report) -> None:
        """Take over what another one has found."""
        for name in ("files", "bytes", "rows", "videos"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.problems += other.problems
        self.unfinished += other.unfinished
