"""Every good variant gives the same number of frames, times and pixels as ffmpeg, and is not reported as damaged."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from featray.config import DecodeConfig
from featray.video.container import open_video, read_header
from featray.video.decode import DecodeAccount, decode_pyav
from featray.video.units import WHOLE_VIDEO
from tests.fixtures.corpus import GOOD, Corpus, reference, run_ffmpeg
from tests.fixtures.videos import Decoded, cut, decode

RESTARTED = "restarted.ts"
"""The only variant whose clock goes back: its second part follows the first."""


@pytest.mark.parametrize("name", GOOD)
def test_frames_are_those_of_ffmpeg(name: str, corpus: Corpus, decode_whole: Callable[[Path], Decoded]) -> None:
    path = corpus.path(name)
    expected = reference(path)
    frames, [account] = decode_whole(path)
    assert [frame.md5 for frame in frames] == [md5 for _, md5 in expected]
    if name != RESTARTED:
        assert [frame.pts_us for frame in frames] == [pts_us for pts_us, _ in expected]
    assert [frame.index for frame in frames] == list(range(len(expected)))
    assert account.frames_decoded == len(expected)
    assert account.errors == []
    assert not (account.truncated or account.damaged_packets or account.damaged_frames or account.missing_frames)


@pytest.mark.parametrize("name", GOOD)
def test_header_of_a_good_file(name: str, corpus: Corpus, decode_whole: Callable[[Path], Decoded]) -> None:
    path = corpus.path(name)
    with path.open("rb") as file, open_video(file) as (container, stream):
        header = read_header(container, stream)
    decoded = decode_whole(path)[1][0].frames_decoded
    assert header.frames_promised in (None, decoded)
    assert header.duration_us is None or header.duration_us > 0


@pytest.mark.parametrize("name", ["stream.ts", "m2ts.m2ts"])
@pytest.mark.parametrize("padding_bytes", [1, 100, 188, 1_000_003])
def test_zeros_behind_the_last_packet_are_none(
    name: str, padding_bytes: int, corpus: Corpus, decode_whole: Callable[[Path], Decoded], tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(corpus.path(name).read_bytes() + bytes(padding_bytes))
    for units in (WHOLE_VIDEO, cut(path, "all", 16)[0]):
        frames, accounts = decode(path, units)
        assert frames == decode_whole(corpus.path(name))[0]
        assert not any(account.truncated or account.damaged_packets or account.errors for account in accounts)


def test_a_clock_that_starts_again_goes_on(corpus: Corpus, decode_whole: Callable[[Path], Decoded]) -> None:
    first = [pts_us for pts_us, _ in reference(corpus.path("wide.ts"))]
    frames, _ = decode_whole(corpus.path(RESTARTED))
    moved = first[-1] + 40_000 - first[0]
    assert [frame.pts_us for frame in frames] == first + [pts_us + moved for pts_us in first]


def test_frames_without_times_follow_each_other(corpus: Corpus, decode_whole: Callable[[Path], Decoded]) -> None:
    # AVI only counts frames and stores no times; the decoder holds back two frames, as ffmpeg's own times show.
    frames, _ = decode_whole(corpus.path("h264_bframes.avi"))
    assert np.diff([frame.pts_us for frame in frames]).tolist() == [40_000] * (len(frames) - 1)


@pytest.mark.parametrize(
    ("name", "turn", "mirrored", "size"),
    [
        ("rotate0.mp4", 0, False, (160, 120)),
        ("rotate90.mp4", 90, False, (120, 160)),
        ("rotate180.mp4", 180, False, (160, 120)),
        ("rotate270.mp4", 270, False, (120, 160)),
        ("rotate90.mkv", 90, False, (120, 160)),
        ("hflip.mp4", 0, True, (160, 120)),
        ("vflip.mp4", 180, True, (160, 120)),
        ("rotate90_hflip.mp4", 270, True, (120, 160)),
    ],
)
def test_orientation_is_recorded(
    name: str, turn: int, mirrored: bool, size: tuple[int, int], corpus: Corpus, decode_whole: Callable[[Path], Decoded]
) -> None:
    _, [account] = decode_whole(corpus.path(name))
    assert (account.rotation_degrees, account.mirrored) == (turn, mirrored)
    assert (account.width_px, account.height_px) == size


@pytest.mark.parametrize(("name", "sar"), [("sar.mp4", "4:3"), ("sar.mpg", "16:11"), ("bframes.mp4", "1:1")])
def test_sample_aspect_ratio_is_recorded(
    name: str, sar: str, corpus: Corpus, decode_whole: Callable[[Path], Decoded]
) -> None:
    assert decode_whole(corpus.path(name))[1][0].sar == sar


def test_a_change_of_size_is_followed(corpus: Corpus) -> None:
    with corpus.path("resized.ts").open("rb") as file:
        sizes = [f.rgb().shape for f in decode_pyav(file, WHOLE_VIDEO[0], DecodeConfig(), DecodeAccount())]
    assert sizes == [(96, 128, 3)] * 25 + [(120, 160, 3)] * 50


@pytest.mark.parametrize("matrix", ["bt601", "bt709", "bt2020"])
@pytest.mark.parametrize("value_range", ["limited", "full"])
@pytest.mark.parametrize("pixels", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le"])
def test_tagged_colours_come_back(matrix: str, value_range: str, pixels: str, tmp_path: Path) -> None:
    # Independent of ffmpeg's conversion to RGB: the colours are known before encoding.
    tag = {"bt601": "smpte170m", "bt709": "bt709", "bt2020": "bt2020nc"}[matrix]
    path = tmp_path / "colours.mp4"
    colours = ["0xC82814", "0x1E96DC", "0x28B43C", "0xE6C8B4"]
    inputs = " ".join(f"-f lavfi -i color={colour}:size=32x64:rate=25:duration=0.2,format=rgb24" for colour in colours)
    run_ffmpeg(
        *shlex.split(inputs),
        *("-filter_complex", f"hstack=4,scale=out_color_matrix={matrix}:out_range={value_range},format={pixels}"),
        *("-c:v", "libx264", "-qp", "0" if pixels != "yuv420p10le" else "1", "-preset", "ultrafast"),
        *("-colorspace", tag, "-color_range", {"limited": "tv", "full": "pc"}[value_range], str(path)),
    )
    with path.open("rb") as file:
        image = next(decode_pyav(file, WHOLE_VIDEO[0], DecodeConfig(), DecodeAccount())).rgb()
    for i, colour in enumerate(colours):
        expected = [int(part, 16) for part in re.findall("..", colour.removeprefix("0x"))]
        assert np.abs(image[8:56, 32 * i + 8 : 32 * i + 24].astype(int) - expected).max() <= 3


def test_shrinking_keeps_the_picture_upright(corpus: Corpus) -> None:
    with corpus.path("rotate90_hflip.mp4").open("rb") as file:
        frame = next(decode_pyav(file, WHOLE_VIDEO[0], DecodeConfig(), DecodeAccount()))
    small, full = frame.shrunk_bgr(80), frame.rgb()[:, :, ::-1]
    assert small.shape == (80, 60, 3)
    halved = full.reshape(80, 2, 60, 2, 3).mean(axis=(1, 3))
    upright, *others = (np.abs(small - turned).mean() for turned in (halved, halved[::-1], halved[:, ::-1]))
    assert upright < 12 < 50 < min(others)
    assert frame.shrunk_bgr(1000).tobytes() == np.ascontiguousarray(full).tobytes()


def test_first_real_video_stream_is_taken(corpus: Corpus, decode_whole: Callable[[Path], Decoded]) -> None:
    plain = [frame.md5 for frame in decode_whole(corpus.path("bframes.mp4"))[0]]
    for name in ("cover_first.mp4", "cover_last.mkv"):
        assert [frame.md5 for frame in decode_whole(corpus.path(name))[0]] == plain


def test_a_name_means_nothing(corpus: Corpus, tmp_path: Path) -> None:
    plain = corpus.path("bframes.mp4")
    renamed = tmp_path / "really.avi"
    renamed.write_bytes(plain.read_bytes())
    assert decode(renamed, WHOLE_VIDEO)[0] == decode(plain, WHOLE_VIDEO)[0]
