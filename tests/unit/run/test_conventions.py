"""A run with weights of other signs, and with a column that they do not estimate: from `runs` to the pages."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file

from featray.cli import main
from featray.model import known
from featray.model.conventions import PYFEAT_2_0
from featray.run.job import describe
from featray.tables.layout import open_output
from featray.tables.query import connect
from featray.upkeep.recompute import recompute
from tests.fixtures.fitted import written
from tests.fixtures.published import SPARSE
from tests.fixtures.runs import run_here, small_config

SIGNED = ("pose_pitch", "pose_roll", "pose_yaw", "gaze_yaw", "gaze_pitch")


@pytest.fixture(scope="module")
def weights(atto, tmp_path_factory):
    """Return weights marked as trained, in a file that matches no published one."""
    return written(load_file(atto.path), atto, tmp_path_factory.mktemp("weights") / "other.safetensors")


def config(weights, inputs, out, **model):
    model = {"checkpoint": str(weights.path), "engine": "torch", **model}
    return small_config([inputs / "anna.mp4"], out, "", decode=SPARSE, model=model)


@pytest.fixture(scope="module")
def as_v25(weights, inputs, tmp_path_factory):
    """Return an output of two releases: the first run does not know the file, the second knows it as v2.5 by sha256."""
    out = tmp_path_factory.mktemp("signs") / "out"
    first = run_here(config(weights, inputs, out)).job
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(known, "KNOWN_CHECKPOINTS", (replace(known.V25, sha256=weights.sha256),))
        second = run_here(config(weights, inputs, out)).job
    return out, first, second


def rows(out, release):
    found = connect(open_output(str(out)), release).sql("SELECT * FROM faces ORDER BY frame_index, face_index")
    return found.to_arrow_table()


def test_signs_make_another_release_and_turn_their_columns_alone(as_v25):
    out, first, second = as_v25
    assert first.release != second.release
    before, after = rows(out, first.release), rows(out, second.release)
    assert before.num_rows == after.num_rows > 5
    for name in before.column_names:
        if name not in ("release", "run_id"):
            one, other = before[name].to_pylist(), after[name].to_pylist()
            turned = name in ("pose_pitch", "gaze_pitch")
            assert other == ([-value for value in one] if turned else one), name


def test_runs_and_footers_say_which_and_what_is_not_estimated(as_v25):
    out, first, second = as_v25
    for job, conventions, unusable in ((first, "py-feat-2.1.2", ""), (second, "py-feat-2.0", "pose_pitch")):
        (row,) = connect(open_output(str(out)), job.release).sql("SELECT conventions, unusable FROM runs").fetchall()
        assert row == (job.conventions.text, unusable)
        assert row[0].startswith(f"{conventions}: pose_pitch=")
        for path in out.glob(f"faces/**/release={job.release}/*.parquet"):
            metadata = pq.read_metadata(path).metadata
            assert metadata[b"featray.conventions"].decode() == row[0]
            assert metadata[b"featray.unusable"].decode() == unusable
    assert second.conventions == PYFEAT_2_0


def test_rows_are_computed_again_with_the_signs_that_they_had(as_v25):
    """The file is unknown again by then."""
    out, _, second = as_v25
    again = recompute(open_output(str(out)), 4, seed=1, release=second.release)
    assert (again.checked, again.differing, again.unverifiable) == (4, [], [])


def test_signs_that_are_set_make_the_release_of_those_signs(as_v25, weights, inputs, tmp_path):
    _, first, second = as_v25
    releases = [
        describe(config(weights, inputs, tmp_path / "out", conventions=conventions), gpus=0).release
        for conventions in ("auto", "py-feat-2.1.2", "py-feat-2.0", {"of": "py-feat-2.0", "negate": ["gaze_yaw"]})
    ]
    assert releases[:3] == [first.release, first.release, second.release]
    assert releases[3] not in releases[:3]


def test_an_unknown_file_is_said(weights, inputs, tmp_path, caplog):
    describe(config(weights, inputs, tmp_path / "out"), gpus=0)
    (record,) = [record for record in caplog.records if "not a known checkpoint" in record.message]
    assert "py-feat-2.1.2" in record.message and "featray models check" in record.message


def test_pages_and_pictures_say_what_is_not_estimated(as_v25, tmp_path):
    out, first, second = as_v25
    page = tmp_path / "page.html"
    report = CliRunner().invoke(
        main, ["report", str(out), "--out", str(page), "--no-thumbnails", "--release", second.release]
    )
    assert report.exit_code == 0 and "do not estimate pose_pitch" in report.output
    text = page.read_text("utf-8")
    assert text.count("known not to estimate pose_pitch") == 1
    assert text.count("<strong>not estimated:</strong>") == 1
    for job, said in ((first, False), (second, True)):
        picture = ("--out", str(tmp_path / "a.png"), "--frames", "2", "--release", job.release)
        preview = CliRunner().invoke(main, ["preview", str(out), "--video", "anna.mp4", *picture])
        assert preview.exit_code == 0 and ("do not estimate pose_pitch" in preview.output) == said


def test_the_panel_and_the_axes_leave_it_out(as_v25):
    from PIL import ImageChops

    from featray.views.panel import Panel
    from featray.views.preview import meaningful_layers
    from featray.views.selection import find_video, read_frames

    out, first, second = as_v25
    connections = [connect(open_output(str(out)), job.release) for job in (first, second)]
    before, after = (find_video(connection, "anna.mp4") for connection in connections)
    assert (before.unusable, after.unusable) == ((), ("pose_pitch",))
    assert set(meaningful_layers(before)) - set(meaningful_layers(after)) == {"pose"}
    frame = next(f for f in read_frames(connections[1], after, None, None, mesh=False) if f.faces)
    shown, left_out = (Panel(1.0, unusable).draw(frame, 0) for unusable in ((), ("pose_pitch",)))
    box = ImageChops.difference(shown, left_out).getbbox()
    assert box is not None and box[3] - box[1] < 20, "one number, and nothing else"
    assert np.asarray(left_out).any()
