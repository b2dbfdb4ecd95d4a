"""Rows that featray does not write end a view with one line that names the column, and leave a report whole."""

import math

import duckdb
import numpy as np
import pytest
from PIL import Image

from featray.errors import OutputError
from featray.report.page import ReportSettings, write_report
from featray.tables.layout import Partition, open_output
from featray.views.happenings import Event, read_video_events
from featray.views.overlay import LAYERS, cut_square, draw_faces
from featray.views.selection import Face, VideoRow, find_video, read_frames
from tests.fixtures.handmade import RELEASE, write_output
from tests.fixtures.tampering import tamper

VIDEO = VideoRow("d", "r", "v", "u", None, 1, "", 1, 1, True, None)
ROW = {"frame_index": 7, "face_index": 0, "track_id": 1, "crop_x": 10.0, "crop_y": 10.0, "crop_side": 40.0}
ROW |= {"box_x1": 20.0, "box_y1": 20.0, "box_x2": 40.0, "box_y2": 40.0, "landmarks5": [25.0] * 10}
ROW |= dict.fromkeys(("pose_pitch", "pose_yaw", "pose_roll", "gaze_yaw", "gaze_pitch"), 0.1)


def drawn(**changes):
    picture = Image.new("RGB", (80, 60))
    draw_faces(picture, [Face(ROW | changes)], 1.0, frozenset(LAYERS))
    return np.asarray(picture)


@pytest.mark.parametrize(
    "change, shown",
    [
        ({"box_x1": None}, "box_x1 is null"),
        ({"box_x2": math.nan}, "box_x2 is nan"),
        ({"box_x2": 3e38}, "box_x2 is 3e+38"),
        ({"box_x1": 50.0}, "box_x2 is 40"),
        ({"crop_side": 0.0}, "crop_side is 0"),
        ({"pose_yaw": math.inf}, "pose_yaw is inf"),
        ({"track_id": None}, "track_id is null"),
        ({"landmarks5": [1.0]}, "landmarks5 is malformed"),
        ({"landmarks5": [None] * 10}, "landmarks5 is malformed"),
    ],
)
def test_a_damaged_face_is_named(change, shown):
    with pytest.raises(OutputError) as error:
        drawn(**change)
    assert str(error.value) == f"faces: frame 7, face 0: {shown}, so the row is damaged; run `featray verify`"


def test_a_face_without_landmarks_is_drawn():
    assert (drawn(landmarks5=None) != drawn(landmarks5=None, box_x1=22.0)).any()
    assert cut_square(Face(ROW)) == (10, 10, 40)


@pytest.mark.parametrize("column", ["track_id", "start_us", "peak_us", "end_us", "peak"])
@pytest.mark.parametrize("value", ["NULL", "9223372036854775807"])
def test_a_damaged_event_is_named(column, value):
    connection = duckdb.connect()
    row = {"track_id": "1", "kind": "'smile'", "start_us": "1", "peak_us": "2", "end_us": "3", "peak": "0.5"}
    assert list(row) == list(Event.__annotations__)
    values = ", ".join(f"{text} AS {name}" for name, text in (row | {column: value}).items())
    connection.execute(f"CREATE TABLE events AS SELECT 'd' AS dataset, 'r' AS release, 'v' AS video_id, {values}")
    with pytest.raises(OutputError, match=rf"^events: {column} is "):
        read_video_events(connection, VIDEO)


@pytest.mark.parametrize("index, time", [("NULL", 5), ("3", -(2**63)), ("3", 2**62)])
def test_a_damaged_frame_is_named(index, time):
    connection = duckdb.connect()
    keys = f"'d' AS dataset, 'r' AS release, 'v' AS video_id, {index}::INT AS frame_index, ({time})::BIGINT AS pts_us"
    connection.execute(f"CREATE TABLE frames AS SELECT {keys}, 'ok' AS status")
    connection.execute(f"CREATE TABLE faces AS SELECT {keys}, 0 AS face_index WHERE false")
    with pytest.raises(OutputError, match=r"^frames: frame "):
        read_frames(connection, VIDEO, None, None, mesh=False)


@pytest.mark.parametrize("mesh", ["NULL", "[1]", "[x / 0 for x in range(1434)]"])
def test_a_damaged_mesh_is_named(mesh):
    connection = duckdb.connect()
    keys = "'d' AS dataset, 'r' AS release, 'v' AS video_id, 1 AS frame_index, 1::BIGINT AS pts_us, 0 AS face_index"
    for table, column in (("frames", "'ok' AS status"), ("faces", "1 AS x"), ("mesh", f"{mesh}::FLOAT[] AS mesh_xyz")):
        connection.execute(f"CREATE TABLE {table} AS SELECT {keys}, {column}")
    with pytest.raises(OutputError, match=r"^mesh: a row is damaged"):
        read_frames(connection, VIDEO, None, None, mesh=True)


def test_a_video_without_a_place_is_named():
    connection = duckdb.connect()
    values = "'d' AS dataset, 'r' AS release, 'v' AS video_id, NULL::VARCHAR AS uri, NULL::VARCHAR AS member"
    connection.execute(f"CREATE TABLE videos AS SELECT {values}, 'c' AS content_id, 1 AS size_bytes, 'x' AS run_id")
    with pytest.raises(OutputError, match=r"^videos: v: uri is null"):
        find_video(connection, "v")


@pytest.mark.parametrize(
    "table, changes",
    [
        ("faces", {"AU12": math.nan}),
        ("faces", {"frame_index": 99_999}),
        ("events", {"start_us": None, "peak": None}),
        ("tracks", {"start_us": None, "end_us": 2**63 - 1}),
    ],
)
def test_a_report_leaves_damaged_rows_out_of_its_pictures(tmp_path, table, changes):
    write_output(tmp_path / "out", derived=True)
    output = open_output(str(tmp_path / "out"))
    partition = Partition(output, "one", RELEASE)
    tamper(partition, "videos", lambda rows: [row | {"faces": 100} for row in rows], signed=True)
    tamper(partition, table, lambda rows: [row | changes for row in rows], signed=True)
    made = write_report(output, str(tmp_path / "r.html"), ReportSettings(dataset="one", thumbnails=False))
    assert made.size_bytes > 1000
