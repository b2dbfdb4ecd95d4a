"""Precomputed boxes: the rows of a video, their order, and the files that are refused before a run."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featray.config import DecodeConfig, DetectConfig, EveryNth, InputConfig
from featray.errors import ConfigError, ErrorCode, StorageError, VideoError
from featray.extract.child import ChildSettings
from featray.extract.isolation import IsolatedDecoder
from featray.extract.plan import UnitTask
from featray.faces.detector import DetectorFiles
from featray.faces.detectors import detector_for_videos, detector_sha256
from featray.sources.listing import Video, list_videos
from featray.video.units import Unit

VIDEO = Video("00000000000000aa", "file:///in/a.mp4", "/in/a.mp4", 1, "c")
MEMBER = Video("00000000000000bb", "s3://b/x.tar", "s3://b/x.tar", 1, "c", member="day/a.mp4")
ROW = {"video": "a.mp4", "frame_index": 3, "x1": 10.0, "y1": 20.0, "x2": 60.0, "y2": 90.0}


@dataclass
class At:
    """The attributes of a frame that boxes need."""

    index: int
    pts_us: int = -1


@pytest.fixture
def write(tmp_path):
    def write(rows, name="boxes.parquet", **options):
        path = tmp_path / name
        table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows)
        pq.write_table(table, path, **options)
        return path

    return write


def detector(path, video=VIDEO, **settings):
    config = DetectConfig(detector="boxes", boxes=str(path), **settings)
    return detector_for_videos(config, DetectorFiles())(video)


def boxes_at(path, index, video=VIDEO, **settings):
    (faces,) = detector(path, video, **settings)([At(index)])
    return faces.box_xyxy.tolist()


def sha256(path):
    return detector_sha256(DetectConfig(detector="boxes", boxes=str(path)), DetectorFiles())


def refused(path, kind, *parts):
    with pytest.raises(kind) as caught:
        sha256(path)
    message = str(caught.value)
    assert "\n" not in message
    for part in (path.name, *parts):
        assert part in message


def test_boxes_of_a_frame_and_of_none(write):
    path = write([ROW, {**ROW, "frame_index": 5}, {**ROW, "video": "other.mp4", "x1": 11.0}])
    first, second, third = detector(path)([At(3), At(4), At(5)])
    assert first.box_xyxy.tolist() == third.box_xyxy.tolist() == [[10, 20, 60, 90]]
    assert first.score.tolist() == [1] and np.isnan(first.landmarks5).all()
    assert (len(second), second.landmarks5.shape) == (0, (0, 5, 2))


def test_a_video_without_boxes_has_no_faces(write):
    assert boxes_at(write([{**ROW, "video": "other.mp4"}]), 3) == []


@pytest.mark.parametrize("name", [VIDEO.video_id, VIDEO.uri, "/in/a.mp4", "in/a.mp4", "a.mp4"])
def test_names_of_a_video(write, name):
    assert len(boxes_at(write([{**ROW, "video": name}]), 3)) == 1


@pytest.mark.parametrize("name", [MEMBER.video_id, "s3://b/x.tar#day/a.mp4", "day/a.mp4", "a.mp4"])
def test_names_of_a_member(write, name):
    assert len(boxes_at(write([{**ROW, "video": name}]), 3, MEMBER)) == 1


@pytest.mark.parametrize("name", ["x.tar", "s3://b/x.tar", "b.mp4", "in/a.mp4", ""])
def test_names_of_others(write, name):
    assert boxes_at(write([{**ROW, "video": name}]), 3, MEMBER) == []


def test_times_must_be_equal(write):
    row = {key: value for key, value in ROW.items() if key != "frame_index"}
    on_time = detector(write([{**row, "pts_us": 41_708}]))
    assert [len(faces) for faces in on_time([At(3, 41_708), At(3, 41_709), At(3, 41_707)])] == [1, 0, 0]


def test_frame_index_counts_where_there_are_both(write):
    both = detector(write([{**ROW, "pts_us": 7}]))
    assert [len(faces) for faces in both([At(3, 8), At(4, 7)])] == [1, 0]


def test_order_and_limits(write):
    rows = [
        {**ROW, "x1": 30.0, "x2": 80.0, "score": 0.7},
        {**ROW, "x1": 20.0, "x2": 70.0, "score": 0.7},
        {**ROW, "x1": 25.0, "x2": 75.0, "score": 0.9},
        {**ROW, "x1": 1.0, "score": 0.49},
        {**ROW, "x1": 41.0, "score": 1.0},
    ]
    path = write(rows)
    # The last box is 19 px wide, the one before it is below min_score; overlapping ones are kept.
    assert [box[0] for box in boxes_at(path, 3)] == [25, 20, 30]
    assert [box[0] for box in boxes_at(path, 3, max_faces=2)] == [25, 20]
    assert [box[0] for box in boxes_at(path, 3, min_score=0.4, min_size_px=19)] == [41, 25, 20, 30, 1]


def test_rows_need_no_order(write):
    rows = [{**ROW, "frame_index": index, "x1": float(index % 11)} for index in (9, 2, 7, 2**31, 0)]
    indices = [0, 2, 7, 9, 2**31]
    found = detector(write(rows))([At(index) for index in indices])
    assert [faces.box_xyxy[:, 0].tolist() for faces in found] == [[index % 11] for index in indices]


def test_landmarks(write):
    landmarks = [float(value) for value in range(10)]
    path = write([{**ROW, "landmarks5": landmarks}, {**ROW, "x1": 12.0, "landmarks5": None}])
    (faces,) = detector(path)([At(3)])
    assert faces.landmarks5[0].ravel().tolist() == landmarks
    assert np.isnan(faces.landmarks5[1]).all()


def test_types_like_ours(write):
    table = pa.table(
        {
            "video": pa.array(["a.mp4", "b.mp4"]).dictionary_encode(),
            "frame_index": pa.array([3, 3], pa.uint16()),
            **{name: pa.array([value, value], pa.float32()) for name, value in ROW.items() if name in ("x1", "x2")},
            **{name: pa.array([value, value], pa.int16()) for name, value in ROW.items() if name in ("y1", "y2")},
            "landmarks5": pa.array([[1.0] * 10, None], pa.list_(pa.float64(), 10)),
            "comment": pa.array([{"a": 1}, None]),
        }
    )
    assert boxes_at(write(table), 3) == [[10, 20, 60, 90]]


def test_csv(tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text(
        "video,frame_index,x1,y1,x2,y2,score,note\na.mp4,3,10,20,60.5,90,,x\na.mp4,3,12,20,60,90,.9,\n1,3,1,2,3,4,,\n"
    )
    assert boxes_at(path, 3) == [[10, 20, 60.5, 90], [12, 20, 60, 90]]


def test_only_row_groups_that_may_hold_the_video_are_read(write, monkeypatch):
    rows = [{**ROW, "video": f"{video:03}.mp4", "frame_index": index} for video in range(100) for index in range(200)]
    path = write(rows, row_group_size=200, compression="none", use_dictionary=False)
    video = Video("00000000000000cc", "file:///in/042.mp4", "/in/042.mp4", 1, "c")
    served = detector(path, video)
    read = []
    real = type(served._file._location.fs)._open
    monkeypatch.setattr(type(served._file._location.fs), "_open", lambda *a, **k: Counted(real(*a, **k), read))
    assert len(served([At(199)])[0]) == 1
    # One group is a hundredth of the file; the footer is read too.
    assert 0 < sum(read) < path.stat().st_size / 5


class Counted:
    """A file that records how many bytes are read from it."""

    def __init__(self, file, read):
        self._file, self._read = file, read

    def read(self, *size):
        data = self._file.read(*size)
        self._read.append(len(data))
        return data

    def __getattr__(self, name):
        return getattr(self._file, name)


def test_rows_of_a_video_are_read_once_for_its_units(write):
    path = write([ROW])
    for_video = detector_for_videos(DetectConfig(detector="boxes", boxes=str(path)), DetectorFiles())
    assert len(for_video(VIDEO)([At(3)])[0]) == 1
    path.unlink()
    assert len(for_video(VIDEO)([At(3)])[0]) == 1


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"x2": 5.0}, "x1 < x2"),
        ({"y2": float("nan")}, "x1 < x2"),
        ({"x1": None}, "without frame_index, x1"),
        ({"frame_index": None}, "without frame_index, x1"),
        ({"score": 1.5}, "score outside"),
        ({"score": float("nan")}, "score outside"),
        ({"landmarks5": [1.0]}, "10 numbers"),
    ],
)
def test_malformed_rows_fail_their_video_only(write, change, what):
    path = write([{**ROW, "score": 1.0, "landmarks5": None}, {**ROW, "video": "b.mp4", "score": 1.0, **change}])
    assert len(boxes_at(path, 3)) == 1
    with pytest.raises(VideoError, match=what) as caught:
        boxes_at(path, 3, Video("00000000000000dd", "file:///in/b.mp4", "/in/b.mp4", 1, "c"))
    assert caught.value.code == ErrorCode.BAD_BOXES


def test_what_is_no_table_is_refused(tmp_path):
    for name, content in (("a.parquet", b"PAR1 or not"), ("b.csv", b""), ("c.csv", b"video,x1\na,b,c\n")):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, ConfigError, "cannot be read as")
    (tmp_path / "a.json").write_text("{}")
    refused(tmp_path / "a.json", ConfigError, "must end in .parquet or .csv")
    refused(tmp_path / "none.parquet", StorageError, "does not exist")


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"y2": None}, ["has no column y2", "its columns are video"]),
        ({"frame_index": None}, ["neither frame_index nor pts_us"]),
        ({"x1": "wide"}, ["column x1 is string"]),
        ({"frame_index": 1.5}, ["column frame_index is double"]),
        ({"video": 7}, ["column video is int64"]),
    ],
)
def test_columns_are_checked_before_a_run(write, change, parts):
    row = {key: value for key, value in {**ROW, **change}.items() if value is not None}
    refused(write([row]), ConfigError, *parts)


def test_csv_types_are_checked_before_a_run(tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text("video,frame_index,x1,y1,x2,y2\na.mp4,3,left,20,60,90\n")
    refused(path, ConfigError, "invalid value 'left'")


def test_content_is_told_apart_but_not_its_place(write, tmp_path):
    first = sha256(write([ROW]))
    (tmp_path / "elsewhere").mkdir()
    assert sha256(write([ROW], "elsewhere/other.parquet")) == first
    assert sha256(write([{**ROW, "x1": 11.0}], "changed.parquet")) != first
    assert len(first) == 64


def test_in_the_decoding_process(write, face_clip):
    """Several videos in one child: each gets its own boxes, and malformed boxes fail only their own video."""
    (video,) = list_videos(InputConfig(uris=[str(face_clip)]))
    rows = [{**ROW, "video": "face.mp4", "frame_index": index} for index in (0, 1, 118, 118)]
    rows[3] |= {"x1": 200.0, "x2": 300.0}
    config = DetectConfig(detector="boxes", boxes=str(write([*rows, {**ROW, "video": "bad.mp4", "x1": 70.0}])))
    decoder = IsolatedDecoder(ChildSettings(DecodeConfig(sample=EveryNth(every=118)), config, {}))
    others = [replace(video, uri=f"file:///in/{name}.mp4", video_id=name) for name in ("bad", "none")]
    try:
        ours, bad, none = (
            next(decoder.chunks(UnitTask(one, "key", "shard", Unit(0), 1, 1))) for one in (video, *others)
        )
    finally:
        decoder.close()
    # Frame 1 is not sampled.
    assert ours.frames["faces"].to_pylist() == [1, 2, 0, 0] and not ours.outcome.failures
    assert ours.faces["box_x1"].to_pylist() == [10, 10, 200]
    assert ours.faces["landmarks5"].to_pylist() == [None] * 3
    assert [failure[:2] for failure in bad.outcome.failures] == [("detect", ErrorCode.BAD_BOXES)]
    assert none.frames["status"].to_pylist() == ["no_face"] * 4 and not none.outcome.failures
