"""From an output and labels to measures: equal to scikit-learn's on the arrays that both were made from."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.metrics import accuracy_score, brier_score_loss, f1_score

from featray.cli import main
from featray.errors import UsageError
from featray.evaluate.against import compare
from featray.evaluate.evaluation import EvaluationSettings, evaluate
from featray.evaluate.labels import LabelSettings, read_labels
from featray.evaluate.thresholds import NEEDS_EXTRA, parse_thresholds
from featray.names import EMOTION_NAMES_7
from featray.report.scope import open_scope
from featray.tables.provenance import SYNTHETIC_WEIGHTS
from featray.views.directions import gaze_vectors
from tests.fixtures.labelled import RELEASE, Planted
from tests.unit.evaluate.conftest import UNITS

EXACT = 1e-9


@pytest.fixture(scope="module")
def labels(made):
    return read_labels(str(made.labels), LabelSettings(au_threshold=2.0))


@pytest.fixture(scope="module")
def scope(made, release):
    return open_scope(made.output, release, None)


@pytest.fixture(scope="module")
def found(scope, labels):
    return evaluate(scope, labels, EvaluationSettings(splits=("light",), resamples=200))


def by_name(values):
    return {(one.what, one.measure): one for one in values}


def ccc(x, y):
    return 2 * np.cov(x, y, bias=True)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)


def expected(made, rows, said):
    """Return every measure over some rows, by scikit-learn or by its formula."""
    truth = {name: values[rows] for name, values in made.truth.items()}
    said = {name: values[rows] for name, values in said.items()}
    f1 = {unit: f1_score(truth[unit] >= 2, said[unit] >= 0.5) for unit in UNITS}
    icc = {
        u: 2 * np.cov(truth[u] / 5, said[u])[0, 1] / (np.var(truth[u] / 5, ddof=1) + np.var(said[u], ddof=1))
        for u in UNITS
    }
    a, b = (gaze_vectors(one["gaze_yaw"], one["gaze_pitch"]) for one in (truth, said))
    pose = {
        name: np.degrees(np.abs(truth[name] - said[name])).mean() for name in ("pose_pitch", "pose_yaw", "pose_roll")
    }
    return {
        **{(unit, "f1"): value for unit, value in f1.items()},
        **{(unit, "icc"): value for unit, value in icc.items()},
        ("action units", "macro_f1"): np.mean(list(f1.values())),
        ("action units", "mean_icc"): np.mean(list(icc.values())),
        ("valence", "ccc"): ccc(truth["valence"], said["valence"]),
        ("arousal", "ccc"): ccc(truth["arousal"], said["arousal"]),
        ("gaze", "angular_error"): np.degrees(np.arccos(np.clip((a * b).sum(1), -1, 1))).mean(),
        **{(name, "mae"): value for name, value in pose.items()},
        ("head pose", "mae"): np.mean(list(pose.values())),
    }


def test_every_measure_over_faces_that_were_found_is_exact(made, found):
    values = by_name(found.found)
    for key, value in expected(made, made.met, made.said).items():
        assert values[key].value == pytest.approx(value, abs=EXACT), key
    truth = made.truth["emotion"][made.met]
    said = np.stack([made.said[f"emotion_{name}"][made.met] for name in EMOTION_NAMES_7], 1).argmax(1)
    assert values["emotion", "accuracy"].value == pytest.approx(accuracy_score(truth, said), abs=EXACT)
    assert values["emotion", "macro_f1"].value == pytest.approx(f1_score(truth, said, average="macro"), abs=EXACT)
    per_class = f1_score(truth, said, average=None)
    assert [values[f"emotion_{n}", "f1"].value for n in EMOTION_NAMES_7] == pytest.approx(per_class.tolist(), abs=EXACT)
    assert np.trace(found.confusion) == (truth == said).sum() and np.sum(found.confusion) == made.met.sum()


def test_faces_that_were_missed_count_as_wrong_the_other_way(made, found):
    """They count as units absent, emotion wrong, valence, arousal and angles 0, and gaze at the camera."""
    filled = {name: np.where(made.met, values, 0.0) for name, values in made.said.items()}
    values = by_name(found.with_missed)
    for key, value in expected(made, np.ones(len(made.met), bool), filled).items():
        assert values[key].value == pytest.approx(value, abs=EXACT), key
    truth = made.truth["emotion"]
    said = np.stack([made.said[f"emotion_{name}"] for name in EMOTION_NAMES_7], 1).argmax(1)
    right = (truth == said) & made.met
    assert values["emotion", "accuracy"].value == pytest.approx(right.mean(), abs=EXACT)
    assert by_name(found.found)["emotion", "accuracy"].value > values["emotion", "accuracy"].value


def test_labels_are_accounted_for(made, found):
    assert found.fates == {"found": int(made.met.sum()), "no_face": int((~made.met).sum())}
    assert found.rows == sum(found.fates.values()) and "no face was found" in found.unmatched
    values = by_name(found.found)
    assert {one.rows for one in found.found} == {int(made.met.sum())}
    assert {one.rows for one in found.with_missed} == {found.rows}
    assert values["AU12", "f1"].positives == (made.truth["AU12"][made.met] >= 2).sum()
    assert (found.subject_kind, values["gaze", "angular_error"].subjects) == ("subjects", 9)
    assert found.warnings == [] and found.weights_trained


def test_intervals_hold_their_value_and_are_wider_over_few(scope, labels, found):
    assert all(one.low < one.value < one.high for one in found.found)
    none = evaluate(scope, labels, EvaluationSettings(resamples=0))
    assert {one.low for one in none.found} == {None}
    assert [one.value for one in none.found] == [one.value for one in found.found]
    again = evaluate(scope, labels, EvaluationSettings(splits=("light",), resamples=200))
    assert again == found  # the draws are deterministic


def test_subjects_can_be_another_column_or_videos(scope, labels, made):
    by_light = evaluate(scope, labels, EvaluationSettings(subject="light", resamples=50))
    assert (by_light.subject_kind, by_light.found[0].subjects) == ("values of light", 2)
    with pytest.raises(UsageError, match="--subject whom: no such column"):
        evaluate(scope, labels, EvaluationSettings(subject="whom"))
    plain = made.labels.with_name("plain.csv")
    plain.write_text(
        "video,frame,valence\n" + "".join(f"s{v}/take0.mp4,{f},0.{f}\n" for v in range(4) for f in range(9))
    )
    by_video = evaluate(scope, read_labels(str(plain), LabelSettings()), EvaluationSettings(resamples=50))
    assert (by_video.subject_kind, by_video.found[0].subjects) == ("videos", 4)
    for one, words in ((by_light, "2 values of light"), (by_video, "4 videos")):
        assert any(
            f"intervals are over {words}: with fewer than 5 they are too narrow" in line for line in one.warnings
        )


def test_splits_are_exact_and_hold_every_face(made, found):
    splits = {split.name: split for split in found.splits}
    assert list(splits) == ["face size", "head turned", "sharpness", "light"]
    assert {sum(group.rows for group in split.groups) for split in found.splits} == {int(made.met.sum())}
    bright = np.arange(len(made.met)) % 3 == 0
    for group, rows in zip(splits["light"].groups, (bright, ~bright), strict=True):
        inside = rows & made.met
        assert (group.rows, group.missed) == (inside.sum(), (rows & ~made.met).sum())
        wanted = expected(made, inside, made.said)
        for key, one in by_name(group.values).items():
            if key in wanted:
                assert one.value == pytest.approx(wanted[key], abs=EXACT)
    assert [group.name for group in splits["face size"].groups] == ["below 48 px", "48 to 96 px", "96 to 192 px"]
    small = made.met & (made.said["face_px"] < 48)
    wanted = expected(made, small, made.said)["action units", "macro_f1"]
    assert splits["face size"].groups[0].values[0].value == pytest.approx(wanted, abs=EXACT)


def test_thresholds_are_chosen_on_rows_that_are_not_measured(made, scope, labels):
    found = evaluate(scope, labels, EvaluationSettings(tune_on="split=val", thresholds={"AU01": 0.3}, resamples=0))
    val = made.subjects < 3
    assert (found.tuned_on, found.chosen, found.thresholds["AU01"]) == (val.sum(), ("AU06", "AU12"), 0.3)
    values = by_name(found.found)
    for unit in UNITS:
        truth, said = made.truth[unit] >= 2, made.said[unit]
        best = max(
            f1_score(truth[val & made.met], said[val & made.met] >= t) for t in np.unique(said[val & made.met])[::7]
        )
        chosen = f1_score(truth[val & made.met], said[val & made.met] >= found.thresholds[unit])
        assert unit == "AU01" or chosen >= best
        test = ~val & made.met
        score = f1_score(truth[test], said[test] >= found.thresholds[unit])
        assert values[unit, "f1"].value == pytest.approx(score, abs=EXACT)
        assert values[unit, "f1"].rows == test.sum()
    assert sum(sum(one.rows) for one in found.calibration if one.what == "AU12") == (~val & made.met).sum()


def test_the_same_people_on_both_sides_of_a_choice_are_said(scope, labels):
    found = evaluate(scope, labels, EvaluationSettings(tune_on="light=dim", resamples=0))
    assert found.warnings == ["9 of the subjects are both in the rows with light=dim and in the measured rows"]


@pytest.mark.parametrize(
    ("tune_on", "words"),
    [
        ("split", "write it as COLUMN=VALUE"),
        ("split=gone", "no row with this value matched a face"),
        ("shape=x", "no such column"),
    ],
)
def test_choices_that_cannot_be_made(scope, labels, tune_on, words):
    with pytest.raises(UsageError, match=f"--tune-on {tune_on.split('=')[0]}.*{words}"):
        evaluate(scope, labels, EvaluationSettings(tune_on=tune_on))


def test_thresholds_as_they_are_written():
    assert parse_thresholds(("0.4", "AU12=0.3")) == {"": 0.4, "AU12": 0.3}
    for wrong in ("x", "AU99=0.5", "1.5", "AU12="):
        with pytest.raises(UsageError, match="--threshold"):
            parse_thresholds((wrong,))


def test_calibration_is_that_of_the_rows(made, found):
    calibrations = {one.what: one for one in found.calibration}
    assert set(calibrations) == {*UNITS, "emotion"}
    one, truth, said = calibrations["AU12"], (made.truth["AU12"] >= 2)[made.met], made.said["AU12"][made.met]
    assert one.brier == pytest.approx(brier_score_loss(truth, said), abs=EXACT)
    inside = (said > 0.2) & (said <= 0.3)
    assert one.rows[2] == inside.sum() and sum(one.rows) == len(truth)
    assert (one.said[2], one.true[2]) == pytest.approx((said[inside].mean(), truth[inside].mean()), abs=EXACT)
    gaps = np.abs(np.array(one.true) - one.said)
    assert one.error == pytest.approx(np.average(gaps, weights=one.rows), abs=EXACT)


def test_labels_of_another_convention_are_said(made, scope, tmp_path):
    rows = ["video,frame,gaze_yaw,gaze_pitch,pose_yaw"]
    for row in range(300):
        yaw, pitch, head = (made.truth[name][row] for name in ("gaze_yaw", "gaze_pitch", "pose_yaw"))
        rows.append(f"s{row // 120}/take{row // 60 % 2}.mp4,{row % 60},{-yaw},{pitch},{-head}")
    (tmp_path / "turned.csv").write_text("\n".join(rows))
    labels = read_labels(str(tmp_path / "turned.csv"), LabelSettings())
    gaze, head = evaluate(scope, labels, EvaluationSettings(resamples=0)).warnings
    assert gaze.startswith("gaze: mean error") and "with labels left for right it would be 5." in gaze
    assert head.startswith("pose_yaw: mean error") and "with the other sign" in head


def test_the_cards_figures_stand_beside(scope, labels):
    found = evaluate(scope, labels, EvaluationSettings(card="aff-wild2", resamples=0))
    assert [(one.what, one.value) for one in found.card] == [("valence", 0.852), ("arousal", 0.799)]
    assert found.warnings == []
    found = evaluate(scope, labels, EvaluationSettings(card="disfa+", resamples=0))
    assert found.card == [] and "labels have AU01, AU06, AU12" in found.warnings[0]
    with pytest.raises(UsageError, match="--card bp4d: no such data set on the model card; choose one of disfa"):
        evaluate(scope, labels, EvaluationSettings(card="bp4d"))


@pytest.fixture(scope="module")
def change(made, scope, labels):
    other = open_scope(made.output, made.other, None)
    return compare(scope, other, labels, EvaluationSettings(resamples=200))


def test_two_releases_on_the_same_labels(made, labels, scope, change):
    both = made.met & (np.arange(len(made.met)) % 10 > 0)
    assert (change.found_both, change.found_a, change.found_b) == (both.sum(), (made.met & ~both).sum(), 0)
    assert change.sampled_both == len(made.met)
    changes = by_name(change.found)
    wanted = expected(made, both, made.said)
    for key, value in wanted.items():
        assert changes[key].a == pytest.approx(value, abs=EXACT), key
        assert changes[key].rows == both.sum()
    assert all(one.difference == pytest.approx(one.b - one.a, abs=EXACT) for one in change.found)
    # The second release has noisier units and gaze; everything else is unchanged.
    gaze, valence = changes["gaze", "angular_error"], changes["valence", "ccc"]
    assert 0 < gaze.low < gaze.difference < gaze.high
    assert (valence.difference, valence.low, valence.high) == (0, 0, 0)
    assert by_name(change.with_missed)["emotion", "accuracy"].difference < 0  # it missed faces


def test_pairing_narrows_the_interval(made, labels, scope, change):
    """Effects of a subject on both releases cancel out."""
    alone = by_name(evaluate(scope, labels, EvaluationSettings(resamples=200)).with_missed)["valence", "ccc"]
    paired = by_name(change.with_missed)["valence", "ccc"]
    assert paired.high - paired.low < alone.high - alone.low


def test_a_release_against_itself_differs_in_nothing(scope, labels):
    same = compare(scope, scope, labels, EvaluationSettings(resamples=50))
    assert {one.difference for one in (*same.found, *same.with_missed)} == {0} and same.found_a == same.found_b == 0


def test_the_command_prints_a_table_and_json(made, release, found):
    arguments = ["evaluate", made.output.root.path, "--labels", str(made.labels), "--au-threshold", "2"]
    more = ["--release", release, "--resamples", "200", "--split", "light", "--card", "aff-wild2"]
    table = CliRunner().invoke(main, [*arguments, *more])
    assert table.exit_code == 0, table.output
    one = by_name(found.found)["valence", "ccc"]
    shown = next(line for line in table.output.splitlines() if line.startswith("valence CCC"))
    assert shown.split()[:5] == f"valence CCC {one.value:.3f} [{one.low:.3f}, {one.high:.3f}]".split()
    assert "0.852" in table.output and "by light" in table.output and "over subjects" in table.output
    printed = CliRunner().invoke(main, [*arguments, *more, "--json"])
    data = json.loads(printed.output)
    assert data["format"] == 1 and data["found"][0]["value"] == pytest.approx(found.found[0].value, abs=EXACT)
    assert data["fates"] == found.fates and len(data["splits"]) == 4


def test_the_command_compares_releases_and_outputs(made, release, change, tmp_path):
    arguments = ["evaluate", made.output.root.path, "--labels", str(made.labels), "--au-threshold", "2"]
    arguments += ["--release", release, "--resamples", "200"]
    data = json.loads(CliRunner().invoke(main, [*arguments, "--against", made.other, "--json"]).output)
    assert data["found_both"] == change.found_both
    assert data["found"][0]["difference"] == pytest.approx(change.found[0].difference, abs=EXACT)
    table = CliRunner().invoke(main, [*arguments, "--against", made.output.root.path])
    assert table.exit_code == 0 and "B - A" in table.output and "paired over subjects" in table.output
    wrong = CliRunner().invoke(main, [*arguments, "--against", "nothing"])
    assert wrong.exit_code == 2 and "neither a release of made" in wrong.output and made.other in wrong.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--split", "shape"], "--split shape: no such column in labels.csv"),
        (["--out", "page.txt"], "must end in .html"),
        (["--threshold", "9"], "--threshold 9: write it as"),
        (["--emotions", "happy"], "--emotions happy: write it as"),
        (["--release", "gone"], "--release gone: not in this output"),
    ],
)
def test_what_cannot_be_done_is_one_line(made, arguments, words):
    base = ["evaluate", made.output.root.path, "--labels", str(made.labels), "--au-threshold", "2", "--resamples", "10"]
    done = CliRunner().invoke(main, [*base, *arguments])
    assert done.exit_code == 2 and done.output.startswith("featray: ") and words in done.output
    assert done.output.count("\n") == 1


def test_without_scikit_learn_the_fix_is_said(made, monkeypatch):
    for name in ("sklearn", "sklearn.calibration", "sklearn.metrics"):
        monkeypatch.setitem(sys.modules, name, None)
    arguments = ["--labels", str(made.labels), "--au-threshold", "2", "--resamples", "0"]
    done = CliRunner().invoke(main, ["evaluate", made.output.root.path, *arguments])
    assert done.exit_code == 2 and done.output == f"featray: {NEEDS_EXTRA}\n"


def test_weights_that_were_not_trained_are_said(tmp_path):
    output = Planted({"a.mp4": [(0, 0, "ok", [{}])]}, trained=False).write(tmp_path / "out")
    (tmp_path / "l.csv").write_text("video,frame,AU12\na.mp4,0,1\n")
    done = CliRunner().invoke(main, ["evaluate", output.root.path, "--labels", str(tmp_path / "l.csv")])
    assert done.exit_code == 0 and "carry no meaning" in done.output
    Planted({"a.mp4": [(0, 0, "ok", [{}])]}, trained=False, release="other-00000000").write(tmp_path / "out")
    options = ["--labels", str(tmp_path / "l.csv"), "--release", RELEASE, "--against", "other-00000000"]
    done = CliRunner().invoke(main, ["evaluate", output.root.path, *options])
    assert done.exit_code == 0 and done.stderr == f"{SYNTHETIC_WEIGHTS}\n"
