"""Units give the same as a full decode: every frame once, with its index, time, keyframe flag and pixels."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from featray.config import DecodeConfig, EveryNth, FramesPerSecond
from featray.video.container import open_video, read_header
from featray.video.decode import DecodeAccount, decode_pyav
from featray.video.scan import scan_packets
from featray.video.units import WHOLE_VIDEO, Sample, Unit, cut_units, needs_scan
from tests.fixtures.corpus import GOOD, Corpus
from tests.fixtures.videos import Decoded, Seen, cut, decode

pytestmark = pytest.mark.slow

COUNTED = {
    "vfr.mkv": "some of its times, in whole milliseconds, are the same",
    "open_gop.mpg": "a packet in the middle has no time",
    "restarted.ts": "its clock starts again",
    "packed.avi": "a packet holds two frames",
    "mpeg4_bframes.avi": "AVI holds no times for B-frames",
    "h264_bframes.avi": "AVI holds no times for B-frames",
    "drops.avi": "AVI holds no times for H.264",
}
"""Variants whose times cannot be trusted for cutting, with the reason."""


def sampled(frames: list[Seen], sample: Sample) -> list[Seen]:
    """Return the frames of a full decode that are to be sampled, computed independently of the package."""
    if isinstance(sample, EveryNth):
        return frames[:: sample.every]
    if isinstance(sample, FramesPerSecond):
        ticks = [int((f.pts_us - frames[0].pts_us) * sample.fps / 1e6 + 1e-6) for f in frames]
        return [f for f, tick, before in zip(frames, ticks, [-1, *ticks], strict=False) if tick > before]
    return frames


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize(
    ("sample", "unit_frames"),
    [("all", 16), (EveryNth(every=3), 5), (FramesPerSecond(fps=5), 3)],
    ids=["all", "every_3", "fps_5"],
)
def test_units_are_a_full_decode(
    name: str, sample: Sample, unit_frames: int, corpus: Corpus, decode_whole: Callable[[Path], Decoded]
) -> None:
    path = corpus.path(name)
    expected = sampled(decode_whole(path)[0], sample)
    units, trusted = cut(path, sample, unit_frames)
    units = tuple(Unit(**json.loads(json.dumps(asdict(unit)))) for unit in units)
    frames, accounts = decode(path, units, sample)
    assert frames == expected
    assert trusted == (name not in COUNTED)
    assert len(units) >= len(expected) / unit_frames
    assert sum(account.frames_decoded for account in accounts) == len(decode_whole(path)[0])
    assert [account.errors for account in accounts if account.errors] == []
    for unit in units:
        assert len(decode(path, (unit,), sample)[0]) <= unit_frames or len(units) == 1 or unit.first_index > 40


@pytest.mark.parametrize("name", ["single_gop.mp4", "single_gop.webm"])
def test_a_stretch_without_keyframes_is_cut(name: str, corpus: Corpus) -> None:
    units, _ = cut(corpus.path(name), "all", 16)
    assert [unit.first_index for unit in units] == list(range(0, 16 * len(units), 16))
    assert {unit.keyframe_pts for unit in units[1:]} == {units[1].origin_pts}


def test_units_start_at_keyframes_where_there_are_enough(corpus: Corpus) -> None:
    units, _ = cut(corpus.path("long.mp4"), "all", 45)
    assert [unit.first_index for unit in units] == [0, 40, 80, 120]
    assert all(unit.start_pts == unit.keyframe_pts for unit in units)


def test_units_grow_with_what_is_decoded_before_them(corpus: Corpus) -> None:
    # At most 16 frames are decoded and dropped for each one kept, so the total stays linear.
    path = corpus.path("single_gop.mp4")
    with path.open("rb") as file, open_video(file) as (container, stream):
        index = scan_packets(container, stream)
    many = type(index)(
        np.arange(20_000, dtype=np.int64),
        np.arange(20_000) == 0,
        np.zeros(20_000, np.bool_),
        trusted=True,
    )
    for trusted in (True, False):
        cuts = cut_units(type(index)(many.pts, many.keyframe, many.leading, trusted), stream.time_base, "all", 16)
        starts = [unit.first_index for unit in cuts]
        assert max(np.diff(starts)[:15]) == 16
        assert all(length >= start // 16 for start, length in zip(starts, np.diff(starts), strict=False))
        assert len(cuts) < 110


def test_a_recovery_point_that_needs_frames_to_recover_is_no_start(corpus: Corpus) -> None:
    for name in ("intra_refresh.mp4", "intra_refresh.ts"):
        with corpus.path(name).open("rb") as file, open_video(file) as (container, stream):
            flagged = sum(packet.is_keyframe for packet in container.demux(stream))
        with corpus.path(name).open("rb") as file, open_video(file) as (container, stream):
            exact = int(scan_packets(container, stream).keyframe.sum())
        assert flagged == 8
        assert exact == 1


class CountingFile(io.BytesIO):
    """A file that counts the bytes read from it."""

    bytes_read = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.bytes_read += len(data)
        return data


def test_packets_of_an_mp4_are_listed_without_reading_them(corpus: Corpus) -> None:
    path = corpus.path("large.mp4")
    file = CountingFile(path.read_bytes())
    with open_video(file) as (container, stream):
        header = read_header(container, stream)
        hollow = scan_packets(container, stream)
    assert header.frames_promised == len(hollow.pts) == 150
    assert hollow.trusted
    assert file.bytes_read < 0.5 * path.stat().st_size
    # The same packets in a container without such an index are all read, and agree.
    with corpus.path("large.mkv").open("rb") as other, open_video(other) as (container, stream):
        full = scan_packets(container, stream)
        seconds = float(stream.time_base)
    assert np.array_equal(full.keyframe, hollow.keyframe)
    assert np.abs(full.pts * seconds - hollow.pts * float(header_time_base(path))).max() < 0.002


def header_time_base(path: Path) -> float:
    with path.open("rb") as file, open_video(file) as (_, stream):
        return float(stream.time_base)


@pytest.mark.parametrize(
    ("name", "sample", "scanned"),
    [
        ("long.mp4", "all", True),
        ("long.mp4", EveryNth(every=10), False),
        ("long.mp4", FramesPerSecond(fps=2), False),
        ("live.webm", EveryNth(every=10), True),
        ("bframes.mp4", "all", False),
    ],
)
def test_only_a_video_that_may_be_long_is_scanned(name: str, sample: Sample, scanned: bool, corpus: Corpus) -> None:
    with corpus.path(name).open("rb") as file, open_video(file) as (container, stream):
        assert needs_scan(read_header(container, stream), sample, 60) == scanned


def test_a_unit_whose_first_frame_is_gone_keeps_the_others(corpus: Corpus, tmp_path: Path) -> None:
    path = corpus.path("long.mp4")
    units, _ = cut(path, "all", 25)
    with path.open("rb") as file, open_video(file) as (container, stream):
        target = next(p for p in container.demux(stream) if p.pts == units[3].start_pts)
        span = slice(target.pos + 4, target.pos + target.size)
    damaged = bytearray(path.read_bytes())
    damaged[span] = bytes(len(damaged[span]))
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(damaged)
    good, bad = decode(path, units), decode(broken, units)
    assert [frame.pts_us for frame in bad[0]] == sorted({frame.pts_us for frame in bad[0]})
    lost = {frame.pts_us for frame in good[0]} - {frame.pts_us for frame in bad[0]}
    assert lost
    hit = [i for i, account in enumerate(bad[1]) if account.errors]
    assert hit
    assert set(hit) <= {2, 3}
    assert len(lost) <= sum(account.damaged_packets + account.missing_frames for account in bad[1])


STRIDDEN = (
    "long.mp4", "single_gop.mp4", "bframes.mp4", "open_gop.mp4", "open_gop.mkv", "open_gop.ts", "edit_list.mp4",
    "intra_refresh.ts", "late_start.mkv", "live.webm", "vfr.mkv", "restarted.ts", "h264_bframes.avi", "packed.avi",
)  # fmt: skip


@pytest.mark.parametrize("name", STRIDDEN)
@pytest.mark.parametrize(
    ("sample", "unit_frames", "stride"),
    [("all", 16, 5), (EveryNth(every=3), 7, 4), (FramesPerSecond(fps=11), 6, 3)],
    ids=["all", "every_3", "fps_11"],
)
def test_units_with_a_stride_meet_at_multiples_of_it(
    name: str, sample: Sample, unit_frames: int, stride: int, corpus: Corpus
) -> None:
    path = corpus.path(name)
    expected = [frame.index for frame in decode(path, WHOLE_VIDEO, sample)[0]]
    with path.open("rb") as file, open_video(file) as (container, stream):
        units = cut_units(scan_packets(container, stream), stream.time_base, sample, unit_frames, stride)
    found: list[int] = []
    decoded, settings = 0, DecodeConfig(sample=sample)
    starts, aheads = [], []
    for unit in units:
        account = DecodeAccount()
        with path.open("rb") as file:
            frames = list(decode_pyav(file, unit, settings, account, stride))
        own = [frame.index for frame in frames if not frame.beyond]
        starts += own[:1]
        aheads += [frame.index for frame in frames if frame.beyond]
        assert not any(frame.beyond for frame in frames[:-1])
        found += own
        decoded += account.frames_decoded
        assert account.errors == []
    assert found == expected
    assert decoded == decode(path, WHOLE_VIDEO, sample)[1][0].frames_decoded
    assert all(expected.index(start) % stride == 0 for start in starts)
    assert aheads == starts[1:]
    assert len(starts) > 1 or len(expected) <= max(unit_frames, stride)
