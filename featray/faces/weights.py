"""Faces. The weights of detectors and embedders that do not ship with featray: file, licence and local path.

Invariant: only `pull_file` uses the network. A run and each of its workers either finds the file
or names the command that fetches it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from featray.config import DetectConfig
from featray.errors import ModelError
from featray.faces.detector import KnownFile
from featray.weights.cache import sha256_of_file
from featray.weights.hub import HubFile, fetch, open_pulled


@dataclass(frozen=True)
class FaceWeights:
    """Published weights of a detector or an embedder.

    Attributes:
        hub_file: location of the file; the first pull records its commit and sha256.
        size_mb: size of the file, computed from its tensors.
        license: licence of the weights.
        check: raises ModelError if a file cannot be these weights.
    """

    hub_file: HubFile
    description: str
    size_mb: int
    license: str
    check: Callable[[Path], None]


def _check_r34(path: Path) -> None:
    from featray.faces.retinaface_r34 import check_tensors

    check_tensors(path)


def _check_retina_face(path: Path) -> None:
    from featray.faces.retina_face import open_network

    open_network(path, path.read_bytes())


_FROM_HUB: Final = "main"

DETECTOR_WEIGHTS: Final[dict[str, FaceWeights]] = {
    "retinaface-r34": FaceWeights(
        HubFile("py-feat/retinaface_r34", "model.safetensors", _FROM_HUB, "retinaface-r34", "detect.weights"),
        "py-feat's face detector (RetinaFace, ResNet-34)",
        size_mb=89,
        license="MIT",
        check=_check_r34,
    ),
    "retina-face": FaceWeights(
        HubFile("serengil/deepface", "retinaface.onnx", _FROM_HUB, "retina-face", "detect.weights"),
        "the face detector of the package retina-face (RetinaFace, ResNet-50)",
        size_mb=118,
        license="MIT; they go back to InsightFace, see its terms",
        check=_check_retina_face,
    ),
}
"""Weights of detectors, by the detector's name, which is also their name for `featray models pull`."""


def find_weights(settings: DetectConfig, cache_dir: Path) -> KnownFile:
    """Find the weights of the configured detector on this machine; never uses the network.

    Raises:
        WeightsMissing: they were not pulled and `detect.weights` is not set.
        ModelError: `detect.weights` names no file or another network's, or the pulled file is damaged.
    """
    return find_file(DETECTOR_WEIGHTS[settings.detector], settings.weights, settings.revision, cache_dir)


def pull_weights(detector: str, *, revision: str | None, sha256: str | None, cache_dir: Path) -> KnownFile:
    """Download the weights of a detector in DETECTOR_WEIGHTS, as `pull_file` does."""
    return pull_file(DETECTOR_WEIGHTS[detector], revision=revision, sha256=sha256, cache_dir=cache_dir)


def find_file(known: FaceWeights, own: str | None, revision: str | None, cache_dir: Path) -> KnownFile:
    """Find published weights on this machine; never uses the network.

    Args:
        known: the weights.
        own: path of the user's own file; None for the pulled one.
        revision: branch, tag or commit on the hub at which they were pulled; None for main.
        cache_dir: folder of pulled weights.

    Raises:
        WeightsMissing: they were not pulled.
        ModelError: `own` is not a file or belongs to another network, or the pulled file is damaged.
    """
    if own is None:
        found, commit = open_pulled(_at(known.hub_file, revision), cache_dir, partial(_described, known))
        return replace(found, revision=commit)
    path = Path(own).expanduser()
    if not path.is_file():
        raise ModelError(f"{known.hub_file.setting}: {own}: no such file")
    return _checked(known, path)


def pull_file(known: FaceWeights, *, revision: str | None, sha256: str | None, cache_dir: Path) -> KnownFile:
    """Download published weights once, check them, and record commit and sha256.

    Args:
        known: the weights.
        revision: branch, tag or commit on the hub; None for main. Runs use the one in their config.
        sha256: hex digest that the file must have, or None.
        cache_dir: folder that keeps the weights.

    Raises:
        WeightsMissing: the hub cannot be reached.
        ModelError: the file is not the expected one.
    """
    found, commit = fetch(_at(known.hub_file, revision), cache_dir, partial(_checked, known), sha256=sha256)
    return replace(found, revision=commit)


def _checked(known: FaceWeights, path: Path) -> KnownFile:
    known.check(path)
    return _described(known, path)


def _described(known: FaceWeights, path: Path) -> KnownFile:
    """Describe a file of weights, with its sha256."""
    try:
        return KnownFile(path, sha256_of_file(path), known.license)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error}); pull it again") from error


def _at(hub_file: HubFile, revision: str | None) -> HubFile:
    return hub_file if revision is None else replace(hub_file, revision=revision)
