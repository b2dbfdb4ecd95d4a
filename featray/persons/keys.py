"""Persons. Look up tracks by their keys, `video_id` and `track_id`, without one Python object per track."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from featray.tables.persons import TrackKey

_TRACKS: Final = 1 << 31
"""Upper bound on the tracks of a video: `track_id` is an int32."""


def packed(video: Any, track_id: Any) -> Any:
    """Return the numbers of video and track packed into one int64, which sorts by video, then track."""
    return video * _TRACKS + track_id


def unpacked(keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the numbers of videos and tracks from keys made by `packed`."""
    video, track_id = np.divmod(keys, _TRACKS)
    return video, track_id


@dataclass(frozen=True)
class TrackKeys:
    """Tracks in order.

    Attributes:
        videos: ids of videos, sorted.
        packed: int64 `[n]`, sorted: the position in `videos` and the `track_id`, packed by `packed`.
    """

    videos: list[str]
    packed: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.packed)

    def at(self, place: int) -> TrackKey:
        """Return the key at a position."""
        video, track_id = divmod(int(self.packed[place]), _TRACKS)
        return self.videos[video], track_id

    def columns(self) -> tuple[pa.Array, pa.Array]:
        """Return the columns `video_id` and `track_id`."""
        video, track_id = unpacked(self.packed)
        ids = pa.array(self.videos, pa.string()).take(pa.array(video))
        return ids, pa.array(track_id.astype(np.int32))

    def places(self, video_ids: pa.ChunkedArray | pa.Array, track_ids: Any) -> NDArray[np.int64]:
        """Return the positions of tracks, int64 `[m]`; -1 for unknown tracks."""
        if not len(self) or not len(video_ids):
            return np.full(len(video_ids), -1)
        known = pc.index_in(video_ids, value_set=pa.array(self.videos, pa.string()))
        video = known.fill_null(-1).to_numpy().astype(np.int64)
        wanted = packed(video, np.asarray(track_ids, np.int64))
        place = np.minimum(np.searchsorted(self.packed, wanted), len(self) - 1)
        return np.where((video >= 0) & (self.packed[place] == wanted), place, -1)
