"""Geometry of a face: with known rotations, and on a real face compared with the detector's landmarks."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from featray.meaning.geometry import (
    canonical_face,
    fit_rotation,
    five_points,
    head_angles,
    landmark_angles,
    mesh_signals,
    mirrored_vertices,
)
from featray.views.directions import head_rotations
from infra.assets import extract_canonical_face
from tests.fixtures.told import face_clip

IRISES = np.asarray([[-3.2, 2.6, 3.4]] * 5 + [[3.2, 2.6, 3.4]] * 5)
TO_FRAME = np.asarray([1, -1, -1])


def turned(pitch=0.0, yaw=0.0, roll=0.0):
    """Return a mesh `[1, 478, 3]` of the canonical face in a pose, somewhere in a frame."""
    face = np.concatenate([canonical_face(), IRISES]) * TO_FRAME
    return 12 * head_rotations([pitch], [yaw], [roll]).apply(face)[None] + [300, 200, 0]


def test_the_canonical_face_is_the_one_that_its_script_extracts():
    numbers = canonical_face().astype("<f4").tobytes()
    assert hashlib.sha256(numbers).hexdigest() == extract_canonical_face.SHA256


def test_the_canonical_face_is_symmetric_and_its_right_is_the_images_left():
    face, across = canonical_face(), mirrored_vertices()
    np.testing.assert_allclose(face[across[:468]], face * [-1, 1, 1], atol=1e-6)
    assert sorted(across) == list(range(478))
    assert (across[across] == np.arange(478)).all()
    assert face[33, 0] < 0 < face[263, 0], "the subject's right eye, 33, is on the image's left"


@pytest.mark.parametrize(
    "pose", [{"pitch": 0.4}, {"yaw": -0.7}, {"roll": 0.3}, {"pitch": 0.2, "yaw": 0.5, "roll": -0.1}]
)
def test_the_fit_finds_the_pose_that_columns_mean(pose):
    rotation, residual = fit_rotation(turned(**pose))
    found = {name: float(values[0]) for name, values in head_angles(rotation).items()}
    assert found == pytest.approx({"pitch": 0, "yaw": 0, "roll": 0} | pose, abs=1e-9)
    assert residual == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(
        rotation[0],
        head_rotations(**{f"{k}_rad": [v] for k, v in ({"pitch": 0, "yaw": 0, "roll": 0} | pose).items()}).as_matrix()[
            0
        ],
        atol=1e-9,
    )


@pytest.mark.parametrize("axis", ["pitch", "yaw", "roll"])
def test_landmarks_say_the_same_of_the_head(axis):
    angles = [landmark_angles(five_points(turned(**{axis: value})))[axis][0] for value in np.linspace(-0.5, 0.5, 11)]
    assert (np.diff(angles) > 0).all()


def test_a_mesh_inside_out_does_not_fit():
    rotation, residual = fit_rotation(turned(yaw=0.4) * [1, 1, -1])
    assert residual[0] > 0.5
    assert np.linalg.det(rotation[0]) == pytest.approx(1)
    assert head_angles(rotation)["yaw"][0] < 0, "and its angles come out turned"


def test_degenerate_meshes_are_finite():
    for mesh in (np.zeros((2, 478, 3)), np.full((2, 478, 3), 7.0)):
        rotation, residual = fit_rotation(mesh)
        assert np.isfinite(rotation).all() and np.isfinite(residual).all()
        assert all(np.isfinite(values).all() for values in mesh_signals(mesh).values())


def test_eyes_and_mouth_move_the_right_way():
    still = turned()
    moved = still.copy()
    moved[:, [468, 473], 0] += 5  # to the image's right
    moved[:, [468, 473], 1] -= 5  # up
    moved[:, 374, 1] += 4  # the left eye opens
    moved[:, 14, 1] += 10
    moved[:, 291, 1] -= 6  # the left corner of the mouth rises
    moved[:, [107, 336, 70, 300, 105, 334], 1] -= 3
    before, after = mesh_signals(still), mesh_signals(moved)
    assert all(after[name] > before[name] for name in before), before


def test_a_real_face_agrees_with_the_detector():
    """MediaPipe's mesh and the shipped detector's landmarks on one clip, trained on different data."""
    clip = face_clip()
    rotation, residual = fit_rotation(clip.mesh_px)
    assert residual.max() < 0.2
    mesh, landmarks = head_angles(rotation), landmark_angles(clip.landmarks5)
    found = {axis: np.corrcoef(mesh[axis], landmarks[axis])[0, 1] for axis in mesh}
    assert found["pitch"] > 0.85 and found["yaw"] > 0.9 and found["roll"] > 0.97
    side = (clip.boxes[:, 2:] - clip.boxes[:, :2]).max(axis=1)
    assert np.median(np.linalg.norm(five_points(clip.mesh_px) - clip.landmarks5, axis=2).mean(axis=1) / side) < 0.04


def test_angles_are_a_rotation_vectors():
    pose = Rotation.from_rotvec([0.3, -0.5, 0.2]).as_matrix()[None]
    assert {k: float(v[0]) for k, v in head_angles(pose).items()} == pytest.approx(
        {"pitch": -0.3, "yaw": -0.5, "roll": -0.2}
    )
