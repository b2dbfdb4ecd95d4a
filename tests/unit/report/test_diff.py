"""Two releases compared face by face: the faces that are matched, and shifts computed from the matched rows only."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from featray.cli import main
from featray.errors import UsageError
from featray.report.diff import diff_releases
from featray.report.distributions import FEATURES
from featray.tables.commits import read_commits
from featray.tables.layout import list_partitions, open_output
from tests.fixtures.tampering import path_of, sign

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(two):
    return diff_releases(two.output, two.before, two.after)


def _both(two, columns: str):
    """Return the rows of the frames that both releases sampled, one face each, in order."""
    sql = "SELECT video_id, frame_index, pts_us, {} FROM faces WHERE face_index = 0 ORDER BY video_id, frame_index"
    sides = [
        {(r["video_id"], r["frame_index"]): r for r in two.rows(sql.format(columns), release)}
        for release in (two.before, two.after)
    ]
    keys = sorted(sides[0].keys() & sides[1].keys())
    return [(sides[0][key], sides[1][key]) for key in keys]


def test_only_frames_that_both_sampled_are_matched(two, found):
    pairs = _both(two, "AU12")
    assert len(pairs) == 4  # every fourth and every third of 48 frames: those divisible by twelve
    assert (found.matched, found.faces_a, found.faces_b) == (4, 4, 4)
    assert {a["frame_index"] % 12 for a, _ in pairs} == {0}
    assert (found.videos_a, found.videos_b, found.videos_changed) == (3, 3, 0)
    assert found.frames_both == 4 + 2  # the clip without a face has 24 frames
    # The detector is the same, and so are its boxes.
    assert found.mean_iou == pytest.approx(1.0)


def test_shifts_are_those_of_the_matched_rows(two, found):
    pairs = _both(two, ", ".join(f"{shift.column}::DOUBLE AS {shift.column}" for shift in found.features))
    for shift in found.features:
        a, b = (np.asarray([side[i][shift.column] for side in pairs]) for i in (0, 1))
        assert shift.shift == pytest.approx((b - a).mean(), abs=1e-9)
        assert shift.mean_abs == pytest.approx(np.abs(b - a).mean(), abs=1e-9)
        where = int(np.argmax(np.abs(b - a)))
        assert abs(shift.worst.b - shift.worst.a) == pytest.approx(abs(b - a)[where])
        if a.std() > 1e-6 and b.std() > 1e-6:
            assert shift.correlation == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-6)
    assert [shift.column for shift in found.features] == [feature.column for feature in FEATURES]
    # Other weights change the network's numbers, but not the detector's.
    by_name = {shift.column: shift for shift in found.features}
    assert by_name["AU12"].mean_abs > 0.001 and by_name["score"].mean_abs == 0


def test_events_are_counted_and_met_as_loops_do(two, found):
    sides = [two.rows("SELECT * FROM events", release) for release in (two.before, two.after)]
    tracks = [two.rows("SELECT * FROM tracks", release) for release in (two.before, two.after)]
    derived = found.derived
    assert derived.a == derived.b == tracks[0][0]["derivation"]
    assert (derived.tracks_a, derived.tracks_b) == (len(tracks[0]), len(tracks[1]))
    assert derived.seen_s_b == pytest.approx(sum(row["seen_s"] for row in tracks[1]))

    def met(one, others):
        return any(
            (one["video_id"], one["kind"]) == (other["video_id"], other["kind"])
            and one["start_us"] <= other["end_us"]
            and other["start_us"] <= one["end_us"]
            for other in others
        )

    expected = {}
    for kind in {row["kind"] for side in sides for row in side}:
        a, b = ([row for row in side if row["kind"] == kind] for side in sides)
        expected[kind] = (len(a), len(b), sum(met(row, b) for row in a), sum(met(row, a) for row in b))
    assert {k.kind: (k.a, k.b, k.a_met, k.b_met) for k in derived.kinds} == expected
    assert expected and derived.kinds[0].a + derived.kinds[0].b == max(a + b for a, b, *_ in expected.values())


def test_a_release_against_itself_does_not_move(two):
    same = diff_releases(two.output, two.after, two.after)
    assert same.matched == same.faces_a == same.faces_b > 10
    assert all((shift.mean_abs, shift.q50_abs, shift.q95_abs) == (0, 0, 0) for shift in same.features)
    table = CliRunner().invoke(main, ["diff", two.output.root.path, two.after, two.after]).output
    assert "largest changes" not in table and "e-308" not in table


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_a_column_without_a_number_is_left_out(two, tmp_path, value):
    shutil.copytree(two.output.root.path, tmp_path / "out")
    output = open_output(str(tmp_path / "out"))
    for partition in list_partitions(output):
        for file in [f for commit in read_commits(partition) for f in commit.files if f.table == "faces"]:
            path = path_of(partition, file)
            rows = pq.read_table(path, partitioning=None)
            at, field = rows.column_names.index("valence"), rows.schema.field("valence")
            pq.write_table(rows.set_column(at, field, pa.array([value] * len(rows), field.type)), path)
            sign(partition, file)
    told = diff_releases(output, two.before, two.after)
    assert told.features and "valence" not in {shift.column for shift in told.features}


def test_whole_videos_are_drawn_when_there_are_too_many_faces(two):
    in_order = two.rows("SELECT faces FROM videos ORDER BY hash(video_id), video_id", two.before)
    first_with_faces = next(i for i, row in enumerate(in_order) if row["faces"])
    few = diff_releases(two.output, two.before, two.after, most_faces=1)
    assert few.videos_compared == first_with_faces + 1
    none = diff_releases(two.output, two.before, two.after, most_faces=0)
    assert (none.videos_both, none.videos_compared, none.matched, none.features) == (3, 0, 0, [])


def test_the_command_says_the_same_as_json_and_as_a_table(two, found):
    out = two.output.root.path
    printed = CliRunner().invoke(main, ["diff", out, two.before, two.after, "--json"])
    assert printed.exit_code == 0
    assert json.loads(printed.output)["features"][0]["column"] == "AU01"
    table = CliRunner().invoke(main, ["diff", out, two.before, two.after]).output
    assert "4 matched: 100.0 % and 100.0 %" in table and "emotion_happy" in table


def test_a_release_that_is_not_there_is_named(two):
    with pytest.raises(UsageError, match=two.after):
        diff_releases(two.output, two.before, "nope")
    with pytest.raises(UsageError, match="smiles"):
        diff_releases(two.output, two.before, two.after, dataset="other")
