"""Upkeep. Records of the findings of verification."""

from __future__ import annotations

from dataclasses import dataclass, field

from featray.errors import on_one_line


@dataclass(frozen=True)
class Problem:
    """A problem that verification found, in one line.

    Attributes:
        where: dataset/release, or empty for the whole output.
        file: path relative to the output's root.
        video_id: video of the row, if the problem concerns one.
        row: identifies the row: `frame_index` and `face_index`, or `row` in the file, from 0.
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
    """The result of a verification.

    Attributes:
        files, bytes, rows, videos: amounts that were checked.
        problems: in the order they were found.
        damaged_commits: paths of commits with a file that is missing or was changed, relative to the output's root.
        unfinished: work that the next run, or `featray publish`, finishes.
    """

    partitions: int = 0
    files: int = 0
    bytes: int = 0
    rows: int = 0
    videos: int = 0
    problems: list[Problem] = field(default_factory=list)
    damaged_commits: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)

    def add(self, other: Report) -> None:
        """Add the findings of another report."""
        for name in ("files", "bytes", "rows", "videos"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.problems += other.problems
        self.damaged_commits += other.damaged_commits
        self.unfinished += other.unfinished
