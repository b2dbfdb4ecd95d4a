"""The choice of faces to embed does not depend on how a video is cut; faces of poor quality get no embedding."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from featray.config_identify import IdentifyConfig
from featray.faces.cadence import Cadence, qualities, taken_frames, turns
from featray.schema import DETECTED_SCHEMA

FRONTAL = [40, 40, 80, 40, 60, 60, 45, 85, 75, 85]


def frames(rng, count):
    times = np.cumsum(rng.integers(1, 400_000, count)).tolist()
    return pa.table(
        {
            "frame_index": pa.array(np.arange(count) * 3, pa.int32()),
            "pts_us": pa.array(times, pa.int64()),
            "faces": pa.array(rng.integers(0, 3, count), pa.int32()),
            "shot_cut": pa.array(rng.random(count) < 0.1),
        }
    )


@pytest.mark.parametrize("seed", range(20))
def test_parts_of_a_video_take_all_that_the_whole_takes(seed):
    rng = np.random.default_rng(seed)
    whole = frames(rng, 120)
    cuts = [0, *sorted(rng.choice(np.arange(1, 120), 7, replace=False).tolist()), 120]
    taken = taken_frames(whole, Cadence(1_000_000))
    parts = [taken_frames(whole.slice(a, b - a), Cadence(1_000_000)) for a, b in pairwise(cuts)]
    assert set(taken) <= set(np.concatenate(parts))
    assert len(np.concatenate(parts)) - len(taken) <= len(parts)


def test_the_state_goes_on_from_part_to_part():
    whole, cadence = frames(np.random.default_rng(1), 50), Cadence(1_000_000)
    parts = [taken_frames(whole.slice(a, 10), cadence) for a in range(0, 50, 10)]
    assert np.concatenate(parts).tolist() == taken_frames(whole, Cadence(1_000_000)).tolist()


def test_a_frame_is_taken_for_its_time_its_cut_or_its_faces():
    cadence = Cadence(1_000_000)
    seen = [(0, 1, False), (40, 1, False), (80, 1, True), (120, 2, None), (160, 1, False), (1000, 1, False)]
    assert [cadence.take(ms * 1000, faces, cut) for ms, faces, cut in seen] == [True, False, True, True, False, True]
    assert [cadence.take(None, 1, True) for _ in range(3)] == [True] * 3


def face(**other):
    plain = {"face_px": 120.0, "sharpness": 100.0, "in_frame": 1.0, "landmarks5": FRONTAL}
    row = {field.name: 0 for field in DETECTED_SCHEMA} | {"interpolated": False} | plain | other
    return pa.Table.from_pylist([row], schema=DETECTED_SCHEMA)


def quality(**other):
    return qualities(face(**other), IdentifyConfig())[0]


def test_a_face_that_is_seen_badly_gets_none():
    assert quality() == pytest.approx(100 / 120)
    profile = [40, 40, 80, 40, 80, 60, 45, 85, 75, 85]
    for bad in ({"face_px": 39.0}, {"in_frame": 0.6}, {"landmarks5": profile}, {"landmarks5": None}):
        assert quality(**bad) == 0
    worse = (
        {"face_px": 60.0},
        {"sharpness": 10.0},
        {"in_frame": 0.8},
        {"landmarks5": [*FRONTAL[:4], 66, *FRONTAL[5:]]},
    )
    assert all(0 < quality(**one) < quality() for one in worse)


def test_a_roll_is_no_turn():
    marks = np.array(FRONTAL, float).reshape(1, 5, 2)
    angle = np.deg2rad(60)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    assert turns(marks)[0] == pytest.approx(0) and turns(marks @ turn.T)[0] == pytest.approx(0, abs=1e-9)
    assert np.isinf(turns(np.ones((1, 5, 2)))[0])
