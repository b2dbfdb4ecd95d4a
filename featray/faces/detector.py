"""Face detectors: one Protocol, and where each comes from.

Every detector answers in the same frame of reference: pixels of the upright original
frame, x right, y down, the outer corner of the top-left pixel at (0, 0).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from featray.config import DetectConfig
from featray.errors import ConfigError
from featray.video.frame import Frame


@dataclass(frozen=True)
class Faces:
    """The faces of one frame, best score first, ties by smaller x.

    Attributes:
        box_xyxy: float32 `[n, 4]`, px of the upright original frame; may reach beyond it.
        score: float32 `[n]`, in [0, 1].
        landmarks5: float32 `[n, 5, 2]`, px: right eye, left eye, nose tip, right and left
            mouth corner. Right and left are the subject's, so the right eye of a face that
            looks at the camera lies on the viewer's left.
    """

    box_xyxy: NDArray[np.float32]
    score: NDArray[np.float32]
    landmarks5: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.score)

    @classmethod
    def none(cls) -> Faces:
        """No face."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros((0, 5, 2), np.float32))


class Detector(Protocol):
    """Finds the faces of frames.

    Attributes:
        batch_frames: how many frames it likes to be given together; 1 on a CPU, where batches gain nothing.
    """

    batch_frames: int

    def __call__(self, frames: Sequence[Frame]) -> list[Faces]:
        """The faces of each frame; which frames share a call never changes the answer."""
        ...


def open_detector(settings: DetectConfig) -> Detector:
    """Load the detector that the settings name."""
    return DETECTORS[settings.detector](settings)


def detector_sha256(settings: DetectConfig) -> str:
    """Sha256 (hex) of the weights the detector uses; part of the work key."""
    from featray.faces.retinaface_mnv1 import WEIGHTS_SHA256

    if settings.detector != "retinaface-mnv1":
        raise ConfigError(f"detect.detector: {settings.detector} is not known")
    return WEIGHTS_SHA256


def _retinaface_mnv1(settings: DetectConfig) -> Detector:
    from featray.faces.retinaface_mnv1 import RetinaFaceMobileNet

    return RetinaFaceMobileNet(settings)


DETECTORS: dict[str, Callable[[DetectConfig], Detector]] = {"retinaface-mnv1": _retinaface_mnv1}
