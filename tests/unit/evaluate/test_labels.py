"""Files of labels: the content that is read, and a one-line error for each fault."""

from __future__ import annotations

import io
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featray.errors import NotFound, UsageError
from featray.evaluate import labels as module
from featray.evaluate.labels import LabelSettings, read_labels
from featray.evaluate.values import OTHER_EMOTION, parse_emotions


@pytest.fixture
def read(tmp_path):
    def read(text, suffix=".csv", encoding="utf-8", **settings):
        path = tmp_path / f"labels{suffix}"
        path.write_bytes(text.encode(encoding))
        return read_labels(str(path), LabelSettings(**settings))

    return read


def test_a_file_with_everything(read):
    labels = read(
        "video,frame,subject,AU1,AU12,emotion,valence,arousal,gaze_yaw_deg,gaze_pitch_deg,pose_yaw,box_x1,box_y1,box_x2,box_y2\n"
        "a.mp4,0,007,0,1,Happiness,0.5,-0.25,90,-45,0.5,1,2,11,22\n"
        "b.mp4,7,008,1,,contempt,,,,,,,,,\n"
    )
    assert labels.videos.tolist() == ["a.mp4", "b.mp4"] and labels.moments.tolist() == [0, 7]
    assert labels.labels["subject"].tolist() == ["007", "008"]  # kept as text, not as numbers
    np.testing.assert_array_equal(labels.targets["AU01"], [0, 1])
    np.testing.assert_array_equal(labels.targets["AU12"], [1, np.nan])
    np.testing.assert_array_equal(labels.targets["emotion"], [1, OTHER_EMOTION])
    np.testing.assert_allclose(labels.targets["gaze_yaw"], [np.pi / 2, np.nan])
    np.testing.assert_allclose(labels.targets["gaze_pitch"], [-np.pi / 4, np.nan])
    np.testing.assert_array_equal(labels.targets["pose_yaw"], [0.5, np.nan])
    np.testing.assert_array_equal(labels.boxes[0], [1, 2, 11, 22])
    assert not labels.intensities and not labels.warnings


@pytest.mark.parametrize(
    ("column", "value", "kind", "expected"),
    [
        ("time_s", "1.5", "time", 1_500_000),
        ("time_ms", "1500", "time", 1_500_000),
        ("pts_us", "-33333", "time", -33_333),
        ("frame_index", "12", "frame", 12),
        ("picture", "0012.jpg", "picture", "0012.jpg"),
    ],
)
def test_moments(read, column, value, kind, expected):
    labels = read(f"video,{column},AU12\na,{value},1\n")
    assert (labels.columns.kind, labels.moments.tolist()) == (kind, [expected])


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("video;frame;AU12\na b.mp4;0;1\n", "utf-8"),
        ("video\tframe\tAU12\r\na b.mp4\t0\t1\r\n", "utf-8-sig"),
        ("video,frame,AU12\na b.mp4,0,1\n", "utf-16"),
        ('"video" , frame,AU12\n"a b.mp4", 0 , 1 \n', "utf-8"),
    ],
)
def test_csv_as_people_have_it(read, text, encoding):
    labels = read(text, encoding=encoding)
    assert labels.videos.tolist() == ["a b.mp4"] and labels.targets["AU12"].tolist() == [1]


def test_parquet_with_numbers_and_categories(tmp_path):
    table = pa.table(
        {
            "video": pa.array(["a", "a"]).dictionary_encode(),
            "frame": pa.array([0, 1], pa.int16()),
            "AU12": pa.array([True, None]),
            "emotion": pa.array([3.0, None]),
            "subject": [1, 2],
        }
    )
    pq.write_table(table, tmp_path / "l.parquet")
    labels = read_labels(str(tmp_path / "l.parquet"), LabelSettings(emotions={"3": "sad"}))
    np.testing.assert_array_equal(labels.targets["AU12"], [1, np.nan])
    np.testing.assert_array_equal(labels.targets["emotion"], [2, np.nan])
    assert labels.labels["subject"].tolist() == ["1", "2"]


def test_intensities_need_a_threshold(read):
    text = "video,frame,AU12\na,0,0\na,1,3\n"
    assert read(text, au_threshold=2.0).intensities
    with pytest.raises(UsageError, match="--au-threshold 2"):
        read(text)
    with pytest.raises(UsageError, match="only 0 and 1; omit it"):
        read("video,frame,AU12\na,0,0\na,1,1\n", au_threshold=2.0)


FAULTS = {
    "twice": ("video,frame,AU12\na,0,1\na,1,1\na,0,1\n", "rows 1 and 3 both label frame 0 of a; several faces"),
    "twice with a box": (
        "video,frame,AU12,point_x,point_y\na,0,1,5,5\na,0,1,5,5\n",
        "rows 1 and 2 both label frame 0 of a$",
    ),
    "no videos": ("clip,frame,AU12\na,0,1\n", "no column names videos; add one of video, .* It has: clip, frame, AU12"),
    "no moment": ("video,AU12\na,1\n", "no column gives a time"),
    "no labels": ("video,frame,smile\na,0,1\n", "no column of labels; add some of AU01"),
    "a unit with a letter": ("video,frame,AU12,AUO6\na,0,1,0\n", "'AUO6': action units are named AU and a number"),
    "a unit of three digits": ("video,frame,AU12,AU112\na,0,1,0\n", "'AU112': action units are named AU and a number"),
    "a unit of OpenFace": ("video,frame,AU12,AU06_c\na,0,1,0\n", "'AU06_c': action units are named AU and a number"),
    "misspelled": ("video,frame,AU12,valance\na,0,1,0\n", "'valance': did you mean valence"),
    "a column twice": ("video,frame,AU12,AU12\na,0,1,0\n", "has the column AU12 twice"),
    "a label twice": ("video,frame,AU1,AU01\na,0,1,0\n", "AU1 and AU01 are the same label"),
    "degrees in radians": (
        "video,frame,gaze_yaw,gaze_pitch\na,0,0.1,0\na,1,24.5,0\n",
        "row 2: gaze_yaw is 24.5, beyond",
    ),
    "degrees in radians, pitch": ("video,frame,gaze_yaw,gaze_pitch\na,0,0.1,-2\n", "gaze_pitch_deg"),
    "too many degrees": ("video,frame,pose_yaw_deg\na,0,270\n", "row 1: pose_yaw_deg is 270; its range is -180 to 180"),
    "half a gaze": ("video,frame,gaze_yaw\na,0,0.1\n", "has gaze_yaw without gaze_pitch"),
    "two gazes": ("video,frame,gaze_yaw,gaze_pitch,gaze_x,gaze_y,gaze_z\na,0,0,0,0,0,1\n", "as angles and as a vector"),
    "no gaze": ("video,frame,gaze_x,gaze_y,gaze_z\na,0,0,0,0\n", "row 1: the gaze vector is 0, 0, 0"),
    "not coded": ("video,frame,AU12\na,0,1\na,1,9\n", "row 2: AU12 is 9; units are 0 or 1"),
    "a letter": ("video,frame,AU12\na,0,C\n", "row 1: AU12 is 'C', not a number"),
    "infinite": ("video,frame,AU12\na,0,inf\n", "row 1: AU12 is infinite"),
    "nine points": ("video,frame,valence\na,0,7\n", "row 1: valence is 7; its range is -1 to 1: rescale it"),
    "an emotion": ("video,frame,emotion\na,0,bored\n", "emotion is 'bored'; use neutral, happy"),
    "a numbered emotion": (
        "video,frame,emotion\na,0,3\n",
        "emotion is 3; give names for the numbers, such as --emotions",
    ),
    "half a frame": ("video,frame,AU12\na,0.5,1\n", "row 1: frame is 0.5; frames are counted from 0"),
    "no frame": ("video,frame,AU12\na,,1\n", "row 1: frame is empty"),
    "no time": ("video,time_s,AU12\na,1e30,1\n", "are too large for times or frames"),
    "no video": ("video,frame,AU12\n ,0,1\n", "row 1: video is empty"),
    "half a box": ("video,frame,AU12,box_x1,box_y1\na,0,1,2,2\n", "not all of box_x1, box_y1, box_x2, box_y2"),
    "width for x2": (
        "video,frame,AU12,box_x1,box_y1,box_x2,box_y2\na,0,1,200,200,50,50\n",
        "row 1: the box ends before it begins",
    ),
    "an open box": ("video,frame,AU12,point_x,point_y\na,0,1,200,\n", "point_x, point_y: some are empty"),
    "empty": ("", "is empty"),
    "no rows": ("video,frame,AU12\n", "has no rows"),
    "nothing said": ("video,frame,AU12\na,0,\n", "AU12: no row has a value"),
    "a heading without end": (f"video,{'x' * 200_000},AU12\na,0,1\n", "cannot be read as CSV"),
    "ragged": ("video,frame,AU12\na,0,1,5\n", "cannot be read as CSV"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_line(read, fault):
    text, words = FAULTS[fault]
    with pytest.raises(UsageError, match=words) as found:
        read(text)
    assert "\n" not in str(found.value) and str(found.value).startswith("labels.csv: ")


def test_what_is_odd_is_said(read):
    rows = "".join(f"a,{n},0.{n % 9},0.2\n" for n in range(60))
    assert "if they are radians" in read("video,frame,gaze_yaw_deg,gaze_pitch_deg\n" + rows).warnings[0]
    labels = read("video,frame,AU12,AU18\na,0,1,1\n")
    assert labels.warnings == ["AU18: featray does not estimate this unit; left out"]
    assert list(labels.targets) == ["AU12"] and not labels.labels


def test_a_file_that_is_not_there_or_no_parquet(tmp_path):
    with pytest.raises(NotFound, match=r"nope\.csv"):
        read_labels(str(tmp_path / "nope.csv"), LabelSettings())
    odd = pa.table(
        {"video": ["a"], "frame": [0], "AU12": [1], "age": [math.inf], "site": pa.array([0.1], pa.float32())}
    )
    pq.write_table(odd, tmp_path / "odd.parquet")
    read = read_labels(str(tmp_path / "odd.parquet"), LabelSettings())
    assert (*read.labels["age"], *read.labels["site"]) == ("inf", "0.1")
    latin = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"a\xe4")])
    pq.write_table(odd.set_column(0, "video", latin), tmp_path / "latin.parquet")
    with pytest.raises(UsageError, match=r"latin\.parquet: video: is damaged, or has text that is not UTF-8"):
        read_labels(str(tmp_path / "latin.parquet"), LabelSettings())
    sink = io.BytesIO()
    pq.write_table(odd.rename_columns(["video", "frame", "AU12", "xage", "site"]), sink, store_schema=False)
    (tmp_path / "names.parquet").write_bytes(sink.getvalue().replace(b"xage", b"\xe4age"))
    with pytest.raises(UsageError, match=r"names\.parquet: cannot be read as Parquet"):
        read_labels(str(tmp_path / "names.parquet"), LabelSettings())
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(UsageError, match=r"x\.parquet: cannot be read as Parquet"):
        read_labels(str(tmp_path / "x.parquet"), LabelSettings())


def test_a_parquet_file_that_unfolds(tmp_path, monkeypatch):
    """A text in a dictionary, named by many rows, is small until it is read."""
    rows = 20_000
    table = {
        "video": ["a.mp4"] * rows,
        "frame_index": list(range(rows)),
        "AU12": [1.0] * rows,
        "note": ["x" * 500] * rows,
    }
    pq.write_table(pa.table(table), tmp_path / "labels.parquet")
    assert len(read_labels(str(tmp_path / "labels.parquet"), LabelSettings())) == rows
    monkeypatch.setattr(module, "_MOST_BYTES", 1 << 20)
    with pytest.raises(UsageError, match="has more than 1 MiB of values; keep only columns of labels"):
        read_labels(str(tmp_path / "labels.parquet"), LabelSettings())


@pytest.mark.parametrize("shared", [True, False])
def test_a_long_text_that_many_rows_have_is_not_unfolded(tmp_path, monkeypatch, shared):
    rows, path = 256, tmp_path / "labels.parquet"
    note = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["x" * 1_000_000]))
    table = pa.table({"video": ["a.mp4"] * rows, "frame_index": list(range(rows)), "AU12": [1.0] * rows, "note": note})
    if shared:
        pq.write_table(table, path, compression="zstd", store_schema=False)
    else:
        table = table.slice(0, 20)
        table = table.set_column(3, "note", table["note"].cast(pa.string()))
        pq.write_table(table, path, compression="zstd", use_dictionary=False)
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(module, "_MOST_BYTES", 8 << 20)
    before = pa.default_memory_pool().max_memory()
    with pytest.raises(UsageError, match="has more than 8 MiB of values; keep only columns of labels"):
        read_labels(str(path), LabelSettings())
    assert pa.default_memory_pool().max_memory() - before < 64 << 20


def test_a_label_column_that_is_not_there(read):
    labels = read("video,frame,AU12,light\na,0,1,dim\n")
    assert labels.text("light", "--split").tolist() == ["dim"]
    with pytest.raises(UsageError, match=r"--split lights: no such column in labels\.csv; its label columns: light"):
        labels.text("lights", "--split")


def test_names_of_numbers():
    assert parse_emotions("1=surprise, 2=fear") == {"1": "surprise", "2": "fear"} and parse_emotions(None) == {}
    for wrong in ("1", "=fear", "1=bored"):
        with pytest.raises(UsageError, match="--emotions"):
            parse_emotions(wrong)
