"""Clips with unusual times and sizes play; each page is there once, in order."""

from itertools import pairwise
from types import SimpleNamespace

import av
import pytest
from PIL import Image

from featray.views.clip import write_mp4
from featray.views.page import Look, Pages

DAY_US = 86_400_000_000


@pytest.mark.parametrize(
    "times_us",
    [
        [0, 40_000, 80_000],
        [0, 0, 0, 400, 400],  # 2,500 frames a second in a container that stores milliseconds
        [0, 40_000, 1_600_000, 1_100_000, 1_140_000],  # a recorder whose clock was set back
        [0, 40_000, 80_000, DAY_US, DAY_US + 40_000],
    ],
)
def test_odd_times_play(tmp_path, times_us):
    shades = [20 + 40 * i for i in range(len(times_us))]
    pages = ((time, Image.new("RGB", (64, 48), (shade,) * 3)) for time, shade in zip(times_us, shades, strict=True))
    assert write_mp4(tmp_path / "clip.mp4", pages, (64, 48)) == len(times_us)
    with av.open(tmp_path / "clip.mp4") as clip:
        frames = list(clip.decode(video=0))
        seconds = clip.duration / 1_000_000
    means = [frame.to_ndarray(format="gray").mean() for frame in frames]
    assert len(means) == len(times_us) and all(a + 20 < b for a, b in pairwise(means))
    assert all(a.pts < b.pts for a, b in pairwise(frames))
    assert seconds < 30


def test_a_very_wide_frame_is_shrunk():
    video = SimpleNamespace(label="in/wide.mkv", video_id="0" * 16, release="r", weights_trained=True, unusable=())
    look = Look(video, frozenset(), False, None)
    pages = Pages(look, [], (), (16_000, 200), 720, (0, 40_000))
    width, height = pages.size_px
    assert width < 5000 and 720 < height < 1200 and not width % 2 and not height % 2
