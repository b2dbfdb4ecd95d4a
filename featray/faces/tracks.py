"""Faces. Tracks: which face of one frame is which of the next, over a whole video.

Causal and deterministic: fed with the sampled frames in presentation order it gives the same
ids however the video was cut into units and whoever worked on them. A face goes on as it last
moved (constant velocity), and the assignment is the best over all faces at once (Hungarian,
scipy), not face by face, so that neighbours do not steal each other's track. No track goes
over a cut.

Own code, as libraries do not fit: on our clips of faces that cross and pass, norfair 2.1 (IoU)
gave faces that move by half their width a frame new ids all along, and SORT and ByteTrack of
trackers 2.1 left faces without an id in a track's first frames; none was made for cuts.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from featray.faces.overlap import best_pairs, iou_matrix

MIN_IOU: Final = 0.3
"""Below this overlap of a box with where its track should be now, they are different faces, at first sight."""

MIN_NEAR_IOU: Final = 0.2
"""The same for boxes of twice the size, of tracks that were there a frame ago: a face that starts or turns fast."""

MAX_GAP_US: Final = 1_000_000
"""A face that is away for longer than this comes back as a new track, however sparsely frames are sampled."""

MAX_COURSE_US: Final = 500_000
"""A face that is away is expected to go on as it moved for this long, and then to stand: heads turn around."""

_NEW_SHARE = 0.5
"""Of the latest movement in a track's velocity: detectors shake by a pixel or two a frame."""


class Tracker:
    """Gives track ids to the faces of one video, frame by frame."""

    def __init__(self) -> None:
        self._boxes = np.zeros((0, 4))
        self._velocities = np.zeros((0, 2))  # of the centre, px a second
        self._ids = np.zeros(0, np.int64)
        self._seen_us = np.zeros(0, np.int64)
        self._previous_us: int | None = None
        self.count = 0

    def update(self, pts_us: int, box_xyxy: NDArray[np.floating], *, shot_cut: bool = False) -> NDArray[np.int32]:
        """Track ids, int32 `[n]`, of the faces of the next sampled frame.

        Args:
            pts_us: presentation time of the frame; must not go back.
            box_xyxy: `[n, 4]`, px; a frame without faces counts too, it is what they were away for.
            shot_cut: whether a new shot begins with this frame: then all its faces are new.
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
        # A face that was in the frame before is not away, however long ago that was.
        oldest_us = min(pts_us - MAX_GAP_US, pts_us if self._previous_us is None else self._previous_us)
        self._keep(np.flatnonzero((self._seen_us >= oldest_us) & (not shot_cut)))

    def _keep(self, tracks: NDArray[np.intp]) -> None:
        self._boxes, self._velocities = self._boxes[tracks], self._velocities[tracks]
        self._ids, self._seen_us = self._ids[tracks], self._seen_us[tracks]

    def _assign(self, pts_us: int, boxes: NDArray[np.float64]) -> NDArray[np.intp]:
        """For each box the position of its track, or -1."""
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
    """Assign the tracks and boxes that are free yet, so that their overlaps, of at least so much, sum to the most."""
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
