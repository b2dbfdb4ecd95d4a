"""Persons. Tracks by their keys, `video_id` and `track_id`: where each is among others, without an object a track."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Key = tuple[str, int]
"""`video_id` and `track_id`."""

_TRACKS: Final = 1 << 31
"""More than a video has: `track_id` is an int32."""


def packed(video: Any, track_id: Any) -> Any:
    """Return numbers of videos and tracks as one int64 each, which sort as they do."""
    return video * _TRACKS + track_id


def unpacked(keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the numbers of videos and tracks that `packed` made keys of."""
    video, track_id = np.divmod(keys, _TRACKS)
    return video, track_id


@dataclass(frozen=True)
class TrackKeys:
    """Tracks in order.

    Attributes:
        videos: ids of videos, sorted.
        packed: int64 `[n]`, sorted: the place in `videos` and the `track_id`, by `packed`.
    """

    videos: list[str]
    packed: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.packed)

    def at(self, place: int) -> Key:
        """Return the key at a place."""
        video, track_id = divmod(int(self.packed[place]), _TRACKS)
        return self.videos[video], track_id

    def columns(self) -> tuple[pa.Array, pa.Array]:
        """Return the columns `video_id` and `track_id`."""
        video, track_id = unpacked(self.packed)
        ids = pa.array(self.videos, pa.string()).take(pa.array(video))
        return ids, pa.array(track_id.astype(np.int32))

    def places(self, video_ids: pa.ChunkedArray | pa.Array, track_ids: Any) -> NDArray[np.int64]:
        """Return the places of tracks, int64 `[m]`; -1 for those that are not here."""
        if not len(self) or not len(video_ids):
            return np.full(len(video_ids), -1)
        known = pc.index_in(video_ids, value_set=pa.array(self.videos, pa.string()))
        video = known.fill_null(-1).to_numpy().astype(np.int64)
        wanted = packed(video, np.asarray(track_ids, np.int64))
        place = np.minimum(np.searchsorted(self.packed, wanted), len(self) - 1)
        return np.where((video >= 0) & (self.packed[place] == wanted), place, -1)

    def place(self, key: Key) -> int:
        """Return the place of a track; -1 if it is not here."""
        return int(self.places(pa.array([key[0]], pa.string()), [key[1]])[0])
