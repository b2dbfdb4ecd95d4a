"""The summary of a run and a plan names what was left out: other files, and other streams of a file."""

import contextlib
import io
import json
import shutil
import subprocess
from dataclasses import replace

import imageio_ffmpeg
from click.testing import CliRunner
from rich.console import Console

from featray.cli import main
from featray.cli.plan import as_lines
from featray.cli.summary import LOG_LINE, as_log_line, print_landed, print_summary
from featray.identity import video_id
from featray.run.forecast import forecast
from featray.run.part import Landed, Part
from featray.tables.layout import open_output
from featray.tables.query import connect, run_sql
from featray.upkeep.erase import erase
from tests.fixtures.runs import make_config, run_here, small_config
from tests.fixtures.runs import small_network as small_network

PLAIN_ONLY = {"status", "deleted", "dropped", "renewed", "derived_again", "passed_over", "several_streams"}
"""Fields that a part does not have."""


def test_what_is_passed_over_is_counted(tmp_path, clips):
    two = ["-i", str(clips / "no_face.mp4"), "-map", "0:v", "-map", "0:v", "-c", "copy", str(tmp_path / "a.MP4")]
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *two], check=True)
    for name in ("._a.MP4", "a.[b]SRT", "b.srt", "c.srt"):
        (tmp_path / name).write_bytes(b"x")
    config = make_config([f"{tmp_path}/"], tmp_path.parent / "out-passed")
    said = "4 other files passed over: .srt 2, .[b]SRT 1, ._* 1"
    planned = forecast(config, sample=1)
    assert planned["passed_over"] == {".srt": 2, "._*": 1, ".[b]SRT": 1}
    assert any(said in line for line in as_lines(planned, config))
    assert planned["several_streams"] == 1
    assert any("about 1 of them have several video streams" in line for line in as_lines(planned, config))
    summary = run_here(config)
    screen = Console(file=io.StringIO(), width=200)
    print_summary(summary, screen)
    assert said in screen.file.getvalue()
    assert json.loads(as_log_line(summary))["passed_over"] == planned["passed_over"]
    assert json.loads(as_log_line(summary))["several_streams"] == 1
    assert json.loads(as_log_line(summary)).keys() == LOG_LINE.keys() - {"part", "failed", "missing"}
    landed = io.StringIO()
    with contextlib.redirect_stdout(landed):
        print_landed(Landed(summary.job, Part(1, 2), 1, 0, 0, 0, 1, 1, 0.5), screen, log_line=True)
    assert json.loads(landed.getvalue()).keys() == LOG_LINE.keys() - PLAIN_ONLY
    assert "streams  1 video with several video streams, of which one was processed" in screen.file.getvalue()
    sql = "SELECT other_streams FROM videos"
    (row,) = run_sql(connect(open_output(config.output.uri)), sql).read_all().to_pylist()
    assert row["other_streams"] == "stream 1: h264 640x360, 95 frames"


def test_a_forecast_says_why_videos_cannot_be_read(tmp_path, clips):
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(b"nothing that is a video")
    (tmp_path / "people.csv").write_text("uri,participant\ngone.mp4,p1\n")
    config = make_config([f"{tmp_path}/*.mp4", f"{tmp_path}/people.csv"], tmp_path.parent / "out-unreadable")
    planned = forecast(config)
    assert planned["unreadable_videos"] == 3
    damaged, missing = sorted(planned["unreadable_examples"], key=lambda line: "gone.mp4" in line)
    assert ".mp4: not_a_video: the bytes are not a video" in damaged
    assert "gone.mp4: fetch_failed: does not exist" in missing
    lines = list(as_lines(planned, config))
    at = lines.index("         about 3 of them cannot be read, for example:")
    assert sorted(lines[at + 1 : at + 3]) == sorted(f"         {line}" for line in (damaged, missing))


def test_a_run_says_that_it_derived_rows_again(tmp_path, short_clip, small_network):
    """An erasure deletes what a shard records about its neutral videos."""
    for name in ("baseline", "stress"):
        shutil.copy(short_clip, tmp_path / f"{name}.mp4")
    (tmp_path / "people.csv").write_text("uri,who,task\nbaseline.mp4,p1,baseline\nstress.mp4,p1,stress\n")
    derive = {"baseline": "neutral", "neutral": {"marked_by": "task", "value": "baseline", "key": "who"}}
    config = small_config([tmp_path / "people.csv"], tmp_path / "out", small_network, derive=derive)
    assert run_here(config).derived_again == 0
    erase(open_output(config.output.uri), video_id(f"file://{tmp_path}/stress.mp4"))
    summary = run_here(config)
    screen = Console(file=io.StringIO(), width=200)
    print_summary(summary, screen)
    told = "derived  1 shard again: neutral videos or persons have changed, or rows were erased\n"
    assert told in screen.file.getvalue() and json.loads(as_log_line(summary))["derived_again"] == 1
    assert run_here(config).derived_again == 0


def test_a_run_with_nothing_to_do_names_the_release_that_views_show(tmp_path, clips, small_network):
    def end_of_run(**sections):
        screen = Console(file=io.StringIO(), width=200)
        summary = run_here(small_config([f"{clips}/no_face.mp4"], tmp_path / "out", small_network, **sections))
        print_summary(summary, screen)
        return summary.job.release, screen.file.getvalue()

    first, _ = end_of_run()
    assert "Nothing to do" in (text := end_of_run()[1]) and "Views show" not in text
    second, text = end_of_run(decode={"sample": {"every": 48}})
    assert "Views show" not in text
    assert f"Views show release {second}; use --release {first} for this one.\n" in end_of_run()[1]
    told = CliRunner().invoke(main, ["status", str(tmp_path / "out"), "--release", "all"]).stdout
    lines = {release: f"videos  test/{release}  1 ok, 0 partial, 0 failed" for release in (first, second)}
    assert f"{lines[first]}  4 frames  0 faces\n" in told and f"{lines[second]}  2 frames  0 faces\n" in told


def test_commands_of_the_summary_reach_an_output_that_needs_storage_options(tmp_path, small_network):
    (tmp_path / "bad.mp4").write_bytes(b"nothing that is a video")
    summary = run_here(small_config([f"{tmp_path}/bad.mp4"], tmp_path / "out", small_network))
    summary = replace(summary, erased=("0" * 16, "file:///clips/anna.mp4"))
    summary.already_published["erased"] = 1
    query = 'out "SELECT uri, error_code, message FROM errors"'
    for options, added in (({}, ""), ({"endpoint_url": "http://127.0.0.1:9"}, " --config CONFIG")):
        summary.job.config.output.storage_options.update(options)
        screen = Console(file=io.StringIO(), width=400)
        print_summary(summary, screen)
        assert f"{query}{added}\n" in screen.file.getvalue()
        assert f"--video {'0' * 16} --allow-again{added}`" in screen.file.getvalue()
