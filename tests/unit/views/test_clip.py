"""Clips with unusual times and sizes play; each page is there once, in order. No picture is stretched."""

from itertools import pairwise
from types import SimpleNamespace

import av
import numpy as np
import pytest
from PIL import Image

from featray.video.frame import Frame
from featray.views.clip import write_mp4
from featray.views.page import Look, Pages
from featray.views.sheet import draw_sheet
from featray.views.source import Shown

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


VIDEO = SimpleNamespace(label="in/wide.mkv", video_id="0" * 16, release="r", weights_trained=True, unusable=())
LOOK = Look(VIDEO, frozenset(), False, None)


def test_a_very_wide_frame_is_shrunk():
    pages = Pages(LOOK, [], (), (16_000, 200), 720, (0, 40_000))
    width, height = pages.size_px
    assert width < 5000 and 720 < height < 1200 and not width % 2 and not height % 2


def shown(width, height, index):
    """Return a frame, not sampled: a red square of half the shorter side, centred on grey."""
    pixels = np.full((height, width, 3), 128, np.uint8)
    half = min(width, height) // 4
    pixels[height // 2 - half : height // 2 + half, width // 2 - half : width // 2 + half] = (255, 0, 0)
    picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
    return Shown(Frame.of(picture, index=index, pts_us=40_000 * index), None)


def red_size(picture):
    pixels = np.asarray(picture).astype(int)
    rows, columns = np.nonzero((pixels[..., 0] > 200) & (pixels[..., 1] < 60) & (pixels[..., 2] < 60))
    return columns.max() - columns.min() + 1, rows.max() - rows.min() + 1


SHAPES = [(400, 200), (200, 400), (300, 300), (641, 361)]


def test_pictures_of_different_shapes_keep_theirs_in_a_sheet():
    sheet = draw_sheet([(shown(*shape, i), []) for i, shape in enumerate(SHAPES)], len(SHAPES), LOOK, 2.0)
    halves = [sheet.crop((x, y, x + sheet.width // 2, y + sheet.height // 2)) for y in (0, sheet.height // 2)
              for x in (0, sheet.width // 2)]  # fmt: skip
    for half in halves:
        width, height = red_size(half)
        assert abs(width - height) <= 2 and width > 50


@pytest.mark.parametrize("shape", SHAPES)
def test_a_frame_of_another_shape_than_the_first_keeps_its_own(shape):
    width, height = red_size(Pages(LOOK, [], (), (400, 200), 400, (0, 80_000)).draw(shown(*shape, 1), []))
    assert abs(width - height) <= 2 and width > 50
