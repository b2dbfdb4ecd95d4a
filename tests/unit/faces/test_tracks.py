import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from featray.faces.tracks import MAX_COURSE_US, MAX_GAP_US, Tracker

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
    short = [(0, [box(0)]), (FRAME_US, []), (MAX_GAP_US, [box(5)])]
    assert feed(Tracker(), short) == [[0], [], [0]]
    long = [(0, [box(0)]), (FRAME_US, []), (MAX_GAP_US + 1, [box(5)])]
    assert feed(Tracker(), long) == [[0], [], [1]]


def test_sparse_sampling_keeps_a_face_that_was_in_the_frame_before():
    tracker = Tracker()
    boxes, none = np.asarray([box(0)]), np.zeros((0, 4))
    assert tracker.update(0, boxes).tolist() == [0]
    assert tracker.update(5 * MAX_GAP_US, boxes).tolist() == [0]
    assert tracker.update(7 * MAX_GAP_US, none).tolist() == []
    assert tracker.update(9 * MAX_GAP_US, boxes).tolist() == [1]


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
    """Greedy matching would give the first new box the old one it overlaps most, and leave the second unmatched."""
    old = [box(0), box(60)]
    new = [box(35), box(90)]
    assert feed(Tracker(), [(0, old), (FRAME_US, new)])[1] == [0, 1]


def test_a_cut_ends_all_tracks():
    tracker = Tracker()
    boxes = np.asarray([box(0), box(500)])
    assert tracker.update(0, boxes).tolist() == [0, 1]
    assert tracker.update(FRAME_US, boxes, shot_cut=True).tolist() == [2, 3]
    assert tracker.update(2 * FRAME_US, np.zeros((0, 4)), shot_cut=True).tolist() == []
    assert tracker.update(3 * FRAME_US, boxes).tolist() == [4, 5]


@pytest.mark.parametrize("step", [30, 70, 110])
def test_faces_that_pass_each_other_keep_their_tracks(step):
    """Overlap from one frame to the next ranges from large to none."""
    frames = [(i * FRAME_US, [box(i * step), box(1000 - i * step, y=90)]) for i in range(10)]
    assert feed(Tracker(), frames) == [[0, 1]] * 10


def test_a_face_that_went_behind_another_comes_out_on_the_other_side():
    """For 0.3 s only the face in front is detected."""
    frames = []
    for i in range(60):
        behind, front = box(12.0 * i), box(700 - 12.0 * i, y=5)
        hidden = abs(behind[0] - front[0]) < 60
        frames.append((i * FRAME_US, [front] if hidden else [behind, front]))
    ids = feed(Tracker(), frames)
    assert [row for row in ids if len(row) == 1] == [[1]] * 5
    assert [row for row in ids if len(row) == 2] == [[0, 1]] * 55


def test_a_face_that_is_away_is_expected_on_its_course_for_a_while_only():
    course = [(i * FRAME_US, [box(20.0 * i)]) for i in range(10)]
    late_us, farthest = 9 * FRAME_US + MAX_GAP_US, 180 + 20.0 * MAX_COURSE_US / FRAME_US
    assert feed(Tracker(), [*course, (late_us, [box(farthest)])])[-1] == [0]
    assert feed(Tracker(), [*course, (late_us, [box(180 + 20.0 * MAX_GAP_US / FRAME_US)])])[-1] == [1]


def identities(clip, seen, tracker):
    """Return the track ids of each head of a clip, in order, without repetition.

    Frames with fewer faces than heads are left out: positions do not show which head a face belongs to.
    """
    ids: dict[int, list[int]] = {}
    for squares, one in zip(clip.truth, seen, strict=True):
        boxes = one.faces.box_xyxy
        given = tracker.update(one.frame.pts_us, boxes, shot_cut=bool(one.shot_cut))
        heads = [head for head, square in enumerate(squares) if square is not None]
        if not heads or len(boxes) < len(heads):
            continue
        centres = np.asarray([[(s[0] + s[2]) / 2, (s[1] + s[3]) / 2] for s in squares if s is not None])
        away = np.linalg.norm(boxes.reshape(-1, 2, 2).mean(axis=1)[:, None] - centres[None], axis=2)
        for face, place in zip(*linear_sum_assignment(away), strict=True):
            if away[face, place] < 60:
                run = ids.setdefault(heads[place], [])
                run += [] if run[-1:] == [given[face]] else [int(given[face])]
    return ids


@pytest.mark.parametrize(
    ("name", "switches"), [("crossing", 0), ("passing_fast", 0), ("overlapping", 1), ("pan", 0), ("entrance", 0)]
)
def test_real_detections_keep_their_identities(scenes, dense, name, switches):
    tracker = Tracker()
    ids = identities(scenes[name], dense(scenes[name].path), tracker)
    assert sum(len(run) - 1 for run in ids.values()) <= switches
    assert tracker.count <= len(ids) + switches
    assert len({run[0] for run in ids.values()}) == len(ids)


def test_no_track_goes_over_a_cut(scenes, dense):
    tracker, by_shot = Tracker(), {}
    for one in dense(scenes["cuts"].path):
        given = tracker.update(one.frame.pts_us, one.faces.box_xyxy, shot_cut=bool(one.shot_cut))
        shot = sum(one.frame.index >= start for start in (33, 67, 98))
        by_shot.setdefault(shot, set()).update(given.tolist())
    assert by_shot == {0: {0}, 1: {1}, 2: set(), 3: {2}}
