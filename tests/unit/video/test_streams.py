"""Files with several video streams: the stream that a player would show is used."""

import subprocess

import imageio_ffmpeg
import pytest

from featray.video.container import open_video, read_header

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
X264 = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"]


def pattern(seconds, size, rate=25):
    return ["-f", "lavfi", "-i", f"testsrc2=size={size}:rate={rate}:duration={seconds}"]


def made(place, inputs, *settings):
    maps = [word for i in range(len(inputs)) for word in ("-map", str(i))]
    command = [
        FFMPEG,
        "-v",
        "error",
        "-y",
        *(word for one in inputs for word in one),
        *maps,
        *X264,
        *settings,
        str(place),
    ]
    subprocess.run(command, check=True)
    return place


def shown(place):
    with place.open("rb") as file, open_video(file) as (container, stream):
        size = f"{stream.codec_context.width}x{stream.codec_context.height}"
        return size, sum(1 for _ in container.decode(stream))


POSTER, VIDEO, LARGE = pattern(0.04, "640x480"), pattern(2, "160x120"), pattern(2, "320x240")
SECOND_IS_DEFAULT = ("-disposition:v:0", "0", "-disposition:v:1", "default")
NONE_IS_DEFAULT = ("-disposition:v:0", "0", "-disposition:v:1", "0")
BOTH_ARE_DEFAULT = ("-disposition:v:0", "default", "-disposition:v:1", "default")


@pytest.mark.parametrize(
    ("name", "inputs", "settings", "expected"),
    [
        ("poster.mp4", [POSTER, VIDEO], SECOND_IS_DEFAULT, ("160x120", 50)),
        ("poster.mkv", [POSTER, VIDEO], SECOND_IS_DEFAULT, ("160x120", 50)),
        ("unmarked.mp4", [POSTER, VIDEO], NONE_IS_DEFAULT, ("160x120", 50)),
        ("largest.mkv", [VIDEO, LARGE], NONE_IS_DEFAULT, ("320x240", 50)),
        ("marked.mkv", [LARGE, VIDEO], SECOND_IS_DEFAULT, ("160x120", 50)),
        ("longest.mp4", [pattern(0.2, "640x480"), VIDEO], BOTH_ARE_DEFAULT, ("160x120", 50)),
        ("first.mkv", [VIDEO, pattern(2, "160x120", 10)], NONE_IS_DEFAULT, ("160x120", 50)),
        ("only.mp4", [POSTER], (), ("640x480", 1)),
    ],
)
def test_the_stream_that_a_player_would_show(tmp_path, name, inputs, settings, expected):
    assert shown(made(tmp_path / name, inputs, *settings)) == expected


def test_the_others_are_said(tmp_path):
    for name, inputs, settings, others in (
        ("poster.mkv", [POSTER, VIDEO], SECOND_IS_DEFAULT, "stream 0: h264 640x480"),
        (
            "dashcam.mp4",
            [LARGE, VIDEO, VIDEO],
            (),
            "stream 1: h264 160x120, 50 frames; stream 2: h264 160x120, 50 frames",
        ),
        ("only.mp4", [VIDEO], (), None),
    ):
        with made(tmp_path / name, inputs, *settings).open("rb") as file, open_video(file) as (container, stream):
            assert read_header(container, stream).other_streams == others
