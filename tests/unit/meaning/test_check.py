"""`featray models check` with real decoding, detection and inference; and the result that a pull keeps."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file

from featray.cli import main
from featray.cli.models_check import check_pulled
from featray.doctor import software
from featray.meaning.check import Checked, keep, read_kept
from featray.meaning.examine import examine
from featray.model.checkpoint import read_checkpoint
from featray.model.conventions import NEWEST
from featray.model.known import V28, recognise
from featray.names import BLENDSHAPE_NAMES
from tests.fixtures.fitted import written
from tests.fixtures.golden import HUB_SPEC
from tests.fixtures.told import watched

NO_EVIDENCE = "the network does not find the face, so its facial numbers carry no meaning here"


@pytest.fixture
def models(cache, monkeypatch):
    """Return a function that runs `featray models ...` in this process, with an empty cache of weights."""
    monkeypatch.setenv("FEATRAY_CACHE", str(cache))
    return lambda *arguments: CliRunner().invoke(main, ["models", *map(str, arguments)])


def test_synthetic_weights_are_no_evidence(kept_cache, monkeypatch):
    """The whole chain, from the bundled clip to the table."""
    monkeypatch.setenv("FEATRAY_CACHE", str(kept_cache))
    done = CliRunner().invoke(main, ["models", "check", "synthetic:atto", "--json"])
    found = json.loads(done.stdout)
    assert (done.exit_code, found["passed"], found["faults"]) == (1, False, [])
    assert set(found["counts"]) == {"no evidence"} and len(found["rows"]) > 40
    assert NO_EVIDENCE in found["advice"]
    assert (found["recognised"], found["clips"], found["frames"]) == ("synthetic weights", ["face.mp4"], 158)
    assert all({"pair", "expected", "interval", "verdict"} <= set(row) for row in found["rows"])
    correlated = [row["interval"] for row in found["rows"] if row["pair"] == "AU43 ~ eyeBlink"]
    assert correlated[0]["low"] < correlated[0]["value"] < correlated[0]["high"]
    assert correlated[0]["effective"] < correlated[0]["frames"]


def test_the_doctor_shows_what_a_pull_kept(hub, models, atto, cache):
    """The result of an earlier check of the same file is read, and the check is not repeated."""
    hub.files[V28.spec.removeprefix("hf://")] = atto.path.read_bytes()
    command = ("pull", "v2.8", "--accept-license", "research-noncommercial")
    (unchecked,) = [check for check in checks_of(models, *command) if "meaning of its columns" in check.name]
    assert (unchecked.state, unchecked.found, unchecked.fix) == ("absent", "not checked", "featray models check v2.8")
    (weights,) = cache.glob("checkpoints/*/*/*.safetensors")
    checkpoint = replace(read_checkpoint(weights), weights_trained=True)
    for change, state, words in (
        (
            lambda columns: columns,
            "ok",
            "52 pairs in agreement, 0 opposed, 0 without evidence; columns mean what they say",
        ),
        (lambda columns: {**columns, "gaze_yaw": -columns["gaze_yaw"]}, "missing", "wrong: the sign of gaze_yaw"),
    ):
        examination = examine([watched(change)], NEWEST)
        keep(Checked(checkpoint, recognise(checkpoint, "v2.8"), NEWEST, ("face.mp4",), examination))
        (check,) = [check for check in software.weights() if "meaning of its columns" in check.name]
        assert (check.state, bool(check.fix)) == (state, state != "ok")
        assert words in check.found
    assert "wrong: the sign of gaze_yaw" in check_pulled(checkpoint, "v2.8")


@pytest.mark.long
def test_a_pull_checks_once_and_keeps_what_came_out(hub, models, atto, cache, tmp_path):
    """Random weights marked as trained: there is no evidence for them, on a real face or elsewhere."""
    trained = written(load_file(atto.path), atto, tmp_path / V28.file)
    hub.files[V28.spec.removeprefix("hf://")] = trained.path.read_bytes()
    command = ("pull", "v2.8", "--accept-license", "research-noncommercial")
    done = models(*command)
    assert done.exit_code == 0, done.stderr
    assert f"no evidence: {NO_EVIDENCE}; details: featray models check v2.8" in done.stdout
    (path,) = cache.glob("checkpoints/*/*/*.check.json")
    kept = read_kept(path.with_suffix("").with_suffix(".safetensors"), trained.sha256)
    assert (kept.passed, kept.agreeing, kept.opposed, kept.faults) == (False, 0, [], [])
    assert kept.no_evidence > 40
    before = path.stat().st_mtime_ns
    (shown,) = [check for check in checks_of(models, *command) if NO_EVIDENCE in check.found]
    assert path.stat().st_mtime_ns == before
    assert (shown.state, shown.fix) == ("absent", "featray models check v2.8")


def checks_of(models, *command):
    """Return the doctor's checks of weights after a pull."""
    assert models(*command).exit_code == 0
    return list(software.weights())


def test_what_is_kept_is_of_that_file(tmp_path):
    (tmp_path / "a.check.json").write_text("{}")
    assert read_kept(tmp_path / "a.safetensors", "0" * 64) is None


def test_synthetic_weights_that_are_pulled_are_not_checked(hub, models):
    assert "check        not done: these weights are not trained" in models("pull", HUB_SPEC).stdout


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (
            ["v2.8"],
            ["v2.8: not pulled at 'main' yet", "featray models pull v2.8 --accept-license research-noncommercial"],
        ),
        (["v2.9"], ["v2.9: no such checkpoint file", "v2.8, v2.7, v2.5"]),
        (["synthetic:atto", "--conventions", "py-feat-9"], ["model.conventions", "py-feat-2.1.2, py-feat-2.0"]),
        (["synthetic:atto", "--revision", "main"], ["--revision"]),
    ],
)
def test_what_cannot_be_checked_is_said(models, arguments, parts):
    done = models("check", *arguments)
    assert done.exit_code in (1, 2) and done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert all(part in done.stderr for part in parts), done.stderr


# A checkpoint with correct columns, and with single rows of its last layers changed: the whole chain from the file on.


def turn(name, rows):
    def change(state):
        for part in ("weight", "bias"):
            state[f"{name}.{part}"][rows] *= -1

    return change


def exchange(pairs):
    """Return a change that swaps pairs of blendshapes."""
    order = np.arange(52)
    for a, b in pairs:
        order[[BLENDSHAPE_NAMES.index(a), BLENDSHAPE_NAMES.index(b)]] = (
            BLENDSHAPE_NAMES.index(b),
            BLENDSHAPE_NAMES.index(a),
        )

    def change(state):
        for part in ("weight", "bias"):
            state[f"blendshape.mlp.2.{part}"] = np.ascontiguousarray(state[f"blendshape.mlp.2.{part}"][order])

    return change


def both(*changes):
    return lambda state: [change(state) for change in changes]


def gaze(axis):
    return both(*(turn(f"gaze.{side}_{axis}", slice(None)) for side in ("left", "right")))


SIDES = [(name, f"{name.removesuffix('Left')}Right") for name in BLENDSHAPE_NAMES if name.endswith("Left")]
WRONG = {
    "pose_pitch": turn("pose.mlp.4", 0),
    "pose_yaw": turn("pose.mlp.4", 1),
    "pose_roll": turn("pose.mlp.4", 2),
    "gaze_yaw": gaze("yaw"),
    "gaze_pitch": gaze("pitch"),
    "valence": turn("emotion.va_head", 0),
    "depth of the mesh (z), which is inside out": turn("lmk.mlp.4", slice(2, None, 3)),
    "Left and Right of the blendshapes, which are swapped": exchange(SIDES),
    "jawOpen": turn("blendshape.mlp.2", BLENDSHAPE_NAMES.index("jawOpen")),
}


@pytest.mark.long
def test_a_checkpoint_that_is_right_passes(fitted, models):
    done = models("check", fitted.path)
    assert done.exit_code == 0, done.stdout
    assert "passed: the columns mean what they say" in done.stdout
    assert "not a known checkpoint; the newest conventions, py-feat-2.1.2, are taken for it" in done.stdout


@pytest.mark.long
@pytest.mark.parametrize("name", WRONG)
def test_a_checkpoint_with_one_thing_wrong_is_caught(name, fitted, models, tmp_path):
    state = load_file(fitted.path)
    WRONG[name](state)
    wrong = written(state, fitted, tmp_path / "wrong.safetensors")
    done = models("check", wrong.path, "--json")
    found = json.loads(done.stdout)
    assert (done.exit_code, found["faults"]) == (1, [name])


@pytest.mark.long
def test_conventions_put_a_sign_right(fitted, models, tmp_path):
    state = load_file(fitted.path)
    both(WRONG["pose_pitch"], WRONG["gaze_pitch"])(state)
    wrong = read_checkpoint(written(state, fitted, tmp_path / "wrong.safetensors").path)
    assert "Set model.conventions: py-feat-2.0" in models("check", wrong.path).stdout
    assert models("check", wrong.path, "--conventions", "py-feat-2.0").exit_code == 0
