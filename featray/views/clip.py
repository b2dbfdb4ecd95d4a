"""Views. Writing pictures as an mp4 that keeps the times of the frames they show."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import numpy as np
from av.video.reformatter import Colorspace
from PIL import Image

_TICKS_A_SECOND: Final = 1_000_000
_BT709: Final = 1


def write_mp4(path: Path, pages: Iterable[tuple[int, Image.Image]], size_px: tuple[int, int]) -> int:
    """Encode pages as H.264, yuv420p, without sound.

    Args:
        path: of the file.
        pages: time in µs, rising from 0 or more, and an RGB picture.
        size_px: of all pictures; even.

    Returns:
        The number of pages.
    """
    count = 0
    with av.open(path, "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height = size_px
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = Fraction(1, _TICKS_A_SECOND)
        context.options = {"preset": "veryfast", "crf": "20"}
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        for time_us, page in pages:
            frame = av.VideoFrame.from_ndarray(np.asarray(page), format="rgb24").reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709
            )
            frame.pts, frame.time_base = time_us, Fraction(1, _TICKS_A_SECOND)
            container.mux(stream.encode(frame))
            count += 1
        container.mux(stream.encode(None))
    return count
