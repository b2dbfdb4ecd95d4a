"""Exports as their readers need them: pandas, py-feat's column names, OpenFace's conventions."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from scipy.spatial.transform import Rotation

from featray.cli import main
from featray.errors import UsageError
from featray.schema import BLENDSHAPES, FACES, arrow_schema
from featray.tables.provenance import SYNTHETIC_WEIGHTS
from featray.views.export import ExportSettings, write_export
from featray.views.openface import openface_table


@pytest.fixture
def exported(made, tmp_path):
    def read(style, video="turned.mp4", **settings):
        path = tmp_path / style
        count = write_export(made.output, str(path), ExportSettings(video, style, **settings)).rows
        frame = pd.read_parquet(path) if style == "parquet" else pd.read_csv(path)
        assert len(frame) == count
        return frame

    return read


def faces(made, name="turned.mp4"):
    sql = f"SELECT faces.* FROM faces JOIN videos USING (video_id) WHERE ends_with(uri, '{name}') ORDER BY frame_index"
    return pd.DataFrame(made.rows(sql))


def test_csv_says_what_the_tables_say(made, exported):
    frame, rows = exported("csv"), faces(made)
    for column in FACES:
        if column.name != "landmarks5":
            assert (frame[column.name] == rows[column.name]).all() or np.array_equal(
                frame[column.name].to_numpy(np.float32), rows[column.name].to_numpy(np.float32)
            ), column.name
    assert (frame["seconds"] == frame["pts_us"] / 1e6).all()
    assert {column.name for column in BLENDSHAPES} < set(frame)
    landmarks = np.stack(rows["landmarks5"].to_list()).astype(np.float32)
    assert (frame["right_eye_x"].to_numpy(np.float32) == landmarks[:, 0]).all()
    assert (frame["left_mouth_corner_y"].to_numpy(np.float32) == landmarks[:, 9]).all()
    assert (frame["right_eye_x"] < frame["left_eye_x"]).all(), "the subject's right is the viewer's left"


def test_parquet_keeps_types_and_comments(made, exported, tmp_path):
    frame = exported("parquet")
    assert frame["AU12"].to_numpy() == pytest.approx(faces(made)["AU12"].to_numpy(np.float32), abs=0)
    schema = pq.read_schema(tmp_path / "parquet")
    for name in ("AU12", "landmarks5", "jawOpen"):
        table = "blendshapes" if name == "jawOpen" else "faces"
        known = arrow_schema(table).field(name)
        found = schema.field(name)
        assert found.type == known.type and known.metadata.items() <= found.metadata.items()


def test_openface_has_its_columns_units_and_values(made, exported):
    frame, rows = exported("openface"), faces(made)
    assert list(frame)[:10] == [
        "frame", "face_id", "timestamp", "confidence", "success",
        "gaze_angle_x", "gaze_angle_y", "pose_Rx", "pose_Ry", "pose_Rz",
    ]  # fmt: skip
    assert frame["frame"].tolist() == [1 + index for index in rows["frame_index"]]
    assert frame["timestamp"].tolist() == [pts / 1e6 for pts in rows["pts_us"]]
    assert (frame["face_id"] == rows["track_id"]).all() and (frame["success"] == 1).all()
    assert frame["confidence"].to_numpy() == pytest.approx(rows["score"].to_numpy(), abs=1e-6)
    assert frame["AU12_r"].to_numpy() == pytest.approx(rows["AU12"].to_numpy(), abs=1e-6)
    assert frame["AU25_c"].tolist() == (rows["AU25"] >= 0.5).astype(int).tolist()
    assert set(frame["intensity_scale"]) == {"probability_0_1"}
    intensities = sorted(name for name in frame if name.endswith("_r"))
    assert intensities == [f"AU{n}_r" for n in "01 02 04 05 06 07 09 10 12 14 15 17 20 23 25 26".split()]
    assert "AU28_c" in frame and "AU28_r" not in frame
    assert not any(name.startswith(("AU45", "AU11", "AU43", "pose_T", "gaze_0", "X_", "p_")) for name in frame)
    # Compute the direction from both: OpenFace's angles are those of x/z and y/z.
    x, y = np.tan(frame["gaze_angle_x"]), np.tan(frame["gaze_angle_y"])
    ahead = np.cos(rows["gaze_yaw"]) * np.cos(rows["gaze_pitch"])
    assert (x * ahead).to_numpy() == pytest.approx(
        (np.sin(rows["gaze_yaw"]) * np.cos(rows["gaze_pitch"])).to_numpy(), abs=1e-5
    )
    assert (y * ahead).to_numpy() == pytest.approx(-np.sin(rows["gaze_pitch"]).to_numpy(), abs=1e-5)
    matrices = Rotation.from_euler("XYZ", frame[["pose_Rx", "pose_Ry", "pose_Rz"]]).as_matrix()
    expected = np.column_stack([-rows["pose_pitch"], rows["pose_yaw"], -rows["pose_roll"]])
    assert matrices == pytest.approx(Rotation.from_rotvec(expected).as_matrix(), abs=1e-5)


def test_openface_landmarks_are_the_68_in_order(made, exported):
    frame = exported("openface")
    points = made.rows("SELECT points_xy FROM dlib68 JOIN videos USING (video_id) WHERE uri LIKE '%turned.mp4' "
                       "ORDER BY frame_index")  # fmt: skip
    expected = np.asarray([row["points_xy"] for row in points])
    assert frame[[f"x_{i}" for i in range(68)]].to_numpy() == pytest.approx(expected[:, :, 0], abs=1e-3)
    assert frame[[f"y_{i}" for i in range(68)]].to_numpy() == pytest.approx(expected[:, :, 1], abs=1e-3)


def test_openface_signs():
    """Looking up gives a negative gaze_angle_y and pose_Rx; turning to the subject's right a positive pose_Ry."""
    columns = {column.name: pa.nulls(1, column.type) for column in FACES}
    columns |= {name: pa.array([0.0], pa.float32()) for name in columns if columns[name].type == pa.float32()}
    columns |= {"frame_index": pa.array([0]), "pts_us": pa.array([0]), "track_id": pa.array([0])}
    for name, sign, theirs in [
        ("pose_pitch", -1, "pose_Rx"),
        ("pose_yaw", 1, "pose_Ry"),
        ("pose_roll", -1, "pose_Rz"),
        ("gaze_yaw", 1, "gaze_angle_x"),
        ("gaze_pitch", -1, "gaze_angle_y"),
    ]:
        turned = pa.table({**columns, name: pa.array([0.25], pa.float32())})
        assert openface_table(turned, -1)[theirs].to_pylist() == pytest.approx([sign * 0.25], abs=1e-6)


def test_openface_rows_of_frames_without_a_face(made, exported):
    frame = exported("openface", video="late.mp4")
    of_video = "JOIN videos USING (video_id) WHERE uri LIKE '%late.mp4'"
    (counts,) = made.rows(f"SELECT count(*) AS n, count(*) FILTER (frames.faces > 0) AS f FROM frames {of_video}")
    assert (len(frame), frame["success"].sum()) == (counts["n"], counts["f"])
    assert 0 < counts["f"] < counts["n"]
    without = frame[frame["success"] == 0]
    assert (without["confidence"] == 0).all() and (without["face_id"] == 0).all()
    assert without[["gaze_angle_x", "pose_Rx", "AU12_r", "AU12_c", "x_0"]].isna().all(axis=None)


def test_fex_has_pyfeats_columns(made, exported):
    frame, rows = exported("fex"), faces(made)
    assert list(frame)[:5] == ["FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight", "FaceScore"]
    assert {"x_0", "y_67", "Pitch", "AU12", "Happy", "mesh_x_477", "_neutral", "valence", "approx_time"} <= set(frame)
    assert frame["frame"].tolist() == rows["frame_index"].tolist()
    assert frame["Pitch"].to_numpy() == pytest.approx(rows["pose_pitch"].to_numpy(), abs=1e-6)
    assert set(frame["input"]) == {made.rows("SELECT uri FROM videos WHERE uri LIKE '%turned.mp4'")[0]["uri"]}


def test_the_command_prints_or_writes(made, tmp_path):
    root = made.output.root.path
    done = CliRunner().invoke(main, ["export", root, "--video", "turned.mp4", "--format", "csv", "--track", "0"])
    assert done.exit_code == 0, done.output
    assert len(pd.read_csv(io.StringIO(done.stdout))) == 12
    done = CliRunner().invoke(main, ["export", root, "--video", "turned.mp4", "--format", "parquet"])
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1) and "needs --out FILE" in done.stderr
    done = CliRunner().invoke(main, ["export", made.output.root.path, "--summary", "csv"])
    assert done.exit_code == 0 and done.stderr == f"{SYNTHETIC_WEIGHTS}\n" and SYNTHETIC_WEIGHTS not in done.stdout
    with pytest.raises(UsageError, match="--track 9: not in turned"):
        write_export(made.output, None, ExportSettings("turned.mp4", "csv", track_id=9))


def test_the_preview_command(made, tmp_path):
    root, sheet = made.output.root.path, tmp_path / "s.png"
    command = ["preview", root, "--video", "turned.mp4", "--out", str(sheet), "--frames", "2", "--from", "0:00.1"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert sheet.exists() and "2 frames of file://" in done.stdout and "carry no meaning" in done.stdout
    for extra in (["--draw", "hats"], ["--from", "noon"], ["--storage-option", "anon"]):
        done = CliRunner().invoke(main, [*command, *extra])
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1), extra
