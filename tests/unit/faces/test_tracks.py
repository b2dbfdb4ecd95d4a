import numpy as np

from featray.faces.tracks import MAX_GAP_US, Tracker

FRAME_US = 40_000


def box(x, y=0.0, side=100.0):
    return [x, y, x + side, y + side]


def feed(tracker, frames):
    return [tracker.update(t, np.asarray(boxes).reshape(-1, 4)).tolist() for t, boxes in frames]


def test_a_moving_face_keeps_its_track():
    ids = feed(Tracker(), [(i * FRAME_US, [box(10.0 * i)]) for i in range(50)])
    assert ids == [[0]] * 50


def test_two_faces_keep_theirs_when_their_order_changes():
    frames = [(0, [box(0), box(500)]), (FRAME_US, [box(498), box(3)]), (2 * FRAME_US, [box(5), box(495)])]
    assert feed(Tracker(), frames) == [[0, 1], [1, 0], [0, 1]]


def test_a_short_gap_is_bridged_and_a_long_one_is_not():
    short = [(0, [box(0)]), (MAX_GAP_US, [box(5)])]
    assert feed(Tracker(), short) == [[0], [0]]
    long = [(0, [box(0)]), (MAX_GAP_US + 1, [box(5)])]
    assert feed(Tracker(), long) == [[0], [1]]


def test_sparse_sampling_keeps_a_face_that_was_in_the_frame_before():
    tracker = Tracker()
    boxes = np.asarray([box(0)])
    assert tracker.update(0, boxes).tolist() == [0]
    assert tracker.update(5 * MAX_GAP_US, boxes, before_us=0).tolist() == [0]
    assert tracker.update(9 * MAX_GAP_US, boxes, before_us=7 * MAX_GAP_US).tolist() == [1]


def test_a_face_that_stays_does_not_keep_one_alive_that_left():
    tracker = Tracker()
    frames = (
        [(0, [box(0), box(500)])]
        + [(i * FRAME_US, [box(0)]) for i in range(1, 40)]
        + [(40 * FRAME_US, [box(0), box(500)])]
    )
    assert feed(tracker, frames)[-1] == [0, 2]
    assert tracker.count == 3


def test_the_best_assignment_over_all_faces_wins():
    """Greedy matching would give the first new box the old one it overlaps most, and orphan the second."""
    old = [box(0), box(60)]
    new = [box(35), box(90)]
    assert feed(Tracker(), [(0, old), (FRAME_US, new)])[1] == [0, 1]
