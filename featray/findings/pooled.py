"""Findings. Compute the level of each action unit over all faces of a person, across tracks, shots and videos.

Values are collected file by file and reduced once. The median is over time and exact, so it does not depend on the
order of files, and a long smile in a short shot counts only for its time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from featray.findings.batch import Levels
from featray.findings.derive import lay_out_videos, video_batches
from featray.findings.rows import Rows, floats
from featray.findings.samples import Floats, Ints, time_quantiles
from featray.names import AU_NAMES_20
from featray.tables.persons import TrackKey


@dataclass
class PooledFaces:
    """The faces of some people; 88 bytes per face.

    Attributes:
        whose: number of each track's person, from 0; other tracks are skipped.
        gap_s: as `derive.gap_s`.
    """

    whose: Mapping[TrackKey, int]
    gap_s: float
    _person: list[Ints] = field(default_factory=list)
    _cells: list[Ints] = field(default_factory=list)
    _values: list[NDArray[np.float32]] = field(default_factory=list)

    def add(self, faces: Rows) -> None:
        """Add rows of `faces`, which may include other tracks."""
        videos = {video for video, _ in self.whose}
        for batch in video_batches({name: count for name, count in faces.counts.items() if name in videos}):
            laid = lay_out_videos(faces, batch, self.gap_s)
            if laid is None:
                continue
            starts = laid.samples.starts
            tracks = zip(laid.video[starts].tolist(), laid.track_id[starts].tolist(), strict=True)
            person = np.array([self.whose.get((laid.videos[video], track), -1) for video, track in tracks], np.int64)
            person = person[laid.samples.track]
            mine = person >= 0
            rows = laid.order[mine]
            self._person.append(person[mine])
            self._cells.append(laid.samples.cells[mine])
            columns = faces.read(laid.videos, list(AU_NAMES_20))
            self._values.append(np.stack([floats(columns[name])[rows] for name in AU_NAMES_20]))

    def levels(self) -> dict[int, Levels]:
        """Return the median of each action unit over a person's time, by person; NaN where it is null everywhere."""
        if not self._person:
            return {}
        person, cells = np.concatenate(self._person), np.concatenate(self._cells)
        order = np.argsort(person, kind="stable")
        person, cells = person[order], cells[order]
        starts = np.flatnonzero(np.concatenate([[True], person[1:] != person[:-1]]))[: len(person)]
        medians = np.empty((len(AU_NAMES_20), len(starts)), np.float32)
        for row in range(len(AU_NAMES_20)):
            values: Floats = np.concatenate([some[row] for some in self._values])[order]
            medians[row] = time_quantiles(values, person, cells, starts, (50,))[0]
        return {int(person[start]): tuple(medians[:, i].tolist()) for i, start in enumerate(starts)}
