"""A correct network passes; each single wrong sign or swap is named, and nothing else.

The mesh is MediaPipe's of the bundled clip and the landmarks are the shipped detector's, so the geometry is that of a
real face. The outputs of the heads are built from it (`tests/fixtures/told.py`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import yaml

from featray.config import parse_config
from featray.meaning.examine import examine
from featray.meaning.faults import FAULTS
from featray.meaning.pairs import LAYOUTS, PAIRS, changed_mesh
from featray.meaning.watched import SIDED_PAIRS
from featray.model.conventions import NEWEST, PYFEAT_2_0, configured_conventions
from featray.names import BLENDSHAPE_NAMES
from tests.fixtures.told import face_clip, mirror_image, watched

CLIP = face_clip()
CONFIG = {"dataset": "test", "input": {"uris": ["a.mp4"]}, "output": {"uri": "out"}}
BOTH_SIDES = ("eyeBlink", "browOuterUp", "browDown", "mouthSmile")


def swapped(*pairs):
    """Return a change that swaps columns."""
    return lambda columns: {**columns, **{a: columns[b] for a, b in pairs}, **{b: columns[a] for a, b in pairs}}


def negated(*names):
    return lambda columns: {**columns, **{name: -columns[name] for name in names}}


def inverted(name):
    names = [f"{name}Left", f"{name}Right"] if name in BOTH_SIDES else [name]
    return lambda columns: {**columns, **{one: 1 - columns[one] for one in names}}


def in_mirrored_chips():
    """Return a recording of a network that sees mirrored chips, with its mesh in the mirror image."""
    mesh = changed_mesh(changed_mesh(CLIP.mesh_px, CLIP.squares, "mirrored"), CLIP.squares, "with its sides swapped")
    return watched(change=mirror_image, mesh_px=mesh)


def in_the_wrong_channels():
    rng = np.random.default_rng(3)
    off = rng.normal(0, 0.04, (len(CLIP.mesh), 1, 3)) * CLIP.squares[:, None, 2:]
    right = watched()
    return watched(mesh_px=CLIP.mesh_px + off, swapped_mesh_px=CLIP.mesh_px[right.some])


SIGNED = ("pose_pitch", "pose_yaw", "pose_roll", "gaze_yaw", "gaze_pitch")
IN_SHARES = (
    *("emotion_happy", "AU43", "AU25", "AU26", "AU01", "AU02", "AU04", "AU06", "AU12"),
    *("eyeBlink", "jawOpen", "browInnerUp", "browOuterUp", "browDown", "mouthSmile"),
)
AXES = [("pose_pitch", "pose_yaw"), ("pose_pitch", "pose_roll"), ("pose_yaw", "pose_roll"), ("gaze_pitch", "gaze_yaw")]

PLANTED = {
    **{name: lambda name=name: watched(negated(name)) for name in (*SIGNED, "valence")},
    **{name: lambda name=name: watched(inverted(name)) for name in IN_SHARES},
    **{f"{a} and {b}, which are swapped": lambda a=a, b=b: watched(swapped((a, b))) for a, b in AXES},
    "Left and Right of the blendshapes, which are swapped": lambda: watched(
        swapped(*((f"{name}Left", f"{name}Right") for name in SIDED_PAIRS))
    ),
    "eyeLookUp and eyeLookDown": lambda: watched(
        swapped(*((f"eyeLookUp{side}", f"eyeLookDown{side}") for side in ("Left", "Right")))
    ),
    "depth of the mesh (z), which is inside out": lambda: watched(mesh_px=CLIP.mesh_px * [1, 1, -1]),
    "the chips, which are mirrored, or the detector's landmarks": in_mirrored_chips,
    "red and blue of the chips, which are swapped": in_the_wrong_channels,
}


def test_a_network_that_is_right_passes():
    found = examine([watched()], NEWEST)
    assert (found.passed, found.faults) == (True, ())
    assert found.counts == {"agrees": len(found.rows)}, [row.name for row in found.rows if row.verdict != "agrees"]
    assert found.frames == len(CLIP.mesh) == 158
    assert {(row.first, row.second) for row in found.rows} >= {(pair.first, pair.second) for pair in PAIRS}


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_wrong_is_named_and_nothing_else(name):
    found = examine([PLANTED[name]()], NEWEST)
    assert found.faults == (name,), [(row.name, row.verdict) for row in found.rows if row.verdict != "agrees"]
    assert not found.passed
    assert name in found.advice


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_mesh_that_lies_wrongly_is_named(layout):
    (name,) = examine([watched(mesh_px=changed_mesh(CLIP.mesh_px, CLIP.squares, layout))], NEWEST).faults
    assert name.startswith("mesh, which is ")
    assert layout.removeprefix("with ") in name or layout.removeprefix("with its ") in name


def test_several_faults_are_named_together():
    """The signs of another version, as for a checkpoint with the wrong conventions."""
    found = examine([watched(negated("pose_pitch", "gaze_pitch"))], NEWEST)
    assert found.faults == ("pose_pitch", "gaze_pitch")
    assert found.advice.endswith(f"Set model.conventions: {PYFEAT_2_0.name}")


def test_the_advice_on_a_sign_can_be_followed():
    found = examine([watched(negated("gaze_yaw"))], NEWEST)
    setting = found.advice.partition("model.conventions: ")[2]
    model = parse_config({**CONFIG, "model": {"conventions": yaml.safe_load(setting)}}).model
    assert configured_conventions(model).signs == {**NEWEST.signs, "gaze_yaw": -1}


def test_what_a_checkpoint_does_not_estimate_is_no_fault():
    clip = watched(negated("pose_pitch"))
    found = examine([clip], NEWEST, unusable=("pose_pitch",))
    assert (found.passed, found.faults) == (True, ())
    assert {row.name for row in found.rows if row.verdict == "not estimated"} == {
        "pose_pitch ~ mesh pitch", "pose_pitch ~ landmarks pitch", "pose_pitch ~ pose_pitch of the mirror image",
    }  # fmt: skip


def test_footage_that_shows_too_little_is_not_enough():
    """A head that does not turn and eyes that do not move: nothing is opposed, but it does not pass."""
    found = examine([watched(lambda columns: {name: np.full_like(one, 0.3) for name, one in columns.items()})], NEWEST)
    assert (found.passed, found.faults) == (False, ())
    assert "not enough evidence for head pose, gaze, expression" in found.advice
    assert "--video" in found.advice


def test_without_blendshapes_the_rest_is_looked_at():
    bare = lambda columns: {name: values for name, values in columns.items() if name not in BLENDSHAPE_NAMES}  # noqa: E731
    found = examine([watched(bare)], NEWEST)
    assert (found.passed, found.faults) == (True, ())
    assert not any("eyeLook" in row.name for row in found.rows)


def test_clips_are_taken_together():
    clip = watched()
    one, two = examine([clip], NEWEST), examine([clip, replace(clip, name="again")], NEWEST)
    assert two.frames == 2 * one.frames
    widths = [[row.interval.high - row.interval.low for row in found.rows if row.interval] for found in (one, two)]
    assert all(both < single for single, both in zip(*widths, strict=True))


def test_every_fault_is_planted():
    assert {fault.name for fault in FAULTS} == set(PLANTED)


def test_no_two_faults_oppose_the_same_pairs():
    opposing = [(fault.opposes, fault.may_oppose) for fault in FAULTS]
    assert len(set(opposing)) == len(FAULTS)
