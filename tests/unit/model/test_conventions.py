"""Conventions of signs: of each checkpoint, in columns, in work settings, and written to and read from `runs`."""

from __future__ import annotations

import numpy as np
import pytest

from featray.config import parse_config
from featray.errors import ConfigError
from featray.identity import release_name, result_settings, settings_hash
from featray.model.conventions import (
    CONVENTIONS,
    NEWEST,
    PYFEAT_2_0,
    PYFEAT_2_1_2,
    configured_conventions,
    parse_conventions,
)
from featray.model.outputs import RawOutputs, to_columns
from featray.model.synth import SYNTHETIC_VARIANTS

BASE = {"dataset": "test", "input": {"uris": ["a.mp4"]}, "output": {"uri": "out"}}
FILES = {"weights_sha256": "a" * 64, "detector_sha256": "b" * 64, "precision": "fp32", "embedder_sha256": None}
TURNED = NEWEST.negated("gaze_yaw", "pose_roll")


def model(conventions):
    return parse_config({**BASE, "model": {"conventions": conventions}}).model


def raw():
    rng = np.random.default_rng(0)
    shapes = {"au": 20, "emotion": 7, "valence_arousal": 2, "gaze": 2, "pose": 6, "blendshapes": 52}
    arrays = {name: rng.random((3, width), np.float32) for name, width in shapes.items()}
    return RawOutputs(**arrays, mesh=rng.random((3, 478, 3), np.float32))


def columns(conventions):
    return to_columns(raw(), np.ones((3, 3)), SYNTHETIC_VARIANTS["v25"], conventions)


def test_columns_of_py_feat_2_0_are_its_formulas():
    """From `feat/detector_v2.py` of the wheels 2.0.3 and 2.1.0: Pitch +head[0], Roll -head[2], Yaw +head[1]."""
    said, p, g = columns(PYFEAT_2_0), raw().pose, raw().gaze
    for name, expected in (
        ("pose_pitch", p[:, 0]), ("pose_roll", -p[:, 2]), ("pose_yaw", p[:, 1]), ("pose_x", p[:, 3]),
        ("pose_y", p[:, 4]), ("pose_z", p[:, 5]), ("gaze_yaw", g[:, 0]), ("gaze_pitch", g[:, 1]),
        ("gaze_angle", np.arccos(np.cos(g[:, 1].astype(float)) * np.cos(g[:, 0].astype(float)))),
    ):  # fmt: skip
        np.testing.assert_allclose(said[name], expected, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("name", [*NEWEST.signs])
def test_one_sign_turns_one_column(name):
    before, after = columns(NEWEST), columns(NEWEST.negated(name))
    changed = [column for column in before if not np.array_equal(before[column], after[column])]
    assert changed == [name]
    np.testing.assert_array_equal(after[name], -before[name])


def test_the_default_is_what_all_outputs_had():
    assert NEWEST == PYFEAT_2_1_2
    assert {name: values.tobytes() for name, values in columns(NEWEST).items()} == {
        name: values.tobytes() for name, values in to_columns(raw(), np.ones((3, 3)), SYNTHETIC_VARIANTS["v25"]).items()
    }


@pytest.mark.parametrize("conventions", [PYFEAT_2_0, PYFEAT_2_1_2, TURNED], ids=lambda one: one.name)
def test_runs_hold_them_readable(conventions):
    assert parse_conventions(conventions.text) == conventions
    assert "pose_pitch=" in conventions.text


@pytest.mark.parametrize("text", ["", "py-feat-2.1.2", "x: pose_pitch=+p1", f"{NEWEST.text} pose_x=+p3", "a\nb: c"])
def test_what_else_stands_there_is_refused(text):
    with pytest.raises(ConfigError, match="conventions"):
        parse_conventions(text)


def test_rows_of_an_older_featray_have_the_first_ones():
    assert parse_conventions(None) == PYFEAT_2_1_2


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("auto", None),
        ("py-feat-2.0", PYFEAT_2_0),
        ("py-feat-2.1.2", PYFEAT_2_1_2),
        ({"of": "py-feat-2.1.2", "negate": ["gaze_yaw", "pose_roll"]}, TURNED),
    ],
)
def test_they_may_be_set(written, found):
    assert configured_conventions(model(written)) == found


WRONG = ["py-feat-3", 1, {"of": "py-feat-2.0", "negate": ["AU12"]}, {"negate": ["gaze_yaw"]}]


@pytest.mark.parametrize("written", WRONG)
def test_what_cannot_be_set_is_said_with_what_can(written):
    with pytest.raises(ConfigError, match=r"model\.conventions: allowed is auto, py-feat-2\.1\.2, py-feat-2\.0, or"):
        model(written)


def test_every_name_may_be_set():
    assert [configured_conventions(model(name)) for name in CONVENTIONS] == [*CONVENTIONS.values()]


def test_releases_of_the_signs_that_outputs_had_keep_their_names():
    config = parse_config(BASE)
    before = result_settings(config, **FILES)
    assert "conventions" not in before
    # The name that the code gave to these settings before there were conventions.
    assert release_name("m", before) == "m-75c378d3"
    for same in (NEWEST, TURNED.negated("gaze_yaw", "pose_roll")):
        assert result_settings(config, **FILES, conventions=same.setting) == before
    others = [result_settings(config, **FILES, conventions=one.setting) for one in (PYFEAT_2_0, TURNED)]
    assert len({settings_hash(one) for one in (before, *others)}) == 3
    assert others[0]["conventions"] == "pose_pitch=+p0 pose_roll=-p2 pose_yaw=+p1 gaze_yaw=+g0 gaze_pitch=+g1"
