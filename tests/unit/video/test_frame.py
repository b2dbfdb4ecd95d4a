"""Frames with side data that PyAV does not know; the part of it that sets the orientation is used."""

import gc
import io

import av
import numpy as np
import pytest
from PIL import Image, ImageOps

from featray.errors import ErrorCode, VideoError
from featray.video.frame import Frame

QUARTERS = np.zeros((48, 64, 3), np.uint8)
QUARTERS[:24, :32], QUARTERS[:24, 32:], QUARTERS[24:, :32] = (255, 0, 0), (0, 255, 0), (0, 0, 255)

_ORIENTATION = 0x112


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_with_exif_is_turned_as_exif_says(orientation):
    exif = Image.Exif()
    exif[_ORIENTATION] = orientation
    file = io.BytesIO()
    Image.fromarray(QUARTERS).save(file, "JPEG", exif=exif, quality=95, subsampling=0)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(file.getvalue()))))
    with av.open(file, format="jpeg_pipe") as container:
        frame = Frame.of(next(container.decode(video=0)), index=0, pts_us=0)
    np.testing.assert_array_equal(frame.rgb(), upright)


def test_a_frame_goes_when_it_is_let_go(face_clip):
    """A 4K picture is 12 MB, and Python collects cycles after many objects, not after large ones."""
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        with av.open(str(face_clip)) as container:
            for index, picture in zip(range(8), container.decode(video=0), strict=False):
                Frame.of(picture, index=index, pts_us=0).rgb()
        gc.collect()
        assert [type(item) for item in gc.garbage if isinstance(item, av.VideoFrame)] == []
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


def test_colours_that_ffmpeg_cannot_convert_are_a_failure_of_the_video_and_not_of_the_storage():
    picture = av.VideoFrame(64, 48, "yuv420p")
    picture.colorspace = 3  # reserved by ITU-T H.273
    with pytest.raises(VideoError, match="converting a frame to RGB: Operation not supported") as caught:
        Frame.of(picture, index=0, pts_us=0).rgb()
    assert caught.value.code is ErrorCode.DECODE_FAILED
