"""Tables. The published videos of a partition, in a form small enough for millions of videos: 38 bytes each.

It is built in one pass over the commits, a few of them in memory at a time. Each video that the input no longer has
takes 8 more bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from featray.tables.commits import Commit, FileNames, stored_commits
from featray.tables.layout import Partition

STATUSES: Final = ("ok", "partial", "failed")

_RECORD = np.dtype(
    [("video", "<u8"), ("work", "<u8", 2), ("shard", "<u4"), ("status", "u1"), ("seen", "?"), ("extra", "<u8")]
)


class Unseen:
    """Ids of published videos that the input does not have, stored as numbers.

    Args:
        ids: sorted ids.
    """

    def __init__(self, ids: NDArray[np.uint64]) -> None:
        self._ids = ids

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, video_id: str) -> bool:
        return _position(self._ids, video_id) >= 0


@dataclass
class Done:
    """Published videos, by id.

    Attributes:
        records: one per video, sorted by `video`; `work` is the first half of the work key.
        shards: names of the commits that `records["shard"]` indexes.
        files: paths of all published files, relative to the output's root.
        pending: commits with pending rewrites; the other attributes have them applied.
    """

    records: NDArray[np.void]
    shards: list[str]
    files: set[str]
    pending: list[Commit] = field(default_factory=list)

    def find(self, video_id: str) -> int:
        """Return the record of a video, or -1."""
        return _position(self._ids, video_id)

    def is_done(self, record: int, work_key: str) -> bool:
        """Return whether the published work has this work key; its first 16 digits are enough."""
        high, low = self.records["work"][record]
        return f"{int(high):016x}{int(low):016x}".startswith(work_key[:32])

    def status(self, record: int) -> str:
        """Return `ok`, `partial` or `failed`."""
        return STATUSES[int(self.records["status"][record])]

    def shard(self, record: int) -> str:
        """Return the name of the commit that has the video."""
        return self.shards[int(self.records["shard"][record])]

    def extra_digest(self, record: int) -> str:
        """Return `CommittedVideo.extra_digest` of the video."""
        digest = int(self.records["extra"][record])
        return f"{digest:016x}" if digest else ""

    def see(self, record: int) -> None:
        """Record that the input has this video."""
        self.records["seen"][record] = True

    def unseen(self) -> Unseen:
        """Return the videos that were not seen."""
        return Unseen(self._ids[~self.records["seen"]])

    def doubles(self) -> dict[str, set[str]]:
        """Return videos that are in several commits, by the commits that must drop them.

        They occur only if a run that was taken over published late on a storage without conditional
        PUT. The last commit in `shards` keeps them: the rows are equally good in each.
        """
        same = np.flatnonzero(self._ids[1:] == self._ids[:-1])
        found: dict[str, set[str]] = {}
        for record in same.tolist():
            found.setdefault(self.shard(record), set()).add(f"{int(self._ids[record]):016x}")
        return found

    def __post_init__(self) -> None:
        self._ids: NDArray[np.uint64] = np.ascontiguousarray(self.records["video"])


def _position(ids: NDArray[np.uint64], video_id: str) -> int:
    """Return the first position of an id in sorted ids, or -1."""
    wanted = np.uint64(int(video_id, 16))
    at = int(np.searchsorted(ids, wanted))
    return at if at < len(ids) and ids[at] == wanted else -1


def read_done(partition: Partition) -> Done:
    """Read all commits of a partition once.

    Raises:
        OutputError: a commit is damaged, or two commits name one file.
    """
    pages: dict[str, NDArray[np.void]] = {}
    names, pending = FileNames(partition), []
    for commit in stored_commits(partition):
        pages[commit.name] = _page(commit)
        names.add(commit)
        if commit.rewrites:
            pending.append(commit)
    for commit in (rewritten for one in pending for rewritten in one.rewrites):
        pages[commit.name] = _page(commit)
        names.add(commit)
    for number, page in enumerate(pages.values()):
        page["shard"] = number
    records = np.concatenate([np.zeros(0, _RECORD), *pages.values()])
    order = np.lexsort((records["shard"], records["video"]))
    return Done(records[order], list(pages), names.distinct(), pending)


def _page(commit: Commit) -> NDArray[np.void]:
    page = np.zeros(len(commit.videos), _RECORD)
    for row, video in zip(page, commit.videos, strict=True):
        work = video.work_key
        row["video"] = int(video.video_id, 16)
        row["work"] = int(work[:16], 16), int(work[16:32], 16)
        row["status"] = STATUSES.index(video.status)
        row["extra"] = int(video.extra_digest or "0", 16)
    return page
