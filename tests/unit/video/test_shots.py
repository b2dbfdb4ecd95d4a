"""Cuts are distinguished from similar changes of the picture."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from featray.video.frame import Frame
from featray.video.shots import HEIGHT_PX, WIDTH_PX, is_cut, read_thumbnail, thumbnail


def frame_of(image) -> Frame:
    return Frame.of(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24"), index=0, pts_us=0)


def look(image):
    return thumbnail(frame_of(image))


@pytest.fixture(scope="module")
def pictures(clips: Path) -> dict[str, np.ndarray]:
    found = {}
    for name in ("face", "no_face"):
        with av.open(str(clips / f"{name}.mp4")) as container:
            found[name] = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    return found


def test_a_thumbnail_comes_back_from_its_bytes(pictures) -> None:
    small = look(pictures["face"][0])
    assert small.shape == (3, HEIGHT_PX, WIDTH_PX)
    assert np.array_equal(read_thumbnail(small.tobytes()), small)
    assert abs(small[0].mean() - pictures["face"][0].mean()) < 15


@pytest.mark.parametrize("name", ["face", "no_face"])
@pytest.mark.parametrize("apart", [1, 5, 12])
def test_frames_of_one_shot(pictures, name: str, apart: int) -> None:
    small = [look(image) for image in pictures[name]]
    assert not any(is_cut(a, b) for a, b in zip(small, small[apart:], strict=False))


def test_frames_of_two_shots(pictures) -> None:
    face, sky = pictures["face"], pictures["no_face"]
    for i in range(0, 90, 10):
        assert is_cut(look(face[i]), look(sky[i]))
        assert is_cut(look(sky[i]), look(face[i]))
        assert is_cut(look(face[i]), look(face[i][:, ::-1]))
        assert is_cut(look(np.zeros_like(face[i])), look(face[i]))


def test_another_tint_is_another_shot_and_a_warmer_one_is_not(pictures) -> None:
    sky = pictures["no_face"][0]
    assert is_cut(look(sky), look(255 - sky[::-1]))
    assert not is_cut(look(sky), look(np.clip(sky * np.asarray([1.06, 1.0, 0.94]), 0, 255).astype(np.uint8)))


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2, 0.3])
def test_a_pan_is_no_cut(pictures, share: float) -> None:
    """A camera pans by this share of the picture from one frame to the next."""
    face = pictures["face"][100]
    wide = np.concatenate([face, face[:, ::-1], face], axis=1)
    width = face.shape[1]
    step = int(width * share)
    assert not any(
        is_cut(look(wide[:, x : x + width]), look(wide[:, x + step : x + step + width])) for x in (50, 150, 350)
    )


def test_a_flash_a_fade_and_noise_in_the_dark_are_no_cuts(pictures) -> None:
    face = pictures["face"][100]
    flash = np.clip(face * 1.5 + 40, 0, 255).astype(np.uint8)
    assert not is_cut(look(face), look(flash)) and not is_cut(look(flash), look(face))
    assert not is_cut(look((face * 0.3).astype(np.uint8)), look((face * 0.22).astype(np.uint8)))
    noise = np.random.default_rng(0).integers(0, 24, (2, *face.shape), np.uint8)
    assert not is_cut(look(noise[0]), look(noise[1]))


@pytest.mark.parametrize("form", ["yuv420p10le", "yuvj422p", "gray", "rgb24"])
def test_a_cut_is_seen_in_any_pixel_format(pictures, form: str) -> None:
    face, sky = (av.VideoFrame.from_ndarray(pictures[n][0], format="rgb24") for n in ("face", "no_face"))
    a, b = (thumbnail(Frame.of(p.reformat(format=form), index=0, pts_us=0)) for p in (face, sky))
    assert is_cut(a, b) and not is_cut(a, a)


@pytest.mark.parametrize("apart", [24, 48])
def test_a_second_or_two_in_one_shot_are_no_cut(pictures, apart: int) -> None:
    small = [look(image) for image in pictures["face"][::apart]]
    assert not any(is_cut(a, b) for a, b in pairwise(small))
