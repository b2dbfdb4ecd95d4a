"""Videos that change, and videos that are tried again: old rows go, new ones come, nothing is there twice."""

import shutil

import duckdb
import pytest

from featray.runner import run
from featray.tables import publish
from featray.tables.layout import Partition, open_output
from featray.tables.recover import recover
from tests.integration.conftest import make_config, silent

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


def test_a_changed_video_replaces_its_rows(cluster, inputs, clips, tmp_path):
    out = tmp_path / "out"
    config = make_config([f"{inputs}/*.mp4"], out, decode=SPARSE)
    run(config, silent())
    assert counts(out) == ([("a.mp4", "ok", 4), ("b.mp4", "failed", 0)], (4, 4))
    shutil.copy(clips / "face.mp4", inputs / "b.mp4")
    again = run(config, silent())
    assert (again.videos["ok"], again.already_published) == (1, {"ok": 1})
    assert counts(out) == ([("a.mp4", "ok", 4), ("b.mp4", "ok", 4)], (8, 8))
    errors = list((out / "errors").rglob("*.parquet"))
    assert errors == [], "the error of the bytes that were replaced is gone with them"
    assert run(config, silent()).status == "nothing_to_do"


def test_retry_failed_takes_up_failed_videos_only(cluster, inputs, tmp_path):
    out = tmp_path / "out"
    run(make_config([f"{inputs}/*.mp4"], out, decode=SPARSE), silent())
    retry = make_config([f"{inputs}/*.mp4"], out, decode=SPARSE, run={"retry_failed": True})
    again = run(retry, silent())
    assert (again.videos, again.already_published) == ({"ok": 0, "partial": 0, "failed": 1}, {"ok": 1})
    assert counts(out) == ([("a.mp4", "ok", 4), ("b.mp4", "failed", 0)], (4, 4))
    third = run(retry, silent())
    assert third.videos["failed"] == 1
    assert counts(out)[0] == [("a.mp4", "ok", 4), ("b.mp4", "failed", 0)]


@pytest.mark.parametrize("killed_in", ["create_commit", "carry_out", "clean_up_shard"])
def test_a_replacement_that_is_cut_off_is_finished(cluster, inputs, clips, tmp_path, monkeypatch, killed_in):
    """Publishing stops dead at a step; what readers of commits see is the old or the new, never both."""
    out = tmp_path / "out"
    config = make_config([f"{inputs}/*.mp4"], out, decode=SPARSE)
    release = run(config, silent()).job.release
    shutil.copy(clips / "face.mp4", inputs / "b.mp4")
    partition = Partition(open_output(str(out)), "test", release)
    with pytest.raises(KilledError):
        publish_in_this_process(config, partition, monkeypatch, killed_in)
    recover(partition, "a-run")
    expected = "failed" if killed_in == "create_commit" else "ok"
    assert counts(out)[0] == [("a.mp4", "ok", 4), ("b.mp4", expected, 4 if expected == "ok" else 0)]
    run(config, silent())
    assert counts(out) == ([("a.mp4", "ok", 4), ("b.mp4", "ok", 4)], (8, 8))


class KilledError(BaseException):
    """Stands for SIGKILL: nothing after it runs, and nothing catches it."""


def publish_in_this_process(config, partition, monkeypatch, step):
    from featray import ray_session

    def stop(*_, **__):
        raise KilledError(step)

    def publish_here(self, partition, manifest, settings):
        monkeypatch.setattr(publish, step, stop)
        publish.publish_shard(partition, manifest, settings)

    monkeypatch.setattr(ray_session.Session, "publish", publish_here)
    try:
        run(config, silent())
    finally:
        monkeypatch.undo()
