"""Face embeddings: py-feat's own ArcFace and `arcface-r50`, with the same weights, on the same aligned faces."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from featray.faces.alignment import similarity_to
from featray.faces.detector import KnownFile
from featray.faces.embedder_arcface import SIZE_PX, ArcFaceEmbedder
from featray.weights.cache import sha256_of_file
from tests.fixtures.arcface_weights import write_arcface_weights

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module", params=[0, 7])
def weights(request, tmp_path_factory):
    return write_arcface_weights(tmp_path_factory.mktemp("arcface") / "arcface_r50.safetensors", seed=request.param)


@pytest.fixture(scope="module")
def faces(pictures):
    """Return squares of real pictures and noise, in the form of aligned faces: uint8 `[n, 112, 112, 3]`."""
    rng = np.random.default_rng(3)
    found = []
    for picture in pictures.values():
        height, width = picture.frame.shape[:2]
        for _ in range(3):
            y, x = rng.integers(0, max(height - SIZE_PX, 1)), rng.integers(0, max(width - SIZE_PX, 1))
            square = picture.frame[y : y + SIZE_PX, x : x + SIZE_PX]
            found.append(np.resize(square, (SIZE_PX, SIZE_PX, 3)))
    return np.stack(found).astype(np.uint8)


def test_embeddings_are_equal(weights, faces, monkeypatch, report):
    """py-feat's own loader, which checks names, loads the same file."""
    from feat.identity_detectors.arcface.arcface_model import load_arcface_identity_detector

    monkeypatch.setenv("FEAT_ARCFACE_R50_PATH", str(weights))
    theirs = load_arcface_identity_detector("cpu")
    with torch.inference_mode():
        expected = theirs(torch.from_numpy(faces).permute(0, 3, 1, 2).float() / 255).numpy()
    found = ArcFaceEmbedder(KnownFile(weights, sha256_of_file(weights), "")).descriptors(faces)
    spread = np.abs(expected - expected.mean(axis=0)).mean()
    worst = np.abs(found - expected).max()
    cosine = (found * expected).sum(axis=1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    report(f"arcface-r50: off by at most {worst:.2g} where faces differ by {spread:.2g}, cosine {cosine.min():.8f}")
    assert spread > 0.01 and worst < 1e-4 * max(1.0, np.abs(expected).max()) and cosine.min() > 1 - 1e-6
    assert load_file(weights).keys() == {n for n in theirs.net.state_dict() if not n.endswith("num_batches_tracked")}


def test_the_template_is_the_one_that_pyfeat_aligns_to():
    from feat.evaluation.runner import ARCFACE_TEMPLATE_112

    assert np.array_equal(ArcFaceEmbedder.template, ARCFACE_TEMPLATE_112)
    assert np.allclose(similarity_to(ARCFACE_TEMPLATE_112 * 2 + 5, ArcFaceEmbedder.template)[:, :2], np.eye(2) / 2)
