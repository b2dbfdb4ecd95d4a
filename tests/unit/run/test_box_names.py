"""Boxes of a study with a folder per participant, in which clips are named alike."""

from __future__ import annotations

import csv
import shutil

import pytest
from click.testing import CliRunner

from featray.cli import main


@pytest.fixture
def study(tmp_path, clips):
    for person in ("P01", "P02"):
        (tmp_path / "in" / person).mkdir(parents=True)
        shutil.copy(clips / "no_face.mp4", tmp_path / "in" / person / "stress.mp4")

    def run(*names):
        with (tmp_path / "boxes.csv").open("w") as file:
            rows = csv.writer(file)
            rows.writerow(["video", "frame_index", "x1", "y1", "x2", "y2"])
            rows.writerows([name, 0, 10, 10, 60 + 20 * number, 90] for number, name in enumerate(names))
        settings = ["detect.detector=boxes", f"detect.boxes={tmp_path}/boxes.csv", "model.checkpoint=synthetic:atto"]
        words = [word for setting in settings for word in ("--set", setting)]
        out = str(tmp_path / "out")
        done = CliRunner().invoke(main, ["run", str(tmp_path / "in"), "--out", out, "--executor", "local", *words])
        return done, out

    return run


def test_a_name_of_two_videos_is_refused_before_anything_is_written(study, tmp_path):
    done, _ = study("stress.mp4")
    assert done.exit_code == 2 and not (tmp_path / "out").exists()
    told = f"{tmp_path}/boxes.csv: stress.mp4 is the name of file://{tmp_path}/in/P01/stress.mp4 and of file://"
    assert told in done.stderr and done.stderr.count("\n") == 1
    assert done.stderr.endswith("/in/P02/stress.mp4; give more of their paths, or their ids\n")


def test_the_ends_of_their_paths_tell_them_apart_and_a_name_of_none_is_told(study, tmp_path, caplog):
    done, out = study("P01/stress.mp4", "P02/stress.mp4", "P02/strss.mp4")
    assert done.exit_code == 0, done.output
    assert (
        f"file://{tmp_path}/boxes.csv: 1 of 3 names belong to no video of the input, such as P02/strss.mp4"
        in caplog.text
    )
    sql = "SELECT v.uri[-14:] AS clip, box_x2 FROM faces JOIN videos v USING (video_id) ORDER BY 1"
    rows = CliRunner().invoke(main, ["query", out, sql, "--format", "csv"]).stdout.splitlines()[1:]
    assert rows == ["P01/stress.mp4,60.0", "P02/stress.mp4,80.0"]
