"""Conditions under which a run gives up."""

import shutil

import pytest

from featray.errors import RunError
from featray.tables.layout import open_output
from featray.tables.query import connect, run_sql
from featray.upkeep.verify import verify
from tests.fixtures.runs import make_config, run_here


def test_a_run_in_which_all_fails_says_with_what_and_publishes_its_errors(tmp_path, clips):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(24):
        (folder / f"{number:03d}.mp4").write_bytes(b"no video")
    config = make_config([f"{folder}/*.mp4"], tmp_path / "out")
    words = (
        r"(\d+) of \1 videos failed, more than .* \(0\.05\), most often with not_a_video \(.*\), "
        rf"such as file://{folder}/\d+.mp4, file://{folder}/\d+.mp4, file://{folder}/\d+.mp4; "
    )
    with pytest.raises(RunError, match=words):
        run_here(config)
    output = open_output(str(tmp_path / "out"))
    rows = run_sql(connect(output), "SELECT uri, error_code FROM errors").read_all().to_pylist()
    assert len(rows) >= 20 and {row["error_code"] for row in rows} == {"not_a_video"}
    assert verify(output).problems == []

    for place in folder.iterdir():
        shutil.copyfile(clips / "no_face.mp4", place)
    again = run_here(config.model_copy(update={"run": config.run.model_copy(update={"retry_failed": True})}))
    assert again.videos == {"ok": 24, "partial": 0, "failed": 0}
    assert verify(output).problems == []


def test_damaged_videos_and_bad_rows_end_no_run_that_works_on_others(tmp_path, clips):
    lines = [str(clips / "no_face.mp4"), "zip://x::y", "https://example.org/a.mp4", "https://example.org/b.mp4"]
    for number in range(20):
        (tmp_path / f"{number:03d}.mp4").write_bytes(b"no video")
        lines.append(f"{number:03d}.mp4")
    (tmp_path / "list.csv").write_text("\n".join(["path", *lines]))
    summary = run_here(make_config([tmp_path / "list.csv"], tmp_path / "out"))
    assert summary.videos == {"ok": 1, "partial": 0, "failed": 23} and summary.status == "done_with_failures"
