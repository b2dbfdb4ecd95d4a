"""Detection on few frames finds the same faces as detection on every frame."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from featray.faces import stride
from featray.faces.detector import Faces
from featray.faces.overlap import iou_matrix
from featray.faces.stride import find_faces
from featray.video.frame import Frame
from tests.fixtures.found_faces import all_frames

pytestmark = pytest.mark.slow

EVERY = 5
CLIPS = ["crossing", "overlapping", "passing_fast", "entrance", "exit", "cuts", "pan", "face", "no_face"]
FAST = ["passing_fast", "pan"]
"""Heads that move by a fifth of their width per frame or more; most of their frames are detected."""


class Looked:
    """A detector that returns the known results of the real one, and records the frames it is given."""

    def __init__(self, found) -> None:
        self._found = {seen.frame.index: seen.faces for seen in found}
        self.asked: list[int] = []

    def __call__(self, frames) -> list[Faces]:
        self.asked += [frame.index for frame in frames]
        return [self._found[frame.index] for frame in frames]


@pytest.fixture(scope="session")
def paths(scenes, clips: Path) -> dict[str, Path]:
    return {"face": clips / "face.mp4", "no_face": clips / "no_face.mp4"} | {k: v.path for k, v in scenes.items()}


@pytest.fixture(scope="session")
def compared(paths, dense):
    """Return by clip: frames, frames with the same faces, IoUs, frames with a face too many, frames detected."""
    results = {}
    for name in CLIPS:
        expected = dense(paths[name])
        look = Looked(expected)
        found = list(find_faces(all_frames(paths[name]), look, every=EVERY))
        assert [one.frame.index for one in found] == [one.frame.index for one in expected]
        assert [one.frame.index for one in found if not one.interpolated and one.frame.index in look.asked] == sorted(
            set(look.asked)
        )
        assert len(look.asked) == len(set(look.asked))
        same, ious, added = 0, [], 0
        for ours, theirs in zip(found, expected, strict=True):
            overlap = iou_matrix(ours.faces.box_xyxy, theirs.faces.box_xyxy)
            best = overlap[linear_sum_assignment(overlap, maximize=True)]
            same += len(ours.faces) == len(theirs.faces) and bool((best >= 0.5).all())
            added += not len(theirs.faces) and bool(len(ours.faces))
            ious += best.tolist()
        results[name] = len(found), same, ious, added, len(look.asked)
    return results


@pytest.mark.parametrize("name", CLIPS)
def test_few_detections_find_the_same_faces(compared, name: str) -> None:
    frames, same, ious, added, asked = compared[name]
    assert same >= 0.99 * frames
    assert np.mean(ious or 1) >= 0.95
    assert added == 0
    assert asked <= frames / (1 if name in FAST else 3)


def test_a_third_of_the_detections_is_enough(compared) -> None:
    assert sum(one[4] for one in compared.values()) <= sum(one[0] for one in compared.values()) / 3
    assert min(compared[name][4] / compared[name][0] for name in FAST) > 1 / EVERY


def test_cuts_are_found_and_nothing_is_interpolated_over_them(paths, dense) -> None:
    expected = dense(paths["cuts"])
    assert [one.frame.index for one in expected if one.shot_cut] == [33, 67, 98]
    look = Looked(expected)
    list(find_faces(all_frames(paths["cuts"]), look, every=30))
    assert {32, 33, 66, 67, 97, 98} <= set(look.asked)
    for name in ("crossing", "overlapping", "entrance", "exit", "pan", "face", "no_face"):
        assert not any(one.shot_cut for one in dense(paths[name])), name


def test_a_face_that_was_replaced_in_place_is_not_interpolated(dense, paths) -> None:
    """An equal box on both sides of a cut proves nothing."""
    expected = dense(paths["face"])
    box = expected[0].faces
    same_everywhere = [replace(one, faces=box) for one in expected]
    frames = [one.frame for one in expected[:11]]
    uncut, cut = Looked(same_everywhere), Looked(same_everywhere)
    assert sum(one.interpolated for one in find_faces(frames, uncut, every=10)) == 9
    dark = dense(paths["no_face"])[0].frame.picture
    frames[4:] = [replace(frame, picture=dark) for frame in frames[4:]]
    list(find_faces(frames, cut, every=10))
    assert uncut.asked == [0, 10]
    assert cut.asked == [0, 10, 3, 4]


def test_boxes_points_and_scores_are_interpolated_by_time(face_clip: Path) -> None:
    frame = next(all_frames(face_clip))
    times = [0, 10_000, 40_000]

    def faces_at(x: float, score: float) -> Faces:
        box = np.asarray([[300, 0, 400, 100], [x, 0, x + 100, 100]], np.float32)
        points = np.full((2, 5, 2), x, np.float32)
        scores = np.asarray([0.9, score], np.float32)
        order = np.argsort(-scores)
        return Faces(box[order], scores[order], points[order])

    answers = {0: faces_at(0, 0.7), 2: faces_at(20, 0.99)}
    frames = [replace(frame, index=i, pts_us=t) for i, t in enumerate(times)]
    found = list(find_faces(frames, lambda asked: [answers[f.index] for f in asked], every=2))
    assert [one.interpolated for one in found] == [False, True, False]
    middle = found[1].faces
    assert np.allclose(middle.score, [0.9, 0.7725])
    assert np.allclose(middle.box_xyxy, [[300, 0, 400, 100], [5, 0, 105, 100]])
    assert np.allclose(middle.landmarks5[1], 5)


def _still(frame: Frame, count: int, step_us: int) -> list[Frame]:
    return [replace(frame, index=i, pts_us=i * step_us) for i in range(count)]


def test_nothing_is_interpolated_over_more_than_a_second(dense, paths) -> None:
    first = dense(paths["face"])[0]

    def asked(step_us: int) -> list[int]:
        calls: list[int] = []

        def look(frames):
            calls.extend(f.index for f in frames)
            return [first.faces] * len(frames)

        list(find_faces(_still(first.frame, 9, step_us), look, every=8))
        return calls

    assert asked(125_000) == [0, 8]
    assert sorted(asked(130_000)) == [0, 4, 8]
    assert sorted(asked(1_100_000)) == list(range(9))


def test_large_pictures_are_not_held_for_long(dense, paths, monkeypatch) -> None:
    first = dense(paths["face"])[0]
    picture_bytes = first.frame.width_px * first.frame.height_px * 3 // 2
    monkeypatch.setattr(stride, "HELD_BYTES", 4 * picture_bytes)
    calls: list[int] = []

    def look(frames):
        calls.extend(f.index for f in frames)
        return [first.faces] * len(frames)

    found = list(find_faces(_still(first.frame, 14, 40_000), look, every=10))
    assert calls == [0, 4, 8, 10, 13]
    assert [one.frame.index for one in found] == list(range(14))


@pytest.mark.parametrize(("frames", "expected"), [(7, [3, 3, 1]), (6, [3, 3]), (0, [])])
def test_all_frames_go_to_the_detector_in_batches(dense, paths, frames: int, expected: list[int]) -> None:
    first = dense(paths["face"])[0]
    sizes: list[int] = []

    def look(batch):
        sizes.append(len(batch))
        return [first.faces] * len(batch)

    found = list(find_faces(_still(first.frame, frames, 40_000), look, every=1, batch_frames=3))
    assert sizes == expected
    assert len(found) == frames


def test_a_frame_of_the_next_unit_is_looked_at_and_not_given(dense, paths) -> None:
    first = dense(paths["face"])[0]
    frames = _still(first.frame, 6, 40_000)
    frames[-1] = replace(frames[-1], beyond=True)
    calls: list[int] = []

    def look(batch):
        calls.extend(f.index for f in batch)
        return [first.faces] * len(batch)

    found = list(find_faces(frames, look, every=5))
    assert calls == [0, 5]
    assert [one.frame.index for one in found] == [0, 1, 2, 3, 4]
    assert [one.interpolated for one in found] == [False, True, True, True, True]
