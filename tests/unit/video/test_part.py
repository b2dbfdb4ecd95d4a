"""Parts of pictures: pixels and chips are bit-identical to those of the whole frame's conversion."""

from dataclasses import replace

import av
import numpy as np
import pytest

from featray.config import DecodeConfig
from featray.faces.crop import cut_chip, cut_chips
from featray.video.decode import DecodeAccount, decode_pyav
from featray.video.frame import Frame
from featray.video.part import Window, has_parts
from featray.video.units import WHOLE_VIDEO

TAKEN = ["yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "gray", "rgb24"]
SIZES = [(1920, 1080), (854, 480), (638, 360), (333, 250), (1281, 722), (65, 34), (17, 16), (5, 2)]
COLOURS = [(2, 0), (1, 1), (6, 2), (9, 1)]  # matrix and range: unspecified, HD, JPEG's, UHD


def noise(width_px, height_px, pixel_format, rng, colours=(1, 1)):
    """Return a picture of random bytes: every pixel differs from its neighbours."""
    picture = av.VideoFrame(width_px, height_px, pixel_format)
    for plane in picture.planes:
        plane.update(rng.bytes(plane.buffer_size))
    picture.colorspace, picture.color_range = colours
    return Frame.of(picture, index=0, pts_us=0)


def windows(frame, rng, count):
    """Yield `count` windows at random places, then two at corners of the frame."""
    for _ in range(count):
        x1, y1 = (int(rng.integers(0, length)) for length in (frame.width_px, frame.height_px))
        yield Window(x1, y1, int(rng.integers(x1, frame.width_px)) + 1, int(rng.integers(y1, frame.height_px)) + 1)
    yield Window(0, 0, 1, 1)
    yield Window(frame.width_px - 1, frame.height_px - 1, frame.width_px, frame.height_px)


@pytest.mark.parametrize("pixel_format", TAKEN)
def test_a_part_is_that_of_the_whole(pixel_format):
    rng = np.random.default_rng(len(pixel_format))
    for size in SIZES:
        for colours in COLOURS:
            frame = noise(*size, pixel_format, rng, colours)
            assert frame.has_parts
            whole = frame.coded_rgb()
            for window in windows(frame, rng, 2):
                x1, y1, x2, y2 = window
                np.testing.assert_array_equal(frame.coded_part(window), whole[y1:y2, x1:x2], str((size, window)))


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_part_is_turned_as_the_whole(turn, mirrored):
    rng = np.random.default_rng(turn)
    frame = noise(334, 250, "yuv420p", rng)
    size = (250, 334) if turn in (90, 270) else (334, 250)
    frame = replace(frame, rotation_degrees=turn, mirrored=mirrored, width_px=size[0], height_px=size[1])
    whole = frame.coded_rgb()
    for window in windows(frame, rng, 8):
        x1, y1, x2, y2 = window
        np.testing.assert_array_equal(frame.coded_part(window), whole[y1:y2, x1:x2], str(window))


@pytest.mark.parametrize("pixel_format", ["yuv420p10le", "nv12", "yuv440p", "yuv411p"])
def test_what_is_interpolated_is_converted_whole(pixel_format):
    frame = noise(334, 250, pixel_format, np.random.default_rng(0))
    assert not frame.has_parts
    np.testing.assert_array_equal(frame.coded_part(Window(70, 3, 200, 99)), frame.coded_rgb()[3:99, 70:200])


def test_an_odd_height_and_stretched_pixels_are_converted_whole():
    rng = np.random.default_rng(0)
    odd = noise(334, 251, "yuv420p", rng)
    stretched = replace(noise(334, 250, "yuv420p", rng), width_px=400)
    for frame in (odd, stretched):
        assert not frame.has_parts
        np.testing.assert_array_equal(frame.coded_part(Window(70, 3, 200, 99)), frame.coded_rgb()[3:99, 70:200])


def test_interlaced_pictures_are_converted_whole(tmp_path):
    path = str(tmp_path / "fields.mpg")
    with av.open(path, "w", format="mpeg") as container:
        stream = container.add_stream("mpeg2video", rate=25, options={"flags": "+ilme+ildct", "top": "1"})
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for _ in range(3):
            container.mux(stream.encode(noise(128, 96, "yuv420p", np.random.default_rng(0)).picture))
        container.mux(stream.encode())
    with av.open(path) as container:
        picture = next(container.decode(video=0))
    assert picture.interlaced_frame
    assert not has_parts(picture)


@pytest.mark.parametrize("faces", [1, 30])
def test_chips_are_those_of_the_whole_frame(face_clip, faces):
    """One face inside the frame and one over its border; then so many faces that the whole frame is converted."""
    rng = np.random.default_rng(faces)
    squares = np.column_stack(
        [rng.uniform(-80, 600, 2 * faces), rng.uniform(-80, 340, 2 * faces), [170.3, 90.1] * faces]
    )
    with open(face_clip, "rb") as file:
        frame = next(decode_pyav(file, WHOLE_VIDEO[0], DecodeConfig(), DecodeAccount()))
        assert frame.has_parts
        chips, whole = list(cut_chips(frame, squares)), frame.rgb()
    for chip, square in zip(chips, squares, strict=True):
        np.testing.assert_array_equal(chip, cut_chip(whole, square))


def test_contexts_that_are_kept_convert_as_new_ones():
    """Sizes, matrices and ranges alternate; the PyAV frame's own method sets up swscale for each."""
    rng = np.random.default_rng(0)
    for size in ((1280, 720), (640, 360), (1280, 720), (854, 480)):
        for colours in COLOURS:
            frame = noise(*size, "yuv420p", rng, colours)
            anew = frame.picture.reformat(format="rgb24", interpolation="BICUBIC", threads=1).to_ndarray()
            np.testing.assert_array_equal(frame.rgb(), anew)
            small = frame.picture.reformat(320, 180, "bgr24", interpolation="BILINEAR", threads=1).to_ndarray()
            np.testing.assert_array_equal(frame.shrunk_bgr(320), small)
