"""The OpenFace format of an export, compared with a file of OpenFace, and read by py-feat's reader of such files.

py-feat's package contains such a file, of OpenFace 1; it does not have the names that version 2 added.
"""

from __future__ import annotations

from pathlib import Path

import duckdb
import feat
import numpy as np
import pandas as pd
import pytest
from feat.utils.io import read_openface

from featray.tables.query import VIEWS
from featray.views.export import write_csv
from featray.views.openface import openface_table

pytestmark = pytest.mark.parity

KEYS = "video_id, frame_index, pts_us, face_index, track_id"
OF_VERSION_2 = ["face_id", "gaze_angle_x", "gaze_angle_y"]
OURS = ["intensity_scale"]


@pytest.fixture(scope="module")
def rows(pair_of, pictures):
    """Return the faces of one picture, with their 68 points."""
    connection = duckdb.connect()
    for name, table in pair_of("v25")[1].tables(pictures["photo"]).items():
        connection.register(name, table)
    points = f"(SELECT {KEYS}, points_xy FROM ({VIEWS['dlib68']}))"
    found = connection.sql(f"SELECT * FROM faces JOIN {points} USING ({KEYS}) ORDER BY face_index").to_arrow_table()
    assert found.num_rows > 0
    return found


@pytest.fixture(scope="module")
def path(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("openface") / "ours.csv"
    with path.open("w", newline="") as file:
        write_csv(openface_table(rows, -1), file)
    return path


@pytest.fixture(scope="module")
def theirs() -> pd.DataFrame:
    """Return OpenFace's output for a clip with a face."""
    found = pd.read_csv(Path(feat.__file__).parent / "tests" / "data" / "OpenFace_Test.csv", skipinitialspace=True)
    assert len(found) > 10
    return found


def test_columns_have_openfaces_names_and_order(path, theirs):
    """They are all of its columns except those without a counterpart, in its order, and no unknown ones."""
    ours = [name for name in pd.read_csv(path).columns if name not in OURS]
    left_out = ("gaze_0", "gaze_1", "pose_T", "X_", "Y_", "Z_", "p_", "AU45")
    expected = [name for name in theirs.columns if not name.startswith(left_out)]
    assert [name for name in ours if name not in OF_VERSION_2] == expected
    assert set(OF_VERSION_2) < set(ours)


def test_values_are_of_the_same_kinds(path, theirs):
    """Frames count from 1, presence is 0 or 1, confidence up to 1; only action units have another scale."""
    ours = pd.read_csv(path)
    assert ours["frame"].iloc[0] == theirs["frame"].iloc[0] == 1
    for frame in (ours, theirs):
        for name in (name for name in frame.columns if name.endswith("_c") or name == "success"):
            assert set(frame[name]) <= {0, 1}, name
        assert frame["confidence"].between(0, 1).all()
    top = [frame[[name for name in frame.columns if name.endswith("_r")]].to_numpy().max() for frame in (ours, theirs)]
    assert top[0] <= 1 < top[1] <= 5, "ours are probabilities, OpenFace's go to 5"


def test_pyfeat_reads_it(path, rows):
    read = read_openface(str(path))
    assert read.detector == "OpenFace" and len(read) == rows.num_rows
    points = np.asarray(rows["points_xy"].to_pylist(), np.float32)
    np.testing.assert_array_equal(read.landmarks.to_numpy(np.float32), np.hstack([points[:, :, 0], points[:, :, 1]]))
    np.testing.assert_array_equal(read["AU12_r"].to_numpy(np.float32), rows["AU12"].to_numpy())
    np.testing.assert_array_equal(read["AU12_c"], (rows["AU12"].to_numpy() >= 0.5).astype(int))
    assert list(read["timestamp"]) == [pts / 1e6 for pts in rows["pts_us"].to_pylist()]


def test_what_pyfeat_asks_for_is_there_but_for_what_is_left_out(path):
    """Its accessors take all of OpenFace's columns of a group, or none."""
    read = read_openface(str(path))
    missing = {name for group in (read.au_columns, read.facepose_columns) for name in group} - set(read.columns)
    assert missing == {"AU45_r", "AU45_c", "pose_Tx", "pose_Ty", "pose_Tz"}
