"""A long video gives the same tables whole or in units, and needs no more memory than a short one."""

import subprocess
from pathlib import Path

import imageio_ffmpeg
import pytest

from featray.config import DecodeConfig, DetectConfig, EveryNth
from featray.extract.child import ChildSettings
from featray.extract.isolation import IsolatedDecoder
from featray.extract.plan import VideoTask
from featray.sources.listing import list_videos
from featray.tables.layout import open_output
from featray.tables.query import connect, run_sql
from tests.fixtures.runs import make_config, run_here

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
FRAMES_A_LOOP = 118  # 19.7 s at 6 frames a second


@pytest.fixture(scope="module")
def loop(face_clip, tmp_path_factory) -> Path:
    """Return the face clip, small and slow, so that half an hour of it decodes in seconds."""
    place = tmp_path_factory.mktemp("loop") / "loop.mp4"
    filters = ["-vf", "scale=192:108,fps=6", "-g", "30", "-pix_fmt", "yuv420p"]
    subprocess.run([FFMPEG, "-v", "error", "-i", str(face_clip), *filters, str(place)], check=True)
    return place


def minutes(loop: Path, count: float, place: Path) -> Path:
    """Write a video that repeats the loop for `count` minutes."""
    times = round(count * 60 / (FRAMES_A_LOOP / 6))
    listing = place.with_suffix(".txt")
    listing.write_text(f"file '{loop}'\n" * times)
    command = [FFMPEG, "-v", "error", "-f", "concat", "-safe", "0", "-i", str(listing), "-c", "copy", str(place)]
    subprocess.run(command, check=True)
    return place


def rows(out, table):
    sql = f"SELECT * EXCLUDE (run_id, release) FROM {table} ORDER BY pts_us"
    return run_sql(connect(open_output(str(out))), sql).read_all()


def test_units_give_the_table_of_the_whole(loop, tmp_path):
    """On the local executor; test_main_job.py compares units on Ray with the whole."""
    clip = minutes(loop, 6, tmp_path / "six.mp4")
    for name, unit_frames in (("whole", 100_000), ("units", 16)):
        settings = {"sample": {"every": 31}, "unit_frames": unit_frames}
        assert run_here(make_config([clip], tmp_path / name, decode=settings)).videos["ok"] == 1
    assert rows(tmp_path / "whole", "frames").num_rows > 60
    for table in ("frames", "faces", "blendshapes", "mesh"):
        assert rows(tmp_path / "units", table) == rows(tmp_path / "whole", table)


def peak_memory_mb(clip: Path) -> float:
    """Return the peak memory of a process that plans a video and decodes all its units."""
    settings = ChildSettings(DecodeConfig(sample=EveryNth(every=24), unit_frames=16), DetectConfig(), {})
    decoder = IsolatedDecoder(settings)
    try:
        (video,) = list_videos(make_config([clip], "unused").input)
        plan = decoder.plan(video)
        assert len(plan.units) >= 3
        for task in VideoTask(video, "key", "shard").units(plan, {}):
            for chunk in decoder.chunks(task):
                assert chunk.frames.num_rows and not chunk.outcome.failures
        status = Path(f"/proc/{decoder.process_id}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024
    finally:
        decoder.close()


def test_memory_does_not_grow_with_the_length_of_the_video(loop, tmp_path, report):
    short, long = (peak_memory_mb(minutes(loop, count, tmp_path / f"{count}.mp4")) for count in (3, 30))
    report(f"peak memory of the decoding process: {short:.0f} MB for 3 minutes, {long:.0f} MB for 30")
    assert long < 1.2 * short
