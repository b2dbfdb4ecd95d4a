"""Signs, names and coordinate frames of the columns follow py-feat 2.1.5, checked on golden raw numbers."""

from __future__ import annotations

import numpy as np
import pytest

from featray.model.outputs import RawOutputs, flat_widths, split_flat, to_columns
from featray.model.synth import SYNTHETIC_VARIANTS
from featray.names import (
    AU_NAMES_20,
    BLENDSHAPE_NAMES,
    EMOTION_NAMES_7,
    EMOTION_NAMES_8,
)
from tests.fixtures.golden import DATA, VARIANTS, golden

CROPS = np.array([[96.0, 51.0, 108.0], [-66.3, -20.0, 300.0], [0, 0, 1], [3800.25, 2100.5, 64.0]])


def raw_of(variant: str) -> RawOutputs:
    return RawOutputs(**({"blendshapes": None} | golden(variant)))


@pytest.mark.parametrize("variant", VARIANTS)
def test_columns_are_complete(variant):
    columns = to_columns(raw_of(variant), CROPS, SYNTHETIC_VARIANTS[variant])
    config = SYNTHETIC_VARIANTS[variant]
    expected = {*AU_NAMES_20, "valence", "arousal", "gaze_yaw", "gaze_pitch", "gaze_angle", "mesh_xyz"}
    expected |= {f"pose_{name}" for name in ("pitch", "roll", "yaw", "x", "y", "z")}
    expected |= {f"emotion_{name}" for name in (EMOTION_NAMES_7 if config.n_emotion == 7 else EMOTION_NAMES_8)}
    expected |= set(BLENDSHAPE_NAMES) if config.n_blendshape else set()
    expected |= {"AU16", "AU18", "AU27", "AU45"} if config.n_au == 24 else set()
    assert set(columns) == expected
    for name, values in columns.items():
        assert values.dtype == np.float32
        assert values.shape == ((4, 1434) if name == "mesh_xyz" else (4,))
        assert values.flags.c_contiguous


@pytest.mark.parametrize("variant", VARIANTS)
def test_names_are_in_the_order_of_the_outputs(variant):
    with np.load(DATA / "model" / f"expected_{variant}.npz") as file:
        au_names, emotion_names = file["au_names"].tolist(), file["emotion_names"].tolist()
        au, emotion = file["au"], file["emotion"]
    columns = to_columns(raw_of(variant), CROPS, SYNTHETIC_VARIANTS[variant])
    for index, name in enumerate(au_names):
        assert np.array_equal(columns[name], au[:, index])
    for index, name in enumerate(emotion_names):
        assert np.array_equal(columns[f"emotion_{name.lower()}"], emotion[:, index])


def test_pose_and_gaze_signs():
    raw = raw_of("v25")
    columns = to_columns(raw, CROPS, SYNTHETIC_VARIANTS["v25"])
    assert np.array_equal(columns["pose_pitch"], -raw.pose[:, 0])
    assert np.array_equal(columns["pose_yaw"], raw.pose[:, 1])
    assert np.array_equal(columns["pose_roll"], -raw.pose[:, 2])
    assert np.array_equal(columns["pose_z"], raw.pose[:, 5])
    assert np.array_equal(columns["gaze_yaw"], raw.gaze[:, 0])
    assert np.array_equal(columns["gaze_pitch"], -raw.gaze[:, 1])
    expected = np.arccos(np.cos(raw.gaze[:, 1]) * np.cos(raw.gaze[:, 0]))
    np.testing.assert_allclose(columns["gaze_angle"], expected, atol=1e-6)
    assert np.array_equal(columns["valence"], raw.valence_arousal[:, 0])
    assert np.array_equal(columns["jawOpen"], raw.blendshapes[:, BLENDSHAPE_NAMES.index("jawOpen")])


def test_gaze_angle_of_a_straight_gaze_is_zero():
    raw = raw_of("v25")
    straight = RawOutputs(**(vars(raw) | {"gaze": np.zeros((4, 2), np.float32)}))
    assert to_columns(straight, CROPS, SYNTHETIC_VARIANTS["v25"])["gaze_angle"].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(("variant", "unit"), [("v25", 1.0), ("v24", 224.0)])
def test_mesh_lands_in_the_frame(variant, unit):
    mesh = np.zeros((4, 478, 3), np.float32)
    mesh[:, 0] = [0.5 * unit, 0.25 * unit, -7.0]
    raw = RawOutputs(**(vars(raw_of(variant)) | {"mesh": mesh}))
    placed = to_columns(raw, CROPS, SYNTHETIC_VARIANTS[variant])["mesh_xyz"].reshape(4, 478, 3)
    expected = np.column_stack([CROPS[:, :2] + [0.5, 0.25] * CROPS[:, 2:], [-7.0] * 4])
    np.testing.assert_allclose(placed[:, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(placed[:, 1, :2], CROPS[:, :2], rtol=1e-6)


def test_crops_must_match():
    with pytest.raises(ValueError, match="crops"):
        to_columns(raw_of("v25"), CROPS[:2], SYNTHETIC_VARIANTS["v25"])


def test_no_faces():
    config = SYNTHETIC_VARIANTS["v25"]
    raw = split_flat(np.empty((0, sum(flat_widths(config).values())), np.float32), config)
    assert len(raw) == 0
    assert raw.mesh.shape == (0, 478, 3)
    columns = to_columns(raw, np.empty((0, 3)), config)
    assert columns["mesh_xyz"].shape == (0, 1434)
    assert columns["AU01"].shape == (0,)


def test_flat_outputs_of_the_wrong_width():
    with pytest.raises(ValueError, match="flat outputs"):
        split_flat(np.zeros((2, 7), np.float32), SYNTHETIC_VARIANTS["v25"])
