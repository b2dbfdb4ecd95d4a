"""The face that each label is matched with, and the account of labels without a match."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from featray.errors import UsageError
from featray.evaluate.join import in_words, join_labels
from featray.evaluate.labels import LabelSettings, understand
from featray.evaluate.matching import Fate
from featray.report.scope import open_scope
from tests.fixtures.labelled import Planted

LEFT = {"box_x1": 0.0, "box_y1": 0.0, "box_x2": 100.0, "box_y2": 100.0, "AU12": 0.25}
RIGHT = {"box_x1": 200.0, "box_y1": 0.0, "box_x2": 300.0, "box_y2": 100.0, "AU12": 0.75}
WIDE = {"box_x1": 150.0, "box_y1": 0.0, "box_x2": 400.0, "box_y2": 250.0, "AU12": 0.5}


@pytest.fixture(scope="module")
def scope(tmp_path_factory):
    """Return a release with every third frame of ten, 40 ms apart from 1 s on; one has no face, one is damaged."""
    at = [(i, 1_000_000 + 40_000 * i) for i in (0, 3, 6, 9)]
    planted = Planted(
        {
            "a/one.mp4": [(*at[0], "ok", [LEFT]), (*at[1], "no_face", []), (*at[2], "ok", [LEFT, RIGHT]),
                          (*at[3], "decode_error", [])],
            "b/one.mp4": [(*at[0], "ok", [RIGHT, LEFT, WIDE])],
            "b/two.v2.mp4": [(*at[0], "ok", [RIGHT])],
        },
        failed=("b/broken.mp4",),
    )  # fmt: skip
    return open_scope(planted.write(tmp_path_factory.mktemp("join")), None, None)


def join(scope, rows, **settings):
    table = pa.table({name: [row.get(name) for row in rows] for name in rows[0]})
    labels = understand(table, "labels.csv", LabelSettings())
    return join_labels(scope, labels, **settings)


def met(joined):
    return [None if np.isnan(value) else float(value) for value in joined.faces["AU12"]]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a/one.mp4", 0.25),
        ("b/one.mp4", 0.75),
        ("made/b/one.mp4", 0.75),
        ("s3://bucket/made/b/one.mp4", 0.75),
        ("./b/one.mp4", 0.75),
        ("b\\one.mp4", 0.75),
        ("b/one", 0.75),
        ("two.v2", 0.75),
        ("0000000000000000", 0.25),
    ],
)
def test_names_of_videos(scope, name, expected):
    assert met(join(scope, [{"video": name, "frame": 0, "AU12": 1}])) == [expected]


@pytest.mark.parametrize("name", ["ne.mp4", "tw", "c/one.mp4", "1", "%", "one.mp4 "])
def test_names_that_are_of_no_video(scope, name):
    rows = [{"video": name, "frame": 0, "AU12": 1}, {"video": "a/one.mp4", "frame": 0, "AU12": 1}]
    assert join(scope, rows).fates.tolist() == [Fate.NO_VIDEO, Fate.FOUND]


def test_every_label_has_a_fate(scope):
    rows = [
        ("a/one.mp4", 0, Fate.FOUND),
        ("a/one.mp4", 3, Fate.NO_FACE),
        ("a/one.mp4", 4, Fate.NOT_SAMPLED),
        ("a/one.mp4", 6, Fate.FOUND),
        ("a/one.mp4", 9, Fate.DECODE_ERROR),
        ("one.mp4", 0, Fate.SEVERAL_VIDEOS),
        ("gone.mp4", 0, Fate.NO_VIDEO),
        ("broken.mp4", 0, Fate.VIDEO_FAILED),
    ]
    joined = join(scope, [{"video": name, "frame": frame, "AU12": 1} for name, frame, _ in rows])
    assert joined.fates.tolist() == [fate for _, _, fate in rows]
    assert sum(joined.counts.values()) == len(rows) and joined.counts["found"] == 2
    assert joined.several_faces == 1
    words = in_words(joined)
    assert "1 of videos that this release does not have (gone.mp4)" in words and "\n" not in words
    assert met(joined) == [0.25, None, None, 0.25, None, None, None, None]


def test_times_meet_the_frame_that_is_nearest_if_it_is_near(scope):
    """Frames are 40 ms apart, so a label is at most 20 ms from its frame; the next frame was not sampled."""
    near, far = 1_000_000 + 240_000 + 19_000, 1_000_000 + 240_000 + 21_000
    rows = [{"video": "a/one.mp4", "pts_us": t, "AU12": 1} for t in (1_000_000, near, far, 0, 99_000_000)]
    assert join(scope, rows).fates.tolist() == [Fate.FOUND, Fate.FOUND, *[Fate.NOT_SAMPLED] * 3]
    rows = [{"video": "a/one.mp4", "time_s": t / 1e6, "AU12": 1} for t in (1_000_000, near, far)]
    wide = join(scope, rows[::2], tolerance_us=50_000)
    assert wide.fates.tolist() == [Fate.FOUND, Fate.FOUND] and wide.frames.tolist() == [0, 6]
    assert join(scope, rows[:2], tolerance_us=0).fates.tolist() == [Fate.FOUND, Fate.NOT_SAMPLED]


def test_of_labels_that_come_faster_than_frames_the_nearest_counts(scope):
    rows = [{"video": "a/one.mp4", "pts_us": 1_240_000 + off, "AU12": 1} for off in (-12_000, 4_000, 20_000)]
    assert join(scope, rows).fates.tolist() == [Fate.NEARER_LABEL, Fate.FOUND, Fate.NEARER_LABEL]


def test_boxes_choose_among_faces(scope):
    boxes = [(10, 10, 110, 110), (195, 5, 290, 95), (120, 0, 145, 20), (None,) * 4, (150, 10, 400, 250)]
    rows = [
        {"video": "b/one.mp4", "frame": 0, "AU12": 1}
        | dict(zip(("box_x1", "box_y1", "box_x2", "box_y2"), box, strict=True))
        for box in boxes
    ]
    joined = join(scope, rows)
    assert met(joined) == [0.25, 0.75, None, 0.75, 0.5]  # the fourth gives no place, so the best score is taken
    assert joined.fates[2] == Fate.NO_FACE_THERE and joined.several_faces == 1
    assert join(scope, rows[:1], least_iou=0.7).fates.tolist() == [Fate.NO_FACE_THERE]


def test_a_face_is_met_by_the_box_that_fits_it_best(scope):
    rows = [
        {"video": "b/one.mp4", "frame": 0, "AU12": 1, "box_x1": x, "box_y1": 0.0, "box_x2": x + 100.0, "box_y2": 100.0}
        for x in (20.0, 5.0)
    ]
    assert join(scope, rows).fates.tolist() == [Fate.NO_FACE_THERE, Fate.FOUND]


def test_points_choose_the_smallest_face_that_holds_them(scope):
    rows = [
        {"video": "b/one.mp4", "frame": 0, "AU12": 1, "point_x": x, "point_y": y}
        for x, y in ((50.0, 50.0), (250.0, 50.0), (250.0, 200.0), (120.0, 50.0))
    ]
    assert met(join(scope, rows)) == [0.25, 0.75, 0.5, None]


def test_labels_that_meet_nothing_say_why(scope):
    with pytest.raises(UsageError, match=r"none of 1 row has a frame: 1 of videos .*gone.mp4.*has one.mp4") as found:
        join(scope, [{"video": "gone.mp4", "frame": 0, "AU12": 1}])
    assert "\n" not in str(found.value)


def test_pictures_need_a_release_of_pictures(scope):
    with pytest.raises(UsageError, match=r"names pictures \(picture\), but release .* was made from videos"):
        join(scope, [{"picture": "0001.jpg", "AU12": 1}])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Return a release whose frames have the names of their pictures."""
    faces = [{"AU12": 0.25}, {"AU12": 0.5}, {"AU12": 0.75}]
    planted = Planted(
        {
            "SN001/Y": [(0, 0, "ok", faces[:1], "day1/000.jpg"), (1, 1, "ok", faces[1:2], "day1/001.jpg")],
            "SN002/Y": [(0, 0, "ok", faces[2:], "day1/000.jpg")],
        }
    )
    return open_scope(planted.write(tmp_path_factory.mktemp("pictures")), None, None)


@pytest.mark.parametrize(
    ("video", "picture", "expected"),
    [
        ("SN001/Y", "day1/001.jpg", 0.5),
        ("SN001/Y", "001.jpg", 0.5),
        ("SN002/Y", "any/day1/000.jpg", 0.75),
        (None, "SN001/Y/day1/000.jpg", 0.25),
        (None, "001.jpg", 0.5),  # the only one of that name
        (None, "Y\\day1\\001.jpg", 0.5),
        ("day1", "001.jpg", 0.5),  # a folder of the sequence
        ("SN002/Y/day1", "000.jpg", 0.75),
    ],
)
def test_names_of_pictures(pictures, video, picture, expected):
    row = {"video": video, "picture": picture, "AU12": 1}
    assert met(join(pictures, [{k: v for k, v in row.items() if v}])) == [expected]


def test_pictures_that_are_not_there_or_are_several(pictures):
    rows = [{"picture": name, "AU12": 1} for name in ("000.jpg", "7.jpg", "001.jpg")]
    assert join(pictures, rows).fates.tolist() == [Fate.SEVERAL_PICTURES, Fate.NOT_SAMPLED, Fate.FOUND]
    rows = [("SN001/Y", "000.jpg"), ("SN001/Y", "002.jpg"), ("day1", "000.jpg"), ("day2", "001.jpg")]
    fates = join(pictures, [{"video": video, "picture": name, "AU12": 1} for video, name in rows]).fates
    assert fates.tolist() == [Fate.FOUND, Fate.NOT_SAMPLED, Fate.SEVERAL_PICTURES, Fate.NO_VIDEO]
