"""Pictures are compared down to the last visible bit; padding does not count."""

from __future__ import annotations

from dataclasses import replace

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange

from featray.video.frame import Frame
from featray.video.repeats import DIGEST_BYTES, digest, same_picture
from featray.video.tone import ToneMap

FORMATS = [
    "yuv420p", "yuvj422p", "yuv444p10le", "nv12", "p010le", "gray", "gray10le", "rgb24", "bgra", "gbrp12le", "yuyv422",
    "yuva420p", "pal8", "monow", "rgb565le",
]  # fmt: skip
SIZES = [(33, 17), (64, 48)]


def picture(form: str, size: tuple[int, int], padding: int) -> av.VideoFrame:
    """Return a picture whose visible bytes have values that depend on their place; all others are `padding`."""
    made = av.VideoFrame(*size, form)
    for number, plane in enumerate(made.planes):
        stride = plane.line_size or plane.buffer_size
        rows = np.full((plane.buffer_size // stride, stride), padding, np.uint8)
        visible = visible_bytes(form, size[0], number)
        rows[:, :visible] = np.arange(len(rows) * visible).reshape(len(rows), visible) % 251
        plane.update(rows.tobytes())
    return made


def visible_bytes(form: str, width: int, plane: int) -> int:
    half = -(-width // 2)
    return {
        "yuv420p": [width, half, half],
        "yuvj422p": [width, half, half],
        "yuv444p10le": [2 * width] * 3,
        "nv12": [width, 2 * half],
        "p010le": [2 * width, 4 * half],
        "gray": [width],
        "gray10le": [2 * width],
        "rgb24": [3 * width],
        "bgra": [4 * width],
        "gbrp12le": [2 * width] * 3,
        "yuyv422": [2 * width],
        "yuva420p": [width, half, half, width],
        "pal8": [width, 1024],
        "monow": [-(-width // 8)],
        "rgb565le": [2 * width],
    }[form][plane]


def frame_of(made: av.VideoFrame, **other: object) -> Frame:
    return replace(Frame.of(made, index=0, pts_us=0), **other)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("form", FORMATS)
def test_what_is_visible_counts_and_padding_does_not(form: str, size: tuple[int, int]) -> None:
    one, other = frame_of(picture(form, size, 0)), frame_of(picture(form, size, 255))
    assert same_picture(one, other)
    assert digest(one) == digest(other) and len(digest(one)) == DIGEST_BYTES
    for number, plane in enumerate(one.picture.planes):
        changed = picture(form, size, 255)
        stride = plane.line_size or plane.buffer_size
        data = bytearray(changed.planes[number])
        last = len(data) - stride + visible_bytes(form, size[0], number) - 1
        data[last] ^= 1
        changed.planes[number].update(bytes(data))
        assert not same_picture(one, frame_of(changed)), (form, number)
        assert digest(one) != digest(frame_of(changed))


def _limited(made: av.VideoFrame) -> None:
    made.color_range = ColorRange.MPEG


def _full(made: av.VideoFrame) -> None:
    made.color_range = ColorRange.JPEG


def _bt709(made: av.VideoFrame) -> None:
    made.colorspace = 1


@pytest.mark.parametrize(
    "other",
    [
        {"rotation_degrees": 90},
        {"mirrored": True},
        {"width_px": 40},
        {"tone_map": ToneMap("smpte2084", 9)},
    ],
    ids=lambda one: next(iter(one)),
)
def test_how_it_is_shown_counts(other) -> None:
    made = picture("yuv420p", (33, 17), 0)
    assert not same_picture(frame_of(made), frame_of(made, **other))
    assert digest(frame_of(made)) != digest(frame_of(made, **other))


@pytest.mark.parametrize("tag", [_full, _bt709])
def test_how_its_colours_are_coded_counts(tag) -> None:
    one, other = picture("yuv420p", (33, 17), 0), picture("yuv420p", (33, 17), 0)
    _limited(one), _limited(other)
    assert same_picture(frame_of(one), frame_of(other))
    tag(other)
    assert not same_picture(frame_of(one), frame_of(other))


def test_other_sizes_and_formats_with_the_same_bytes_are_others() -> None:
    assert not same_picture(frame_of(picture("gray", (64, 48), 0)), frame_of(picture("gray", (48, 64), 0)))
    assert not same_picture(frame_of(picture("gray", (66, 48), 0)), frame_of(picture("rgb24", (22, 48), 0)))


def test_a_missing_picture_is_like_none() -> None:
    missing = Frame.missing(index=0, pts_us=0, name="a.jpg")
    assert not same_picture(missing, missing)
    assert digest(missing) is None
