"""Times of pictures whose containers lie about them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from featray.video.clock import LATEST_US, Clock
from featray.video.container import open_video
from featray.video.scan import scan_packets

_MILLISECOND = Fraction(1, 1000)


def _times_us(*pictures: tuple[int | None, int]) -> list[int]:
    clock = Clock(_MILLISECOND, Fraction(25))
    shown = [SimpleNamespace(pts=pts, dts=pts, duration=duration) for pts, duration in pictures]
    return [round(clock.ticks(picture) * _MILLISECOND * 1_000_000) for picture in shown]


@pytest.mark.parametrize(
    "pictures",
    [
        [(10_000, 1 << 60), (0, 40), (40, 40)],  # a duration of 36 million years, then an appended recording
        [(0, (1 << 63) - 1), (None, 40)],
        [(9_000_000_000_000, 40), (0, 40)] * 4,  # each restart moves the rest by 285 years
    ],
)
def test_absurd_times_fit_in_the_tables_and_views(pictures: list[tuple[int | None, int]]) -> None:
    times = _times_us(*pictures)
    assert times == sorted(times)
    assert times[-1] <= LATEST_US


def test_an_appended_recording_follows_the_first_one() -> None:
    assert _times_us((10_000, 40), (0, 40), (40, 40)) == [10_000_000, 10_040_000, 10_080_000]


def test_times_that_the_clock_replaces_are_not_trusted(tmp_path: Path):
    """Else the frames have other times than the units' bounds, and each unit takes all frames."""
    path = tmp_path / "late.mkv"
    late = 10**13  # ms, or 317 years
    with av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 48, "yuv420p", 5
        packets = []
        for i in range(20):
            picture = av.VideoFrame.from_ndarray(np.full((72, 64), 10 * i, np.uint8), "yuv420p")
            picture.pts, picture.time_base = i, Fraction(1, 25)
            packets += stream.encode(picture)
        for i, packet in enumerate(packets):
            packet.pts = packet.dts = late + 40 * i
            packet.time_base = Fraction(1, 1000)
            container.mux(packet)
    with path.open("rb") as file, open_video(file) as (container, stream):
        assert not scan_packets(container, stream).trusted
