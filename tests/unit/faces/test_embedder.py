"""The shipped embedder gives the same numbers as its original package, and faces are aligned before embedding."""

from itertools import islice

import numpy as np
import pytest

from featray.config_identify import IdentifyConfig
from featray.errors import ModelError
from featray.faces import embedder_face_api
from featray.faces.alignment import align_chip, landmarks_in_chip, similarity_to
from featray.faces.crop import crop_squares, cut_chip
from featray.faces.embedder import embed_chips, embedder_of, open_embedder
from tests.fixtures.found_faces import all_frames
from tests.fixtures.golden import DATA


@pytest.fixture(scope="module")
def embedder():
    return open_embedder(IdentifyConfig())


def patterns():
    """Return three pictures without a face, which the original package's code was given too."""
    y, x = np.mgrid[:150, :150]
    waves = [127 + 100 * np.sin(x / 9 + k) * np.cos(y / (7 + k)) for k in range(3)]
    pictures = [np.stack([waves[k], (x * 1.5) % 255, (y * (1 + k)) % 255], -1) for k in range(3)]
    return np.stack(pictures).round().clip(0, 255).astype(np.uint8)


def test_it_gives_what_tensorflow_js_gives(embedder):
    """face-api 1.7.15 under its bundled TensorFlow.js (CPU), node 20; it differed by 4e-6 when the file was made."""
    published = np.load(DATA / "faces" / "face_api_descriptors.npy")
    assert np.abs(embedder.descriptors(patterns()) - published).max() < 1e-4


def test_a_face_does_not_depend_on_its_neighbours(embedder):
    faces = np.concatenate([patterns(), patterns()[::-1]])
    together = embedder(faces)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    for i, face in enumerate(faces):
        assert (embedder(face[None])[0] == together[i]).all()
    assert embedder(faces[:0]).shape == (0, 128)


def test_damaged_weights_are_refused(tmp_path, monkeypatch):
    damaged = tmp_path / "weights.safetensors"
    damaged.write_bytes(embedder_face_api.WEIGHTS.read_bytes()[:-1] + b"x")
    monkeypatch.setattr(embedder_face_api, "WEIGHTS", damaged)
    with pytest.raises(ModelError, match="install featray again"):
        open_embedder(IdentifyConfig())
    assert embedder_of(IdentifyConfig(enabled=True, accept_biometric=True)) == embedder_face_api.WEIGHTS_SHA256
    assert embedder_of(IdentifyConfig()) is None


def test_a_similarity_is_found_again():
    rng = np.random.default_rng(3)
    template = embedder_face_api.FaceApiEmbedder.template
    for _ in range(50):
        angle, scale, shift = rng.uniform(-3, 3), rng.uniform(0.1, 9), rng.uniform(-400, 400, 2)
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        points = template @ turn.T + shift
        found = similarity_to(points, template)
        assert np.allclose(points @ found[:, :2].T + found[:, 2], template, atol=1e-6)
    with pytest.raises(ValueError, match="no direction"):
        similarity_to(np.ones((5, 2)), template)


def test_what_is_at_the_landmarks_comes_to_lie_on_the_template():
    template = embedder_face_api.FaceApiEmbedder.template
    square = np.array([100.0, 40.0, 300.0])
    chip = np.zeros((256, 256, 3), np.uint8)
    angle = 0.3
    turn = 1.6 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    marks = (template - template.mean(0)) @ turn.T + [250, 190]
    for x, y in np.rint(landmarks_in_chip(marks, square)).astype(int):
        chip[y - 3 : y + 4, x - 3 : x + 4] = 255
    face = align_chip(chip, marks, square, template, 150)
    for x, y in np.rint(template).astype(int):
        assert face[y, x].min() == 255
    assert face.mean() < 255 * 5 * 100 / 150**2


def test_a_face_that_is_rolled_keeps_its_embedding(embedder, face_chips):
    """Within 0.03 of cosine over 25 degrees, less than between people. Without alignment, the cosine is 0.9."""
    chips, marks, squares = face_chips
    upright = embed_chips(embedder, chips, marks, squares)
    angle = np.deg2rad(25)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    rolled, where = [], []
    for chip, mark, square in zip(chips, marks, squares, strict=True):
        there = landmarks_in_chip(mark, square)
        grid = np.stack(np.meshgrid(np.arange(256), np.arange(256)), -1) - 127.5
        source = np.rint(grid @ turn + 127.5).clip(0, 255).astype(int)
        rolled.append(chip[source[..., 1], source[..., 0]])
        turned = (there - 127.5) @ turn.T + 127.5
        where.append((turned + 0.5) * square[2] / 256 + square[:2])
    again = embed_chips(embedder, np.stack(rolled), np.stack(where), squares)
    assert (upright * again).sum(axis=1).min() > 0.97


@pytest.fixture(scope="module")
def face_chips(clips, detector):
    """Return chips, landmarks and squares of four faces from the shipped clip."""
    chips, marks, squares = [], [], []
    for frame in islice(all_frames(clips / "face.mp4"), 0, 160, 40):
        (faces,) = detector([frame])
        square = crop_squares(faces.box_xyxy)[0]
        chips.append(cut_chip(frame.coded_rgb(), square))
        marks.append(faces.landmarks5[0].reshape(5, 2).astype(np.float64))
        squares.append(square)
    return np.stack(chips), np.stack(marks), np.stack(squares)
