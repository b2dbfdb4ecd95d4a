"""Signs of the package's versions, and the geometry of `featray models check`, compared with py-feat's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from feat.utils.face_gaze import estimate_gaze
from feat.utils.face_pose import estimate_face_pose_from_mesh, load_canonical_face_model

from featray.meaning.geometry import canonical_face, fit_rotation, mesh_signals
from featray.model.conventions import PYFEAT_2_0
from featray.model.outputs import to_columns
from tests.fixtures.told import face_clip

from .conftest import CASES

pytestmark = pytest.mark.parity

TO_CANONICAL = np.asarray([1.0, -1.0, -1.0])
"""py-feat fits in axes with y up and z out of the face; in frames, y points down and z away."""


def test_the_canonical_face_is_pyfeats():
    np.testing.assert_array_equal(canonical_face(), load_canonical_face_model().numpy().astype(np.float64))


@pytest.mark.parametrize("case", CASES)
def test_rotations_of_what_the_network_says(case, pair_of, pictures, report):
    """The same synthetic checkpoint is used; its meshes are noise, so every direction occurs."""
    _, ours = pair_of(case)
    mesh = np.stack(
        [np.reshape(row, (478, 3)) for row in ours.tables(pictures["photo"])["mesh"]["mesh_xyz"].to_pylist()]
    )
    check_rotations(mesh.astype(np.float64), report, case)


def test_rotations_of_a_real_face(report):
    check_rotations(face_clip().mesh_px, report, "MediaPipe's meshes of the bundled clip")


def check_rotations(mesh, report, name):
    rotation, _ = fit_rotation(mesh)
    theirs, _ = estimate_face_pose_from_mesh(torch.from_numpy(mesh * TO_CANONICAL), return_euler_angles=False,
                                             canonical=load_canonical_face_model().double())  # fmt: skip
    turned = theirs.numpy() * TO_CANONICAL[:, None] * TO_CANONICAL
    report(f"rotations of {name}: off by at most {np.abs(rotation - turned).max():.0e}")
    np.testing.assert_allclose(rotation, turned, atol=1e-9)


def test_irises_move_the_same_way():
    """py-feat's gaze of a mesh, in the image's plane: yaw positive to the subject's left, pitch up."""
    mesh = face_clip().mesh_px
    pitch, yaw = estimate_gaze(torch.from_numpy(mesh * TO_CANONICAL))["combined_pitch_yaw"].numpy().T
    ours = mesh_signals(mesh)
    # Its yaw is atan2(-x, z) with x to the image's right: positive to the image's left, despite its documentation.
    assert np.corrcoef(ours["iris x"], -yaw)[0, 1] > 0.5
    assert np.corrcoef(ours["iris y"], pitch)[0, 1] > 0.5


def test_py_feat_2_0_has_the_formulas_of_its_wheel(pair_of, pictures):
    """The formulas of `feat/detector_v2.py` of py-feat 2.0.3, applied to the network's outputs in 2.1.5.

    The pose is [p0, -p2, p1, p3, p4, p5], and the gaze is unchanged.
    """
    pyfeat, ours = pair_of("v25")
    picture = pictures["photo"]
    chips = torch.from_numpy(picture.chips).permute(0, 3, 1, 2).float() / 255
    said = pyfeat.detector.multitask(chips)
    columns = to_columns(ours._engine(picture.chips), picture.squares, ours._config, PYFEAT_2_0)
    p, (yaw, pitch) = said.pose, said.gaze.T
    expected = {
        "pose_pitch": p[:, 0], "pose_roll": -p[:, 2], "pose_yaw": p[:, 1],
        "pose_x": p[:, 3], "pose_y": p[:, 4], "pose_z": p[:, 5],
        "gaze_yaw": yaw, "gaze_pitch": pitch,
        "gaze_angle": np.arccos(np.clip(np.cos(pitch) * np.cos(yaw), -1.0, 1.0)),
    }  # fmt: skip
    for name, values in expected.items():
        np.testing.assert_allclose(columns[name], values, atol=1e-4, err_msg=name)
