"""Faces. Track faces from frame to frame over a whole video.

Causal and deterministic: for the same sampled frames in presentation order, the ids are the
same however the video was cut into units and whichever worker processed them. A face is
predicted with constant velocity, and faces are assigned to tracks jointly (Hungarian algorithm,
scipy) rather than one by one, so that neighbours do not steal each other's track. No track
crosses a cut.

This is our own code because no library fits. On our clips of crossing and passing faces,
norfair 2.1 (IoU) kept giving new ids to faces that move by half their width per frame, and SORT
and ByteTrack of trackers 2.1 left faces without an id in a track's first frames. None of them
handles cuts.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from featray.faces.overlap import best_pairs, iou_matrix

MIN_IOU: Final = 0.3
"""In the first round, a box that overlaps its track's predicted box by less than this is a different face."""

MIN_NEAR_IOU: Final = 0.2
"""In the second round, the limit for boxes doubled in size, for tracks seen in the previous frame. It keeps faces that
start to move or turn fast."""

MAX_GAP_US: Final = 1_000_000
"""A face that is missing for longer than this gets a new track, unless it was in the previous sampled frame."""

MAX_COURSE_US: Final = 500_000
"""A missing face is predicted to keep its velocity for this long and then to stand still, because heads turn around."""

_NEW_SHARE = 0.5
"""Weight of the latest movement in a track's velocity: detections jitter by a pixel or two per frame."""


class Tracker:
    """Gives track ids to the faces of one video, frame by frame."""

    def __init__(self) -> None:
        self._boxes = np.zeros((0, 4))
        self._velocities = np.zeros((0, 2))  # of the centre, px per second
        self._ids = np.zeros(0, np.int64)
        self._seen_us = np.zeros(0, np.int64)
        self._previous_us: int | None = None
        self.count = 0

    def update(self, pts_us: int, box_xyxy: NDArray[np.floating], *, shot_cut: bool = False) -> NDArray[np.int32]:
        """Return the track ids, int32 `[n]`, of the faces of the next sampled frame.

        Args:
            pts_us: presentation time of the frame; must not decrease.
            box_xyxy: `[n, 4]`, px. Pass frames without faces too: they count as absence.
            shot_cut: whether this frame begins a new shot; then all its faces get new tracks.
        """
        self._forget(pts_us, shot_cut)
        boxes = np.asarray(box_xyxy, np.float64)
        track_of = self._assign(pts_us, boxes)
        fresh = track_of < 0
        ids = np.where(fresh, 0, np.append(self._ids, 0)[track_of])
        ids[fresh] = np.arange(self.count, self.count + fresh.sum())
        self.count += int(fresh.sum())
        self._remember(pts_us, boxes, track_of, ids)
        return ids.astype(np.int32)

    def _forget(self, pts_us: int, shot_cut: bool) -> None:
        # A face in the previous sampled frame is not missing, however long ago that frame was.
        oldest_us = min(pts_us - MAX_GAP_US, pts_us if self._previous_us is None else self._previous_us)
        self._keep(np.flatnonzero((self._seen_us >= oldest_us) & (not shot_cut)))

    def _keep(self, tracks: NDArray[np.intp]) -> None:
        self._boxes, self._velocities = self._boxes[tracks], self._velocities[tracks]
        self._ids, self._seen_us = self._ids[tracks], self._seen_us[tracks]

    def _assign(self, pts_us: int, boxes: NDArray[np.float64]) -> NDArray[np.intp]:
        """Return for each box the position of its track, or -1."""
        track_of = np.full(len(boxes), -1, np.intp)
        course_s = np.minimum(pts_us - self._seen_us, MAX_COURSE_US) / 1e6
        expected = self._boxes + np.tile(self._velocities * course_s[:, None], 2)
        _match(iou_matrix(expected, boxes), MIN_IOU, track_of)
        there = self._seen_us == self._previous_us
        wide = _doubled(boxes)
        near = np.maximum(iou_matrix(_doubled(expected), wide), iou_matrix(_doubled(self._boxes), wide))
        _match(near * there[:, None], MIN_NEAR_IOU, track_of)
        return track_of

    def _remember(
        self, pts_us: int, boxes: NDArray[np.float64], track_of: NDArray[np.intp], ids: NDArray[np.int64]
    ) -> None:
        velocities = np.zeros((len(boxes), 2))
        known = np.flatnonzero(track_of >= 0)
        tracks = track_of[known]
        moved = (boxes[known] - self._boxes[tracks]).reshape(-1, 2, 2).mean(axis=1)
        elapsed_s = np.maximum(pts_us - self._seen_us[tracks], 1) / 1e6
        share = np.where(self._velocities[tracks].any(axis=1), _NEW_SHARE, 1.0)[:, None]
        velocities[known] = self._velocities[tracks] * (1 - share) + moved / elapsed_s[:, None] * share
        self._keep(np.setdiff1d(np.arange(len(self._ids)), tracks))
        self._boxes = np.concatenate([self._boxes, boxes])
        self._velocities = np.concatenate([self._velocities, velocities])
        self._ids = np.concatenate([self._ids, ids])
        self._seen_us = np.concatenate([self._seen_us, np.full(len(ids), pts_us)])
        self._previous_us = pts_us


def _match(overlap: NDArray[np.float64], least: float, track_of: NDArray[np.intp]) -> None:
    """Assign the free tracks to the free boxes, maximizing the sum of overlaps of at least `least`."""
    tracks = np.setdiff1d(np.arange(len(overlap)), track_of)
    boxes = np.flatnonzero(track_of < 0)
    free = overlap[np.ix_(tracks, boxes)]
    free = np.where(free >= least, free, 0.0)
    for track, box in zip(*best_pairs(free), strict=True):
        if free[track, box] > 0:
            track_of[boxes[box]] = tracks[track]


def _doubled(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Boxes of twice the sides about the same centres."""
    half = (boxes[:, 2:] - boxes[:, :2]) / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, 2:] + half], axis=1)
