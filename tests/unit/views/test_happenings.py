"""Events in pictures: each one that has room is shown, none overlap; and the strongest moments of a track."""

import itertools

import numpy as np

from featray.names import AU_NAMES_20
from featray.tables.layout import open_output
from featray.tables.query import connect
from featray.views.happenings import COLOURS, Event, in_rows, read_video_events, strongest_peaks
from featray.views.selection import Face, SampledFrame, VideoRow
from featray.views.sheet import choose_frames
from featray.views.timeline import HEIGHT, Timeline, timeline_height
from tests.fixtures.handmade import RELEASE, write_output


def event(kind, start, end, peak=0.9, track=0, at=None):
    return Event(track, kind, start, start if at is None else at, end, peak)


def frames(count):
    face = {"track_id": 0, "valence": 0.0, **{name: 0.2 for name in AU_NAMES_20}}
    face |= {f"emotion_{name}": 0.1 for name in ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger")}
    face |= dict.fromkeys(("pose_pitch", "pose_yaw", "pose_roll"), 0.0)
    return [SampledFrame(n, n * 100, "ok", (Face({**face, "AU12": n / count}),)) for n in range(count)]


def test_events_of_a_row_do_not_overlap_and_the_telling_ones_come_first():
    rng = np.random.default_rng(0)
    starts = rng.integers(0, 1000, 60)
    events = [event(rng.choice(["smile", "AU12", "blink"]), int(s), int(s) + 60, float(rng.random())) for s in starts]
    placed = in_rows(events, 3)
    for row in range(3):
        spans = sorted((one.start_us, one.end_us) for number, one in placed if number == row)
        assert all(before[1] < after[0] for before, after in itertools.pairwise(spans))
    kept = [one for _, one in placed]
    assert len({id(one) for one in kept}) == len(kept) < 60
    assert in_rows([event("AU12", 0, 9), event("smile", 0, 9)], 1) == [(0, event("smile", 0, 9))]
    assert len(in_rows(events, 60)) == 60


def test_the_strongest_of_each_kind_and_only_where_it_can_be_shown():
    found = strongest_peaks(
        frames(10),
        [
            event("AU12", 0, 300, 0.7, at=200), event("AU12", 400, 500, 0.9, at=500), event("smile", 0, 300, at=200),
            event("blink", 600, 600), event("nod", 700, 800, track=1), event("AU04", 150, 250, at=150),
        ],
        0,
        2,
    )  # fmt: skip
    assert found == {2: ["smile"], 5: ["AU12"]}, "closed eyes last, others' and frames that were not sampled never"
    assert strongest_peaks(frames(10), [event("AU12", 0, 0)], None, 3) == {}


def test_a_sheet_has_the_peaks_among_its_frames():
    some = frames(20)
    chosen = [frame.frame_index for frame in choose_frames(some, 4, 0, (), [7, 8])]
    assert {7, 8} < set(chosen) and len(chosen) == 4
    assert [frame.frame_index for frame in choose_frames(some, 1, 0, (), [8, 7])] == [7]
    assert len(choose_frames(some, 4, 0)) == 4


def test_a_time_line_shows_events_where_they_are():
    events = [event("smile", 0, 500), event("nod", 800, 900), event("smile", 600, 900, track=1)]
    line = np.asarray(Timeline(frames(10), 0, ("AU12",), (0, 1000), 1036, 1.0, (), events).draw(0))
    assert line.shape[:2] == (timeline_height(events), 1036) and timeline_height([]) == HEIGHT < line.shape[0]
    for kind, first, last in (("smile", 18, 518), ("nod", 818, 918)):
        columns = np.flatnonzero((line[118:165] == COLOURS[kind]).all(axis=2).any(axis=0))
        assert abs(columns.min() - first) <= 2 and abs(columns.max() - last) <= 2, "other tracks' are not shown"


def test_events_are_those_of_the_tables(tmp_path):
    write_output(tmp_path / "out", derived=True)
    connection = connect(open_output(str(tmp_path / "out")))
    video = VideoRow("one", RELEASE, "aaaa000000000000", "u", None, 1, "", 1, 1, True, None)
    (count,) = connection.sql(f"SELECT count(*) FROM events WHERE {video.where}").fetchall()
    assert len(read_video_events(connection, video)) == count[0] > 10
