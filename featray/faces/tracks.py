"""Tracks: which face of one frame is which of the next, over a whole video.

Causal and deterministic: fed with frames in presentation order it gives the same ids
however the video was cut into units and whoever worked on them. Faces move little between
frames, so overlap is all that is used; the assignment is the best over all faces at once
(Hungarian, scipy), not face by face, so that neighbours do not steal each other's track.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from featray.faces.retinaface import iou_matrix

MIN_IOU: Final = 0.3
"""Below this overlap two boxes are different faces: at 25 frames/s a head turns its box by far less."""

MAX_GAP_US: Final = 1_000_000
"""A face that is away for longer than this comes back as a new track, however sparsely frames are sampled."""


class Tracker:
    """Gives track ids to the faces of one video, frame by frame."""

    def __init__(self) -> None:
        self._boxes = np.zeros((0, 4))
        self._ids = np.zeros(0, np.int64)
        self._seen_us = np.zeros(0, np.int64)
        self.count = 0

    def update(self, pts_us: int, box_xyxy: NDArray[np.floating], *, before_us: int | None = None) -> NDArray[np.int32]:
        """Track ids, int32 `[n]`, of the faces of the next frame that has any.

        Args:
            pts_us: presentation time of the frame; must not go back.
            box_xyxy: `[n, 4]`, px.
            before_us: time of the sampled frame before this one, with faces or without: a face
                that was in it is not away, however long ago that was.
        """
        oldest_us = pts_us - MAX_GAP_US if before_us is None else min(pts_us - MAX_GAP_US, before_us)
        alive = self._seen_us >= oldest_us
        self._boxes, self._ids, self._seen_us = self._boxes[alive], self._ids[alive], self._seen_us[alive]
        boxes = np.asarray(box_xyxy, np.float64)
        ids = np.full(len(boxes), -1, np.int64)
        if len(self._ids) and len(boxes):
            overlap = iou_matrix(self._boxes, boxes)
            for old, new in zip(*linear_sum_assignment(overlap, maximize=True), strict=True):
                if overlap[old, new] >= MIN_IOU:
                    ids[new] = self._ids[old]
        fresh = np.flatnonzero(ids < 0)
        ids[fresh] = np.arange(self.count, self.count + len(fresh))
        self.count += len(fresh)
        self._remember(ids, boxes, pts_us)
        return ids.astype(np.int32)

    def _remember(self, ids: NDArray[np.int64], boxes: NDArray[np.float64], pts_us: int) -> None:
        away = ~np.isin(self._ids, ids)
        self._boxes = np.concatenate([self._boxes[away], boxes])
        self._seen_us = np.concatenate([self._seen_us[away], np.full(len(ids), pts_us)])
        self._ids = np.concatenate([self._ids[away], ids])
