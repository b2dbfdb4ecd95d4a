"""Face detectors: one Protocol, and where each comes from.

Every detector answers in the same frame of reference: pixels of the upright original
frame, x right, y down, the outer corner of the top-left pixel at (0, 0).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from featray.config import DetectConfig, cache_dir
from featray.errors import ConfigError
from featray.video.frame import Frame

if TYPE_CHECKING:
    from featray.sources.listing import Video


@dataclass(frozen=True)
class Faces:
    """The faces of one frame, best score first, ties by smaller x.

    Attributes:
        box_xyxy: float32 `[n, 4]`, px of the upright original frame; may reach beyond it.
        score: float32 `[n]`, in [0, 1].
        landmarks5: float32 `[n, 5, 2]`, px: right eye, left eye, nose tip, right and left
            mouth corner. Right and left are the subject's, so the right eye of a face that
            looks at the camera lies on the viewer's left. NaN where they are not known.
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


@dataclass(frozen=True)
class DetectorFiles:
    """Where detectors find their files.

    Attributes:
        cache_dir: where `featray models pull` puts weights, and where converted networks are kept.
        storage_options: for fsspec, to read the file of boxes.
    """

    cache_dir: Path = field(default_factory=cache_dir)
    storage_options: dict[str, Any] = field(default_factory=dict, repr=False)


def open_detector(settings: DetectConfig, files: DetectorFiles | None = None) -> Detector:
    """Load the detector that the settings name; one that serves every video, so not `boxes`.

    Raises:
        ConfigError: it needs a package that is not installed.
        WeightsMissing: its weights were never pulled; nothing is fetched here.
        ModelError: its weights cannot be used.
    """
    if settings.detector not in _NETWORKS:
        raise ConfigError(f"detect.detector: {settings.detector} is no network")
    return _NETWORKS[settings.detector](settings, files or DetectorFiles())


def detector_for_videos(settings: DetectConfig, files: DetectorFiles) -> Callable[[Video], Detector]:
    """Load the detector that the settings name; the function gives the one that serves a video.

    Raises:
        FeatrayError: as `open_detector` does.
    """
    if settings.detector == "boxes":
        from featray.faces.boxes import BoxesFile

        return BoxesFile(settings, files).for_video
    network = open_detector(settings, files)
    return lambda video: network


def prepare_detector(settings: DetectConfig, files: DetectorFiles) -> None:
    """Do what has to be done once a machine, before `open_detector` is called in the time of a unit.

    Raises:
        FeatrayError: as `open_detector` does.
    """
    if settings.detector == "retinaface-r34":
        from featray.faces.retinaface_r34 import prepare
        from featray.faces.weights import find_weights

        prepare(find_weights(settings, files.cache_dir), files.cache_dir)


def detector_sha256(settings: DetectConfig, files: DetectorFiles | None = None) -> str:
    """What tells the detector's weights or boxes apart, 64 hex digits; part of the work key.

    It is also where a run finds out, before it starts, that they cannot be used.

    Raises:
        ConfigError: a package that is not installed; a file of boxes that is malformed.
        StorageError: a file of boxes that cannot be read.
        WeightsMissing: weights that were never pulled; nothing is fetched here.
        ModelError: weights that are not those of the detector.
    """
    return _SHA256[settings.detector](settings, files or DetectorFiles())


def _open_mnv1(settings: DetectConfig, files: DetectorFiles) -> Detector:
    from featray.faces.retinaface_mnv1 import RetinaFaceMobileNet

    return RetinaFaceMobileNet(settings)


def _open_r34(settings: DetectConfig, files: DetectorFiles) -> Detector:
    from featray.faces.retinaface_r34 import RetinaFaceResNet34
    from featray.faces.weights import find_weights

    return RetinaFaceResNet34(settings, find_weights(settings, files.cache_dir), files.cache_dir)


def _open_retina_face(settings: DetectConfig, files: DetectorFiles) -> Detector:
    from featray.faces.retina_face import RetinaFacePackage
    from featray.faces.weights import find_weights

    return RetinaFacePackage(settings, find_weights(settings, files.cache_dir).path)


def _sha256_of_mnv1(settings: DetectConfig, files: DetectorFiles) -> str:
    from featray.faces.retinaface_mnv1 import WEIGHTS_SHA256

    return WEIGHTS_SHA256


def _sha256_of_weights(settings: DetectConfig, files: DetectorFiles) -> str:
    from featray.faces.weights import find_weights

    if settings.detector == "retina-face":
        from featray.faces.retina_face import check_installed

        check_installed()
    return find_weights(settings, files.cache_dir).sha256


def _sha256_of_boxes(settings: DetectConfig, files: DetectorFiles) -> str:
    from featray.faces.boxes import BoxesFile

    return BoxesFile(settings, files).sha256()


_NETWORKS: dict[str, Callable[[DetectConfig, DetectorFiles], Detector]] = {
    "retinaface-mnv1": _open_mnv1,
    "retinaface-r34": _open_r34,
    "retina-face": _open_retina_face,
}

_SHA256: dict[str, Callable[[DetectConfig, DetectorFiles], str]] = {
    "retinaface-mnv1": _sha256_of_mnv1,
    "retinaface-r34": _sha256_of_weights,
    "retina-face": _sha256_of_weights,
    "boxes": _sha256_of_boxes,
}
