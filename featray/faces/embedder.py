"""Faces. Embedders: networks that give similar vectors for pictures of the same person. They are chosen by name.

An embedding identifies a person: it is biometric data. No embedder runs unless `identify.enabled` is set.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from featray.config_identify import IdentifyConfig
from featray.faces.alignment import align_chip
from featray.faces.detector import KnownFile


class Embedder(Protocol):
    """A face embedder; one thread.

    Attributes:
        name: name in `identify.embedder`.
        sha256: digest of the weights.
        width: numbers per embedding.
        size_px: side of the aligned picture.
        template: float64 `[5, 2]`, x and y in px: positions of the subject's right eye, left eye, nose tip, right and
            left mouth corner in the aligned picture.
    """

    name: str
    sha256: str
    width: int
    size_px: int
    template: NDArray[np.float64]

    def __call__(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the embeddings `[n, width]`, float32 of length 1, of aligned faces `[n, size_px, size_px, 3]` RGB."""
        ...


_EMBEDDERS: Final[dict[str, str]] = {
    "face-api": "featray.faces.embedder_face_api:FaceApiEmbedder",
    "arcface-r50": "featray.faces.embedder_arcface:ArcFaceEmbedder",
}


def open_embedder(config: IdentifyConfig) -> Embedder:
    """Load an embedder; nothing is fetched here.

    Raises:
        LicenseError: its weights' licence is not accepted.
        WeightsMissing: its weights were never pulled.
        ModelError: its weights are damaged.
    """
    weights = _weights_of(config)
    embedder: Embedder = _class_of(config.embedder)(*(() if weights is None else (weights,)))
    return embedder


def embedder_of(config: IdentifyConfig) -> str | None:
    """Return the sha256 of the embedder's weights, 64 hex digits, part of the work key; None if it is disabled.

    A run calls this before it starts, to find out whether the weights can be used.

    Raises:
        FeatrayError: as `open_embedder` does.
    """
    if not config.enabled:
        return None
    weights = _weights_of(config)
    return str(_class_of(config.embedder).sha256) if weights is None else weights.sha256


def _weights_of(config: IdentifyConfig) -> KnownFile | None:
    """Return the file of an embedder whose weights do not ship with featray."""
    if config.embedder == "face-api":
        return None
    from featray.config import cache_dir
    from featray.faces.embedder_weights import find_embedder

    return find_embedder(config, cache_dir())


def _class_of(name: str) -> Any:
    module, _, attribute = _EMBEDDERS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return vectors `[n, width]` scaled to length 1."""
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = (vectors / np.maximum(norm, 1e-12)).astype(np.float32)
    return scaled


def in_batches(
    infer: Callable[[NDArray[np.uint8]], NDArray[np.float32]], faces: NDArray[np.uint8], size: int, width: int
) -> NDArray[np.float32]:
    """Return what `infer` returns for batches of exactly `size` faces, `[n, width]`.

    The last batch is padded, so that an embedding does not depend on the number of faces.
    """
    found = np.empty((len(faces), width), np.float32)
    staging = np.zeros((size, *faces.shape[1:]), np.uint8)
    for start in range(0, len(faces), size):
        batch = faces[start : start + size]
        staging[: len(batch)] = batch
        found[start : start + len(batch)] = infer(staging)[: len(batch)]
    return found


def embed_chips(
    embedder: Embedder,
    chips: NDArray[np.uint8],
    landmarks5: NDArray[np.float64],
    squares: NDArray[np.float64],
) -> NDArray[np.float32]:
    """Return the embeddings `[n, width]` of faces in chips.

    Args:
        embedder: the embedder.
        chips: uint8 `[n, 256, 256, 3]` RGB.
        landmarks5: `[n, 5, 2]`, x and y in frame px.
        squares: `[n, 3]`: `crop_x, crop_y, crop_side` in frame px.

    Raises:
        ModelError: the network fails.
    """
    faces = np.empty((len(chips), embedder.size_px, embedder.size_px, 3), np.uint8)
    for i, chip in enumerate(chips):
        faces[i] = align_chip(chip, landmarks5[i], squares[i], embedder.template, embedder.size_px)
    return embedder(faces)
