"""`featray.to_fex` with the real Fex of py-feat 2.1.5, on rows selected as users select them."""

from __future__ import annotations

import duckdb
import feat.utils
import numpy as np
import pyarrow as pa
import pytest
from feat.data import Fex
from feat.utils.io import read_feat

import featray
from featray.errors import UsageError
from featray.views.export import write_csv
from featray.views.fex import fex_columns

pytestmark = pytest.mark.parity

KEYS = "dataset, release, video_id, frame_index, pts_us, face_index, run_id, track_id"
JOINED = f"SELECT * FROM faces JOIN blendshapes USING ({KEYS}) JOIN mesh USING ({KEYS}) ORDER BY face_index"


@pytest.fixture(scope="module")
def database(pair_of, pictures):
    """Return the three face tables of one picture, in DuckDB."""
    connection = duckdb.connect()
    for name, table in pair_of("v25")[1].tables(pictures["photo"]).items():
        # Partition columns are never null in an output, and nulls do not join.
        for column in ("dataset", "release"):
            table = table.set_column(table.schema.get_field_index(column), column, pa.array(["x"] * len(table)))
        connection.register(name, table)
    return connection


@pytest.fixture(scope="module")
def fex(database):
    return featray.to_fex(database.sql(JOINED).df())


@pytest.fixture(scope="module")
def theirs(pair_of, pictures):
    return pair_of("v25")[0].detect(pictures["photo"])


ACCESSORS = ("aus", "emotions", "blendshapes", "landmarks", "landmarks_x", "landmarks_y", "faceboxes", "poses", "gazes")


@pytest.mark.parametrize("accessor", ACCESSORS)
def test_accessors(accessor, fex, theirs):
    found, expected = getattr(fex, accessor), getattr(theirs, accessor)
    assert isinstance(found, Fex)
    assert list(found.columns) == list(expected.columns)
    assert found.shape == expected.shape
    assert found.notna().all(axis=None)
    assert set(found.dtypes) <= {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("old", "new"), [("facebox", "faceboxes"), ("facepose", "poses"), ("landmark", "landmarks"), ("input", "inputs")]
)
def test_older_names(old, new, fex):
    with pytest.warns(DeprecationWarning, match="renamed"):
        assert getattr(fex, old).equals(getattr(fex, new))


def test_columns_stand_in_pyfeats_order(fex, theirs):
    """All its columns are there except identities, which featray does not compute, and frame sizes, in `videos`."""
    expected = [name for name in theirs.columns if not name.startswith(("Identity", "Frame"))]
    found = [name for name in fex.columns if name in expected]
    facts = {"input", "frame"}
    assert [name for name in found if name not in facts] == [name for name in expected if name not in facts]
    assert facts <= set(found)


def test_metadata(fex, theirs):
    for name in ("au", "emotion", "facebox", "landmark", "facepose", "gaze", "blendshape"):
        assert getattr(fex, f"{name}_columns") == list(getattr(theirs, f"{name}_columns")), name
    assert fex.detector == "featray"
    assert fex.identity_columns is None


def test_facts_and_what_pyfeat_has_no_name_for(fex, pictures):
    assert fex["frame"].tolist() == [0, 0, 0]
    assert fex["approx_time"].tolist() == ["01:01"] * 3
    assert fex["input"].tolist() == ["0123456789abcdef"] * 3
    assert fex["track_id"].tolist() == [0, 1, 2]
    np.testing.assert_array_equal(fex[["box_x1", "box_y1", "box_x2", "box_y2"]].to_numpy(), pictures["photo"].boxes)
    assert not {"mesh_xyz", "crop_x", "pose_pitch", "emotion_happy", "neutral"} & set(fex.columns)


def test_facts_from_the_videos_table(database):
    sql = "SELECT *, 's3://bucket/a.mp4' AS uri, 1000 AS width, 667 AS height FROM faces"
    fex = featray.to_fex(database.sql(sql).df())
    assert fex["input"].tolist() == ["s3://bucket/a.mp4"] * 3
    assert (fex["FrameWidth"][0], fex["FrameHeight"][0]) == (1000, 667)


def test_slices_stay_fex(fex):
    smiling = fex[fex["AU12"] >= fex["AU12"].median()]
    assert isinstance(smiling, Fex)
    assert list(smiling.aus.columns) == list(fex.aus.columns)
    assert smiling.iloc[0].aus["AU12"] == smiling["AU12"].iloc[0]


def test_pyfeats_own_code_runs_on_it(fex):
    x, y = fex.landmarks_dlib68_xy()
    assert x.shape == y.shape == (3, 68)
    vertex = feat.utils.blendshape_to_au.DLIB68_FROM_MP478[30]
    np.testing.assert_array_equal(x[:, 30], fex[f"mesh_x_{vertex}"])
    summary = fex.aus.extract_mean()
    assert float(summary["mean_AU12"].iloc[0]) == pytest.approx(fex["AU12"].mean())


def test_arrow_and_pandas_give_the_same(database, fex):
    of_arrow = featray.to_fex(database.sql(JOINED).to_arrow_table())
    assert list(of_arrow.columns) == list(fex.columns)
    for accessor in ACCESSORS:
        assert getattr(of_arrow, accessor).equals(getattr(fex, accessor))


def test_faces_alone(database):
    fex = featray.to_fex(database.sql("SELECT * FROM faces").df())
    assert fex.aus.shape == (3, 20)
    assert fex.emotions.shape == (3, 7)
    assert (fex.landmark_columns, fex.blendshape_columns) == (None, None)
    with pytest.raises(AttributeError, match="blendshape"):
        _ = fex.blendshapes


def test_a_few_columns_and_no_rows(database):
    fex = featray.to_fex(database.sql("SELECT frame_index, AU12, emotion_happy FROM faces").df())
    assert list(fex.columns) == ["AU12", "Happy", "frame"]
    assert list(fex.aus.columns) == ["AU12"]
    empty = featray.to_fex(database.sql(f"{JOINED.replace(' ORDER BY', ' WHERE false ORDER BY')}").df())
    assert len(empty) == 0
    assert empty.landmarks.shape == (0, 136)


@pytest.mark.parametrize(
    ("sql", "part"),
    [
        ("SELECT 1 AS number", "no column of the faces, blendshapes or mesh tables"),
        ("SELECT AU12, [1.0, 2.0] AS mesh_xyz FROM faces", "1434 numbers"),
        ("SELECT AU12, NULL::FLOAT[] AS mesh_xyz FROM faces", "1434 numbers"),
    ],
)
def test_what_is_no_selection_from_faces(sql, part, database):
    with pytest.raises(UsageError, match=part):
        featray.to_fex(database.sql(sql).df())


def test_wrong_types_and_doubled_columns(database):
    with pytest.raises(UsageError, match="not dict"):
        featray.to_fex({"AU12": [0.5]})
    twice = database.sql("SELECT AU12 FROM faces").to_arrow_table()
    with pytest.raises(UsageError, match="'AU12' twice"):
        featray.to_fex(pa.Table.from_arrays([twice["AU12"]] * 2, names=["AU12", "AU12"]))


def test_pyfeat_reads_what_export_writes(database, fex, tmp_path):
    """py-feat's `read_feat` reads the CSV of `featray export --format fex`: same numbers under the same accessors."""
    frame, _ = fex_columns(database.sql(JOINED).to_arrow_table())
    with (tmp_path / "fex.csv").open("w") as file:
        write_csv(pa.Table.from_pandas(frame.drop(columns="landmarks5"), preserve_index=False), file)
    read = read_feat(str(tmp_path / "fex.csv"))
    assert isinstance(read, Fex) and read.detector == "Detectorv2"
    for accessor in ACCESSORS:
        found, expected = getattr(read, accessor), getattr(fex, accessor)
        assert list(found.columns) == list(expected.columns), accessor
        np.testing.assert_array_equal(found.to_numpy(np.float32), expected.to_numpy(np.float32))
