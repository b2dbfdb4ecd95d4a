"""Thumbnails of moments: a square around the face, inside the frame."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest
from PIL import Image

from featray.report.moments import _Camera
from featray.video.frame import Frame
from featray.views.selection import Face, SampledFrame
from featray.views.source import Shown


@pytest.mark.parametrize("blur", [False, True])
@pytest.mark.parametrize(
    "size", [(360, 640), (720, 1280), (1080, 1920), (1080, 1919), (640, 360), (333, 777), (96, 96)]
)
def test_a_face_as_wide_as_the_frame_is_cut_out(size, blur):
    """A phone held upright: 1.5 faces are wider than the frame, and the scaled picture's width is rounded."""
    width, height = size
    picture = av.VideoFrame.from_ndarray(np.full((height, width, 3), 200, np.uint8), format="rgb24")
    frame = Frame(0, 0, True, width, height, 0, False, picture)
    side = min(width, 1.2 * height)
    face = Face({"crop_x": 0.0, "crop_y": height * 0.2, "crop_side": side})
    camera = _Camera(None, blur=blur, source_options=None)
    cut = Image.open(io.BytesIO(camera.cut(Shown(frame, SampledFrame(0, 0, "ok", (face,))), face, [])))
    assert cut.width == cut.height and np.abs(np.asarray(cut).astype(int) - 200).max() <= 3
