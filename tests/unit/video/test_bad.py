"""Bad files give the right code or a partial result with an account; no crash, no hang, no other file is opened."""

from __future__ import annotations

import ctypes
import os
import random
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from featray.config import DecodeConfig
from featray.errors import ErrorCode, VideoError
from featray.video.container import open_video, read_header
from featray.video.decode import DecodeAccount, decode_pyav
from featray.video.scan import scan_packets
from featray.video.units import WHOLE_VIDEO, Sample, cut_units
from tests.fixtures import broken
from tests.fixtures.corpus import Corpus
from tests.fixtures.videos import Decoded, Seen, decode

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.timeout(60), pytest.mark.slow]


def outcome(path: Path, unit_frames: int | None = None, sample: Sample = "all") -> tuple[str | None, Decoded]:
    """Return the code with which a file is refused, or None, and the frames and accounts of what could be decoded."""
    units = WHOLE_VIDEO
    try:
        with path.open("rb") as file, open_video(file, max_pixels=DecodeConfig().max_pixels) as (container, stream):
            read_header(container, stream)
            if unit_frames:
                units = cut_units(scan_packets(container, stream), stream.time_base, sample, unit_frames)
        return None, decode(path, units, sample)
    except VideoError as error:
        assert "\n" not in str(error)
        return error.code, ([], [])


def codes(accounts: list[DecodeAccount]) -> set[ErrorCode]:
    return {code for account in accounts for code, _ in account.errors}


CUT = [
    *("faststart.mp4", "bframes.mp4", "fragmented.mp4", "fragmented_sidx.mp4", "hevc.mp4", "prores.mov"),
    *("bframes.mkv", "streamed.mkv", "live.webm", "av1.webm", "mpeg4.avi", "mjpeg.avi", "h264.flv", "streamed.flv"),
    *("theora.ogv", "wmv2.wmv", "streamed.asf", "stream.ts", "m2ts.m2ts", "mpeg1.mpg"),
]
INDEX_AT_END = {"bframes.mp4", "hevc.mp4", "prores.mov"}


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("name", CUT)
def test_a_cut_file_is_never_silently_short(
    name: str, share: float, corpus: Corpus, decode_whole: Callable[[Path], Decoded], tmp_path: Path
) -> None:
    whole = decode_whole(corpus.path(name))[0]
    path = tmp_path / name
    path.write_bytes(broken.cut_at(corpus.path(name).read_bytes(), share))
    code, (frames, accounts) = outcome(path)
    if code is not None:
        assert code == ErrorCode.TRUNCATED
        assert share <= 0.1 or name in INDEX_AT_END
        return
    [account] = accounts
    assert account.truncated
    assert account.errors[0][0] == ErrorCode.TRUNCATED
    assert "byte" in account.errors[0][1]
    times, found = [frame.pts_us for frame in whole], [frame.pts_us for frame in frames]
    # All frames before the cut are decoded, except the B-frames around it, or the Ogg page that contains it.
    assert set(found) <= set(times)
    assert found[:-4] == times[: len(found[:-4])]
    assert len(found) >= share * len(times) / 2 - 5


@pytest.mark.parametrize("name", ["faststart.mp4", "bframes.mkv", "stream.ts", "mpeg4.avi"])
def test_units_of_a_cut_file_are_its_full_decode(name: str, corpus: Corpus, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(broken.cut_at(corpus.path(name).read_bytes(), 0.8))
    _, (whole, _) = outcome(path)
    _, (frames, accounts) = outcome(path, unit_frames=16)
    # How a last, half frame is concealed depends on what was decoded before it.
    assert frames[:-1] == whole[:-1]
    assert frames[-1][:3] == whole[-1][:3]
    assert [account.truncated for account in accounts] == [False] * (len(accounts) - 1) + [True]


FLIPPED = [
    *("faststart.mp4", "bframes.mp4", "fragmented.mp4", "bframes.mkv", "live.webm", "mpeg4.avi", "stream.ts"),
    *("open_gop.ts", "mpeg1.mpg", "theora.ogv", "h264.flv", "wmv2.wmv", "vp9_altref.webm", "av1.mp4", "hevc.mp4"),
]


@pytest.mark.parametrize("name", FLIPPED)
def test_flipped_bits_are_survived(name: str, corpus: Corpus, tmp_path: Path) -> None:
    data = corpus.path(name).read_bytes()
    path = tmp_path / name
    for seed in range(12):
        path.write_bytes(broken.flipped(data, seed))
        for unit_frames in (None, 16):
            code, (frames, accounts) = outcome(path, unit_frames)
            assert code is None or (code in list(ErrorCode) and not frames)
            indices = [frame.index for frame in frames]
            assert indices == sorted(set(indices))
            times = [frame.pts_us for frame in frames]
            assert times == sorted(times)
            assert sum(account.frames_decoded for account in accounts) == len(frames)


@pytest.mark.parametrize("name", ["long.mp4", "bframes.mkv", "live.webm", "stream.ts", "mpeg4.avi", "h264.flv"])
def test_frames_lost_to_damaged_media_are_counted(
    name: str, corpus: Corpus, decode_whole: Callable[[Path], Decoded], tmp_path: Path
) -> None:
    # Every frame is decoded or accounted for. In MPEG-TS the damage also affects the structure: the loss is noticed,
    # but cannot always be counted.
    whole = decode_whole(corpus.path(name))[0]
    with corpus.path(name).open("rb") as file, open_video(file) as (container, stream):
        packets = [(packet.pos, packet.size) for packet in container.demux(stream) if packet.size]
    path = tmp_path / name
    lost = 0
    for seed in range(6):
        data = bytearray(corpus.path(name).read_bytes())
        chance = random.Random(seed)
        for position, size in chance.sample(packets, 4):
            start, end = position + chance.choice((16 if name.endswith("flv") else 4, size // 3)), position + size
            data[start:end] = chance.choice((bytes, chance.randbytes))(end - start)
        path.write_bytes(data)
        for unit_frames in (None, 16):
            code, (frames, accounts) = outcome(path, unit_frames)
            assert code is None
            missing = len(whole) - len(frames)
            lost += missing
            if name != "stream.ts":
                assert missing <= sum(account.damaged_packets + account.missing_frames for account in accounts)
            assert not missing or codes(accounts) & {ErrorCode.DECODE_FAILED, ErrorCode.TRUNCATED}
    if name in ("long.mp4", "bframes.mkv"):
        assert lost  # otherwise this test shows nothing


def test_damage_is_located(corpus: Corpus, tmp_path: Path) -> None:
    with corpus.path("long.mp4").open("rb") as file, open_video(file) as (container, stream):
        packet = [p for p in container.demux(stream) if p.is_keyframe][2]
        seconds, position, size = float(packet.pts * packet.time_base), packet.pos, packet.size
    data = bytearray(corpus.path("long.mp4").read_bytes())
    data[position + 4 : position + size] = bytes(size - 4)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    _, (_, [account]) = outcome(path)
    [(code, message)] = account.errors
    assert code == ErrorCode.DECODE_FAILED
    assert f"the first at {seconds:.3f} s, byte {position}" in message


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "not_a_video"),
        (b"x", "not_a_video"),
        (b"\n" * 5000, "not_a_video"),
        (b"It was a dark and stormy night. " * 2000, "not_a_video"),
        (b"<!doctype html><html><body><video src='a.mp4'></video></body></html>", "not_a_video"),
        (b'{"video": "a.mp4", "frames": [1, 2, 3]}', "not_a_video"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "not_a_video"),
        (b"%PDF-1.7\n" + broken.noise(1), "not_a_video"),
        (b"PK\x03\x04" + broken.noise(2), "unsupported_container"),
        (b"\x1f\x8b\x08\x00" + broken.noise(3), "unsupported_container"),
        (b"\x7fELF" + broken.noise(4), "not_a_video"),
        (b"GIF89a" + broken.noise(5), "unsupported_container"),
        *((broken.noise(seed), "not_a_video") for seed in range(10, 30)),
    ],
    ids=lambda value: value if isinstance(value, str) else value[:8].hex(),
)
def test_what_is_no_video(data: bytes, code: str, tmp_path: Path) -> None:
    # A file name with a video's extension changes nothing.
    for suffix in ("", ".mp4", ".ts", ".mpg", ".png", ".m3u8"):
        path = tmp_path / f"file{suffix}"
        path.write_bytes(data)
        assert outcome(path)[0] == code


def test_other_media(tmp_path: Path) -> None:
    made = broken.other_media(tmp_path)
    assert {name: outcome(path)[0] for name, (path, _) in made.items()} == {
        name: code for name, (_, code) in made.items()
    }


HOSTILE = {
    "box_of_exabytes": "truncated",
    "box_of_no_size": "decode_failed",
    "tiny_boxes": "decode_failed",
    "tiny_boxes_before": "no_video_stream",
    "nested_boxes": "decode_failed",
    "only_ftyp": "decode_failed",
    "ftyp_and_noise": "decode_failed",
    "ebml_and_noise": "decode_failed",
    "riff_and_noise": "truncated",
    "sync_bytes": "decode_failed",
    "pack_headers": "truncated",
    "flv_header": "truncated",
    "ogg_pages": "truncated",
    "asf_header": "decode_failed",
    "zeros": "not_a_video",
    "many_streams": "too_large",
    "too_many_streams": "too_large",
    "many_samples": "decode_failed",
    "no_samples": "decode_failed",
    "no_time_base": None,
    "absurd_time_base": None,
    "second_time_base": None,
    "absurd_duration": None,
    "absurd_times": None,
    "absurd_times_in_seconds": None,
    "absurd_offsets": None,
    "offsets_outside": "truncated",
    "wide_picture": "too_large",
    "widest_picture": "decode_failed",
}
"""Code with which each file is refused, or of an error in its account; None if it decodes without an error."""


@pytest.fixture(scope="module")
def hostile(corpus: Corpus) -> dict[str, bytes]:
    return broken.hostile(corpus)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(name: str, hostile: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "file.mp4"
    path.write_bytes(hostile[name])
    for unit_frames in (None, 16):
        code, (frames, accounts) = outcome(path, unit_frames)
        assert HOSTILE[name] in ({code} if code else codes(accounts) or {None})
        # Every time fits the tables' 64 bits, and times never decrease.
        assert all(abs(frame.pts_us) < 2**63 for frame in frames)
        assert [frame.pts_us for frame in frames] == sorted(frame.pts_us for frame in frames)
        if HOSTILE[name] is None:
            assert len(frames) == 50


def test_every_hostile_file_is_tested(hostile: dict[str, bytes]) -> None:
    assert set(hostile) == set(HOSTILE)


@pytest.mark.parametrize(
    "name", ["bframes.mp4", "bframes.mkv", "mpeg4.avi", "mjpeg.avi", "theora.ogv", "stream.ts", "h264.flv"]
)
def test_pixels_are_limited_before_decoding(name: str, corpus: Corpus) -> None:
    settings = DecodeConfig(max_pixels=160 * 120 - 1)
    with corpus.path(name).open("rb") as file, pytest.raises(VideoError, match="160x120 px exceed") as caught:
        next(decode_pyav(file, WHOLE_VIDEO[0], settings, DecodeAccount()))
    assert caught.value.code == ErrorCode.TOO_LARGE


def test_pixels_are_limited_where_the_size_changes(corpus: Corpus) -> None:
    frames: list[Seen] = []
    account = DecodeAccount()
    settings = DecodeConfig(max_pixels=128 * 96)
    with corpus.path("resized.ts").open("rb") as file, pytest.raises(VideoError) as caught:
        frames.extend(decode_pyav(file, WHOLE_VIDEO[0], settings, account))
    assert caught.value.code == ErrorCode.TOO_LARGE
    assert 20 <= len(frames) == account.frames_decoded <= 25


class OpenWatch:
    """A watch that detects whether this process or another one opens a file (Linux: inotify)."""

    IN_OPEN = 0x20

    def __init__(self, path: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._events = libc.inotify_init1(os.O_NONBLOCK)
        assert libc.inotify_add_watch(self._events, os.fsencode(path), self.IN_OPEN) > 0

    def opened(self) -> bool:
        try:
            return bool(os.read(self._events, 4096))
        except BlockingIOError:
            return False


@pytest.mark.skipif(sys.platform != "linux", reason="watches for opened files with Linux's inotify")
def test_nothing_that_a_file_names_is_opened(corpus: Corpus, tmp_path: Path) -> None:
    target = tmp_path / "secret.ts"
    target.write_bytes(corpus.path("stream.ts").read_bytes())
    watch = OpenWatch(target)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        expected, found = {}, {}
        for name, (text, code) in broken.playlists(target, address).items():
            for suffix in ("", ".m3u8", ".mp4", ".ffconcat"):
                path = tmp_path / f"{name}{suffix}"
                path.write_text(text)
                expected[path.name], found[path.name] = code, outcome(path)[0]
        with pytest.raises(TimeoutError):
            server.accept()
    assert found == expected
    assert not watch.opened()
    target.read_bytes()
    assert watch.opened()


@pytest.mark.skipif(sys.platform != "linux", reason="watches for opened files with Linux's inotify")
def test_media_in_another_file_are_not_read(corpus: Corpus, tmp_path: Path) -> None:
    target = tmp_path / "media.mp4"
    data = corpus.path("bframes.mp4").read_bytes()
    target.write_bytes(data)
    pointing = tmp_path / "pointing.mov"
    pointing.write_bytes(broken.external_reference(data, target))
    watch = OpenWatch(target)
    outcome(pointing)
    assert not watch.opened()


def test_nothing_is_printed(corpus: Corpus, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "file.mp4"
    for seed in range(4):
        path.write_bytes(broken.flipped(corpus.path("faststart.mp4").read_bytes(), seed))
        outcome(path, 16)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("codec, name", [("libx264", "H.264"), ("libx265", "HEVC")])
@pytest.mark.parametrize("delimiters", [False, True])
def test_a_raw_stream_is_told_from_junk_and_how_to_wrap_it(
    codec: str, name: str, delimiters: bool, tmp_path: Path
) -> None:
    path = tmp_path / "camera.mp4"  # recorders give such names
    options = {"x264-params": f"aud={int(delimiters)}", "x265-params": f"log-level=none:aud={int(delimiters)}"}
    with av.open(str(path), "w", format=codec.removeprefix("lib").replace("x265", "hevc").replace("x", "h")) as out:
        stream = out.add_stream(codec, rate=25, options={k: v for k, v in options.items() if codec[3:] in k})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(10):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 25 * i, np.uint8))))
        out.mux(stream.encode())
    with (
        pytest.raises(VideoError, match=rf"a raw {name} stream.*wrap it.*ffmpeg -r 25") as caught,
        path.open("rb") as file,
    ):
        with open_video(file):
            pass
    assert caught.value.code == ErrorCode.UNSUPPORTED_CONTAINER
