"""Faces. Open the configured detector. Each detector's module is imported only when it is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from featray.config import DetectConfig
from featray.errors import ConfigError, ModelError
from featray.faces.crop import Cutter, interpolate
from featray.faces.detector import Detector, DetectorFiles, KnownFile

if TYPE_CHECKING:
    from featray.sources.listing import Video


def open_detector(settings: DetectConfig, files: DetectorFiles | None = None) -> Detector:
    """Load the detector that the settings name, if one instance serves every video (all but `boxes`).

    Raises:
        ConfigError: it is `boxes`, or needs a package that is not installed.
        WeightsMissing: its weights were never pulled; this function does not download them.
        ModelError: its weights cannot be used.
    """
    if settings.detector not in _NETWORKS:
        raise ConfigError(f"detect.detector: {settings.detector} is not a network")
    if settings.device == "gpu":
        return _open_on_gpu(settings, files or DetectorFiles())
    return _NETWORKS[settings.detector](settings, files or DetectorFiles())


def detector_for_videos(settings: DetectConfig, files: DetectorFiles) -> Callable[[Video], Detector]:
    """Load the detector that the settings name, and return a function that gives the detector for a video.

    Raises:
        FeatrayError: as `open_detector` does.
    """
    if settings.detector == "boxes":
        from featray.faces.boxes import BoxesFile

        return BoxesFile(settings, files).for_video
    network = open_detector(settings, files)
    return lambda video: network


def open_cutter(settings: DetectConfig) -> Cutter:
    """Return the function that cuts chips: `crop.interpolate`, or its GPU version.

    Raises:
        ModelError: there is no GPU.
    """
    if settings.device == "cpu":
        return interpolate
    from featray.faces.on_gpu import GpuCutter

    return GpuCutter()


def prepare_detector(settings: DetectConfig, files: DetectorFiles) -> None:
    """Do the slow work that is needed once per machine, so that `open_detector` does not spend a unit's time on it.

    Raises:
        FeatrayError: as `open_detector` does.
    """
    if settings.detector == "retinaface-r34" and settings.device == "cpu":
        from featray.faces.retinaface_r34 import prepare
        from featray.faces.weights import find_weights

        prepare(find_weights(settings, files.cache_dir), files.cache_dir)


def detector_sha256(settings: DetectConfig, files: DetectorFiles | None = None) -> str:
    """Return the digest of the detector's weights or boxes, 64 hex digits; part of the work key.

    A run calls this before it starts, so unusable weights or boxes are reported first.

    Raises:
        ConfigError: a package is not installed, or the boxes file is malformed.
        StorageError: the boxes file cannot be read.
        WeightsMissing: the weights were never pulled; this function does not download them.
        ModelError: the weights are not those of the detector.
    """
    return _SHA256[settings.detector](settings, files or DetectorFiles())


def _open_on_gpu(settings: DetectConfig, files: DetectorFiles) -> Detector:
    from featray.faces.on_gpu import GpuDetector

    return GpuDetector(settings, None if settings.detector == "retinaface-mnv1" else _planned_weights(settings, files))


def _open_mnv1(settings: DetectConfig, files: DetectorFiles) -> Detector:
    from featray.faces.retinaface_mnv1 import RetinaFaceMobileNet

    return RetinaFaceMobileNet(settings)


def _open_r34(settings: DetectConfig, files: DetectorFiles) -> Detector:
    from featray.faces.retinaface_r34 import RetinaFaceResNet34

    return RetinaFaceResNet34(settings, _planned_weights(settings, files), files.cache_dir)


def _open_retina_face(settings: DetectConfig, files: DetectorFiles) -> Detector:
    from featray.faces.retina_face import RetinaFacePackage

    return RetinaFacePackage(settings, _planned_weights(settings, files))


def _planned_weights(settings: DetectConfig, files: DetectorFiles) -> KnownFile:
    """Return the detector's weights; ModelError if they are not those that the run was planned with."""
    from featray.faces.weights import find_weights

    found = find_weights(settings, files.cache_dir)
    if files.sha256 not in (None, found.sha256):
        raise ModelError(f"{found.path}: changed since the run began; put the file back, or run again")
    return found


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
