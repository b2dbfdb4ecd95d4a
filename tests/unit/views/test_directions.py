import numpy as np
import pytest

from featray.errors import UsageError
from featray.views.directions import gaze_vectors, head_axes, head_rotations
from featray.views.times import clock_text, parse_time_us


def test_gaze_directions():
    assert gaze_vectors(0, 0) == pytest.approx([0, 0, -1])
    assert gaze_vectors(0.3, 0)[0] > 0, "positive yaw is the image's right"
    assert gaze_vectors(0, 0.3)[1] < 0, "positive pitch is up"
    assert np.linalg.norm(gaze_vectors(0.7, -0.4)) == pytest.approx(1)
    # The angle to the camera axis, as defined for the tables.
    assert -gaze_vectors(0.7, -0.4)[2] == pytest.approx(np.cos(0.7) * np.cos(-0.4))


def test_head_axes():
    assert head_axes(0, 0, 0) == pytest.approx(np.asarray([[1, 0, 0], [0, -1, 0], [0, 0, -1]]))
    assert head_axes(0.3, 0, 0)[2, 1] < 0, "positive pitch lifts the nose"
    assert head_axes(0, 0.3, 0)[2, 0] < 0, "positive yaw turns to the subject's right, the image's left"
    assert head_axes(0, 0, 0.3)[1, 0] < 0, "positive roll tilts the crown to the subject's right"
    axes = head_axes(0.4, -0.8, 0.2)
    assert axes @ axes.T == pytest.approx(np.eye(3))


def test_head_pose_is_the_networks_rotation_vector():
    # MODEL: the raw vector p gives pitch = -p0, roll = -p2, yaw = +p1.
    raw = np.asarray([0.3, -0.5, 0.2])
    assert head_rotations(-raw[0], raw[1], -raw[2]).as_rotvec() == pytest.approx(raw)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("12", 12), ("12s", 12), ("0.25s", 0.25), ("1:02.5", 62.5), ("00:01:02", 62), ("2:00:00", 7200), (" 7 ", 7)],
)
def test_times_are_read(text, seconds):
    assert parse_time_us(text) == seconds * 1_000_000


@pytest.mark.parametrize("text", ["", "s", "-3", "1:2:3:4", "12m", "1:-2", "nan"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(UsageError, match="is not a time; write seconds"):
        parse_time_us(text)


def test_times_are_written():
    assert [clock_text(t) for t in (0, 62_500_000, 3_661_000_499, -1_500_000)] == [
        "0:00.000", "1:02.500", "1:01:01.000", "-0:01.500",
    ]  # fmt: skip
