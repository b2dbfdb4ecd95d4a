"""Each script of jobs/labels converts a tree in its data set's format into labels that evaluate accepts.

With every tree there is a release with the same content as the tree's labels, in featray's own columns and coordinate
frames: units, classes and directions are right if and only if the two agree completely.
"""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.io import savemat

from featray.cli import main
from featray.evaluate.evaluation import EvaluationSettings, evaluate
from featray.evaluate.labels import LabelSettings, read_labels
from featray.names import EMOTION_NAMES_7
from featray.report.scope import open_scope
from featray.views.directions import gaze_vectors
from tests.fixtures.labelled import Planted

SCRIPTS = Path(__file__).parents[3] / "jobs" / "labels"


@dataclass
class Tree:
    """A data set: its files, a perfect release by video and picture (or frame), and the settings for its labels."""

    files: dict[str, object]
    faces: dict[str, dict[object, dict]]
    rows: int
    au_threshold: float | None = None
    card: str | None = None
    labels: tuple[str, ...] = ()
    left_out: dict[str, int] = field(default_factory=dict)


def intensity_face(**units):
    """Return intensities as a release with a threshold of 2 would give them."""
    return {name: float(value >= 2) for name, value in units.items()}


def emotion_face(name):
    return {f"emotion_{one}": float(one == name) for one in EMOTION_NAMES_7}


def gaze_face(yaw, pitch):
    return {"gaze_yaw": yaw, "gaze_pitch": pitch}


def camera(yaw, pitch, length=1.0):
    """Return the direction of a gaze: x to the image's right, y down, z away from the camera."""
    return length * gaze_vectors([yaw], [pitch])[0]


GAZES = [(0.3, 0.1), (-0.2, -0.25), (0.0, 0.4)]
DISFA = (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)


def disfa_plus():
    files, faces = {}, {}
    for subject in ("SN001", "SN003"):
        coded = {name: {u: (u + i) % 6 for u in DISFA} for i, name in enumerate(("000.jpg", "001.jpg"))}
        for unit in DISFA:
            files[f"Labels/{subject}/A1/AU{unit}.txt"] = "".join(f"{name}   {v[unit]}\n" for name, v in coded.items())
        files[f"Labels/{subject}/half/AU1.txt"] = "000.jpg 1\n"
        faces[f"Images/{subject}/A1"] = {
            name: intensity_face(**{f"AU{u:02d}": v[u] for u in DISFA}) for name, v in coded.items()
        }
    return Tree(files, faces, 4, au_threshold=2, card="disfa+", labels=("subject", "trial"))


def disfa():
    files, frames = {}, {}
    for unit in DISFA:
        files[f"ActionUnit_Labels/SN001/SN001_au{unit}.txt"] = f"1,{unit % 6}\n2,{(unit + 3) % 6}\n"
    for frame, off in ((0, 0), (1, 3)):  # frames are counted from 1 in the files
        frames[frame] = intensity_face(**{f"AU{u:02d}": (u + off) % 6 for u in DISFA})
    return Tree(files, {"Video_LeftCamera/LeftVideoSN001_comp.avi": frames}, 2, au_threshold=2, labels=("subject",))


def bp4d():
    text = "0,1,2,10,12,16,20,27\n2440,1,0,1,0,1,9,0\n51,0,9,1,1,0,0,0\n"
    faces = {"2440.jpg": {"AU01": 1.0, "AU10": 1.0}, "0051.jpg": {"AU10": 1.0, "AU12": 1.0}}
    return Tree({"AUCoding/AU_OCC/F001_T1.csv": text}, {"2D+3D/F001/T1": faces}, 2, labels=("subject", "task"))


def raf_db():
    emotions = {1: "surprise", 2: "fear", 3: "disgust", 4: "happy", 5: "sad", 6: "anger", 7: "neutral"}
    names = {n: f"test_{n:04d}.jpg" for n in emotions} | {8: "train_00001.jpg"}
    listed = "".join(f"{name} {min(n, 7)}\n" for n, name in names.items())
    boxes = {f"Annotation/boundingbox/{Path(names[n]).stem}_boundingbox.txt": "105.5 98 195 225 \n" for n in (1, 2)}
    faces = {name: emotion_face(emotions[min(n, 7)]) for n, name in names.items()}
    return Tree(
        {"EmoLabel/list_patition_label.txt": listed, **boxes},
        {"Image/original": faces}, 8, card="raf-db", labels=("split",),
    )  # fmt: skip


AFFECT = {0: "neutral", 1: "happy", 2: "sad", 3: "surprise", 4: "fear", 5: "disgust", 6: "anger"}


def affectnet_table():
    head = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal\n"
    rows = [f"{n}/{n}ab.jpg,105,95,90,130,1;2;3,{n},{n / 10},-0.{n}\n" for n in range(7)]
    rows += ["7/c.jpg,105,95,90,130,1;2,7,-0.5,0.25\n", "9/u.jpg,105,95,90,130,1;2,9,-2,-2\n"]
    faces = {f"{n}/{n}ab.jpg": emotion_face(AFFECT[n]) | {"valence": n / 10, "arousal": -n / 10} for n in range(7)}
    faces |= {"7/c.jpg": {"valence": -0.5, "arousal": 0.25}, "9/u.jpg": {}}
    files = {"Manual_Annot_files/validation.csv": head + "".join(rows)}
    return Tree(files, {"Manually_Annotated_Images": faces}, 9, card="affectnet", left_out={"emotion": 2})


def affectnet_files():
    files, faces = {}, {}
    for n in range(7):
        # The newer form of the data set stores one value per file, as text.
        for what, value in (("exp", n), ("val", n / 10), ("aro", -n / 10)):
            files[f"val_set/annotations/{n}_{what}.npy"] = np.array(str(value))
        faces[f"{n}.jpg"] = emotion_face(AFFECT[n]) | {"valence": n / 10, "arousal": -n / 10}
    return Tree(files, {"val_set/images": faces}, 7, card="affectnet")


def aff_wild2():
    folder = "annotations/VA_Estimation_Challenge/Validation_Set"
    values = [(0.5, -0.25), (-5, -5), (-1, 1), (0.125, 0.75)]
    text = "valence,arousal\n" + "".join(f"{v},{a}\n" for v, a in values)
    faces = {i: {"valence": v, "arousal": a} for i, (v, a) in enumerate(values) if v >= -1}
    files = {f"{folder}/{name}.txt": text for name in ("10-60-1280x720", "two", "two_left", "alone_right")}
    files["annotations/VA_Estimation_Challenge/Train_Set/9.txt"] = text
    return Tree(files, {"batch1/10-60-1280x720.mp4": faces}, 3, card="aff-wild2", labels=("split",))


def mpiigaze():
    centre, lines, faces = np.array([12.0, -30, 550]), [], {}
    for n, gaze in enumerate(GAZES):
        target = centre + camera(*gaze, 600)
        values = [f"day01/{n:04d}.jpg", *["1"] * 20, *map(repr, [*centre.tolist(), *target.tolist()]), "left"]
        assert len(values) == 28
        lines.append(" ".join(values) + "\n")
        faces[f"day01/{n:04d}.jpg"] = gaze_face(*gaze)
    return Tree({"p00/p00.txt": "".join(lines)}, {"p00": faces}, 3, card="mpiigaze", labels=("subject",))


def gaze360():
    """Return a data set whose axes are: [-1, 0, 0] to the image's right, [0, 1, 0] up, [0, 0, -1] into the camera."""
    by_hand = [((np.pi / 2, 0), (-1, 0, 0)), ((0, np.pi / 4), (0, 1, -1)), ((0, 0), (0, 0, -1))]
    metadata = {
        "recordings": np.array(["rec_000", "rec_022"], object),
        "recording": np.array([0, 1, 1]),
        "person_identity": np.array([3, 0, 0]),
        "frame": np.array([131, 7, 8]),
        "split": np.array([2, 2, 3]),
        "gaze_dir": np.array([vector for _, vector in by_hand], float),
    }
    names = ("rec_000/head/000003/000131.jpg", "rec_022/head/000000/000007.jpg", "rec_022/head/000000/000008.jpg")
    faces = {name: gaze_face(*gaze) for name, (gaze, _) in zip(names, by_hand, strict=True)}
    return Tree({"metadata.mat": metadata}, {"imgs": faces}, 3, card="gaze360", labels=("subject", "split"))


def eyediap():
    """Return a data set whose camera frame is the world frame turned by 180° about x, as a Kinect's is."""
    turn = np.diag([1.0, -1, -1])
    calibration = (
        "[resolution]\n640;480\n[intrinsics]\n500;0;320\n0;500;240\n0;0;1\n[R]\n"
        + "".join(";".join(map(str, row)) + "\n" for row in turn) + "[T]\n0\n0\n0\n"
    )  # fmt: skip
    files, faces = {}, {}
    for session, name in (("1_A_DS_S", "screen_coordinates.txt"), ("14_B_FT_M", "ball_tracking.txt")):
        eyes, targets, states = ["Frame;x\n"], ["Frame;x\n"], []
        for n, gaze in enumerate([*GAZES, (0.0, 0.0)]):
            right, left = np.array([-0.03, 0.1, -0.8]), np.array([0.03, 0.1, -0.8])
            target = (right + left) / 2 + turn @ camera(*gaze, 0.5)
            eyes.append(";".join([str(n), *["0"] * 12, *map(repr, [*left.tolist(), *right.tolist()])]) + "\n")
            targets.append(";".join([str(n), "3", "4", *map(repr, target.tolist())]) + "\n")
            states.append(f"{n}\t{'OK' if n < 3 else 'BLINK'}\n")
        files |= {
            f"Data/{session}/{name}": "".join(targets) + "9;\n",
            f"Data/{session}/eye_tracking.txt": "".join(eyes),
        }
        files[f"Data/{session}/rgb_vga_calibration.txt"] = calibration
        files[f"Annotations/GazeState/GazeStateExport/Data/{session}/gaze_state.txt"] = "".join(states)
        faces[f"Data/{session}/rgb_vga.mov"] = {n: gaze_face(*gaze) for n, gaze in enumerate(GAZES)}
    return Tree(files, faces, 6, labels=("subject", "target", "head"))


TREES = {
    "disfa_plus": disfa_plus, "disfa": disfa, "bp4d": bp4d, "raf_db": raf_db, "affectnet": affectnet_table,
    "affectnet, newer": affectnet_files, "aff_wild2": aff_wild2, "mpiigaze": mpiigaze, "gaze360": gaze360,
    "eyediap": eyediap,
}  # fmt: skip


def plant(folder, tree: Tree):
    for name, content in tree.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".npy"):
            np.save(path, content)
        elif name.endswith(".mat"):
            savemat(path, content)
        else:
            path.write_text(content)


def convert(script, root, out, monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    module = importlib.import_module(script)
    monkeypatch.setattr(sys, "argv", [script, str(root), "--out", str(out)])
    module.main(module.__doc__, module.read)


def release(root, tree: Tree):
    """Return what a perfect run over the data set's files would have written; pictures are named by `source_name`."""
    videos = {
        name: [
            (n, n, "ok", [face], key) if isinstance(key, str) else (key, n, "ok", [face])
            for n, (key, face) in enumerate(frames.items())
        ]
        for name, frames in tree.faces.items()
    }
    return open_scope(Planted(videos, folder="file:///data/set").write(root), None, None)


@pytest.mark.parametrize("name", TREES)
def test_a_perfect_release_agrees_wholly(name, tmp_path, monkeypatch, capsys):
    tree, script = TREES[name](), name.split(",")[0]
    plant(tmp_path / "set", tree)
    convert(script, tmp_path / "set", tmp_path / "labels.csv", monkeypatch)
    assert f"{tree.rows} labels" in capsys.readouterr().out
    labels = read_labels(str(tmp_path / "labels.csv"), LabelSettings(au_threshold=tree.au_threshold))
    assert set(tree.labels) <= set(labels.labels) and labels.warnings == []
    scope = release(tmp_path / "out", tree)
    found = evaluate(scope, labels, EvaluationSettings(card=tree.card, resamples=0))
    assert found.fates == {"found": tree.rows}
    assert found.other_emotions == tree.left_out.get("emotion", 0)
    assert found.warnings == [] and bool(found.card) == bool(tree.card)
    for one in found.found:
        if one.measure not in ("icc", "mean_icc") and one.value is not None:
            perfect = 0.0 if one.unit else 1.0
            assert one.value == pytest.approx(perfect, abs=1e-5), one


def test_what_is_left_out_is_said(tmp_path, monkeypatch, capsys):
    plant(tmp_path, aff_wild2())
    convert("aff_wild2", tmp_path, tmp_path / "labels.csv", monkeypatch)
    assert "left out, since they have labels of several people: alone, two" in capsys.readouterr().err


def test_units_that_were_not_coded_are_empty(tmp_path, monkeypatch):
    plant(tmp_path, bp4d())
    convert("bp4d", tmp_path, tmp_path / "labels.csv", monkeypatch)
    labels = read_labels(str(tmp_path / "labels.csv"), LabelSettings())
    np.testing.assert_array_equal(labels.targets["AU02"], [0, np.nan])
    np.testing.assert_array_equal(labels.targets["AU20"], [np.nan, 0])
    assert np.isnan(labels.targets["AU15"]).all()  # no column there
    assert "AU16" not in labels.targets  # featray does not estimate it


def test_a_folder_of_another_kind_ends_in_one_line(tmp_path, monkeypatch):
    for name in ("gone", "."):
        with pytest.raises(SystemExit, match=r"not a folder|has no labels in the form described in disfa_plus"):
            convert("disfa_plus", tmp_path / name, tmp_path / "labels.csv", monkeypatch)


def test_labels_go_through_the_command(tmp_path, monkeypatch):
    """A data set of videos, from its tree to the measures, with the commands that a user would run."""
    tree = eyediap()
    plant(tmp_path / "set", tree)
    convert("eyediap", tmp_path / "set", tmp_path / "labels.csv", monkeypatch)
    out = tmp_path / "out"
    release(out, tree)
    done = CliRunner().invoke(
        main, ["evaluate", str(out), "--labels", str(tmp_path / "labels.csv"), "--split", "head", "--json"]
    )
    data = json.loads(done.output)
    assert data["subject_kind"] == "subjects" and data["found"][0]["value"] == pytest.approx(0, abs=1e-5)
    assert [group["name"] for group in data["splits"][-1]["groups"]] == ["M", "S"]


def test_the_page_of_recipes_names_every_script():
    page = (Path(__file__).parents[3] / "docs" / "guides" / "evaluating.md").read_text()
    scripts = {path.name for path in SCRIPTS.glob("*.py")} - {"labels_file.py"}
    assert scripts == {f"{name}.py" for name in TREES if "," not in name}
    assert all(f"jobs/labels/{name}" in page for name in scripts)
