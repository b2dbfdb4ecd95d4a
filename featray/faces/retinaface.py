"""Faces. Code shared by all RetinaFace networks: priors, decoding of the outputs, non-maximum suppression.

Source: Deng et al., "RetinaFace: Single-stage Dense Face Localisation in the Wild", 2019;
the decoding is that of SSD with variances 0.1 and 0.2.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from featray.config import DetectConfig
from featray.faces.detector import Faces
from featray.faces.overlap import iou_matrix

RawOutputs = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
"""Box regressions `[A, 4]`, face probabilities `[A]` and landmark regressions `[A, 10]` of one frame."""

_STRIDES_AND_SIZES_PX = ((8, (16, 32)), (16, (64, 128)), (32, (256, 512)))
_VARIANCE_CENTRE, _VARIANCE_SIZE = 0.1, 0.2


@lru_cache(maxsize=8)
def priors_px(height_px: int, width_px: int) -> NDArray[np.float32]:
    """Return the anchor boxes for an input size, float32 `[n, 4]` as (centre x, centre y, width, height) in px.

    There are two square anchors per cell, over `ceil(H/s) x ceil(W/s)` cells for the strides 8, 16, 32, row by row.
    """
    levels = []
    for stride_px, sizes_px in _STRIDES_AND_SIZES_PX:
        rows, columns = math.ceil(height_px / stride_px), math.ceil(width_px / stride_px)
        y, x = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
        centres = np.stack([x, y], -1).reshape(-1, 1, 2) * stride_px + stride_px / 2
        sizes = np.asarray(sizes_px, np.float64)[None, :, None].repeat(2, axis=2)
        level = np.concatenate(np.broadcast_arrays(centres, sizes), axis=-1)
        levels.append(level.reshape(-1, 4))
    return np.concatenate(levels).astype(np.float32)


def decode_outputs(
    loc: NDArray[np.float32],
    score: NDArray[np.float32],
    landmarks: NDArray[np.float32],
    *,
    input_hw_px: tuple[int, int],
    frame_wh_px: tuple[int, int],
    settings: DetectConfig,
) -> Faces:
    """Convert the network's raw outputs for one image into faces in frame pixels.

    Args:
        loc: `[n, 4]` box regressions.
        score: `[n]` face probabilities.
        landmarks: `[n, 10]` landmark regressions.
        input_hw_px: height and width of the network's input.
        frame_wh_px: width and height of the upright original frame.
        settings: thresholds for score, overlap, size and number of faces.
    """
    kept = np.flatnonzero(score >= settings.min_score)
    if not kept.size:
        return Faces.none()
    priors = priors_px(*input_hw_px)[kept]
    centre, size = priors[:, :2], priors[:, 2:]
    box_centre = centre + loc[kept, :2] * _VARIANCE_CENTRE * size
    box_size = size * np.exp(loc[kept, 2:] * _VARIANCE_SIZE)
    boxes = np.concatenate([box_centre - box_size / 2, box_centre + box_size / 2], axis=1)
    points = centre[:, None] + landmarks[kept].reshape(-1, 5, 2) * _VARIANCE_CENTRE * size[:, None]
    scale = np.asarray([frame_wh_px[0] / input_hw_px[1], frame_wh_px[1] / input_hw_px[0]], np.float32)
    boxes = boxes * np.tile(scale, 2)
    big = np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]) >= settings.min_size_px
    boxes, points, scores = boxes[big], (points * scale)[big], score[kept][big]
    order = np.lexsort((boxes[:, 0], -scores))
    order = order[non_maximum_suppression(boxes[order], settings.nms_iou, settings.max_faces)]
    return Faces(boxes[order].astype(np.float32), scores[order].astype(np.float32), points[order].astype(np.float32))


def non_maximum_suppression(
    boxes_xyxy: NDArray[np.floating], max_iou: float, max_boxes: int | None = None
) -> NDArray[np.intp]:
    """Return the indices of the boxes to keep, at most `max_boxes`; the boxes are in order of preference."""
    kept: list[int] = []
    left = np.arange(len(boxes_xyxy))
    # One row at a time: a full matrix over the thousands of boxes of a crowd would take gigabytes.
    while left.size and (max_boxes is None or len(kept) < max_boxes):
        best, left = left[0], left[1:]
        kept.append(int(best))
        left = left[iou_matrix(boxes_xyxy[best][None], boxes_xyxy[left])[0] <= max_iou]
    return np.asarray(kept, np.intp)
