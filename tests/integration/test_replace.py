"""Videos that change, and videos that are retried: old rows are replaced by new ones, and no row appears twice.

Interrupted replacements are tested in tests/faults/test_kill_points.py.
"""

import shutil

import duckdb
import pytest

from tests.fixtures.runs import make_config, run_here

SPARSE = {"sample": {"every": 118}}


@pytest.fixture
def inputs(clips, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(clips / "face.mp4", folder / "a.mp4")
    (folder / "b.mp4").write_bytes(b"not yet uploaded")
    return folder


def counts(out):
    sql = f"SELECT uri[-5:], status, faces FROM '{out}/videos/**/*.parquet' ORDER BY uri"
    faces = f"SELECT count(*), count(DISTINCT (video_id, frame_index, face_index)) FROM '{out}/faces/**/*.parquet'"
    return duckdb.connect().sql(sql).fetchall(), *duckdb.connect().sql(faces).fetchall()


def test_failed_videos_are_tried_again_and_changed_ones_replaced(inputs, clips, tmp_path):
    out = tmp_path / "out"
    config = make_config([f"{inputs}/*.mp4"], out, decode=SPARSE)
    run_here(config)
    assert counts(out) == ([("a.mp4", "ok", 4), ("b.mp4", "failed", 0)], (4, 4))

    retry = make_config([f"{inputs}/*.mp4"], out, decode=SPARSE, run={"retry_failed": True})
    again = run_here(retry)
    assert (again.videos, again.already_published) == ({"ok": 0, "partial": 0, "failed": 1}, {"ok": 1})
    assert counts(out) == ([("a.mp4", "ok", 4), ("b.mp4", "failed", 0)], (4, 4))

    shutil.copy(clips / "face.mp4", inputs / "b.mp4")
    changed = run_here(config)
    assert (changed.videos["ok"], changed.already_published) == (1, {"ok": 1})
    assert counts(out) == ([("a.mp4", "ok", 4), ("b.mp4", "ok", 4)], (8, 8))
    errors = list((out / "errors").rglob("*.parquet"))
    assert errors == [], "the error of the bytes that were replaced is gone with them"
    assert run_here(config).status == "nothing_to_do"
