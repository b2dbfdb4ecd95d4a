"""Views. Write pictures as an mp4 that keeps the times of their frames, as far as players allow."""

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

_LONGEST_PAUSE_US: Final = 10_000_000


def write_mp4(path: Path, pages: Iterable[tuple[int, Image.Image]], size_px: tuple[int, int]) -> int:
    """Encode pages as H.264, yuv420p, without sound.

    Args:
        path: path of the file.
        pages: time in µs and an RGB picture, in display order. Equal and falling times become one tick apart, because
            times in the file must increase. Pauses are limited to 10 seconds, because some last a day.
        size_px: width and height of all pictures; even.

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
        shown_us = before_us = None
        for time_us, page in pages:
            if shown_us is None or before_us is None:
                shown_us = max(0, time_us)
            else:
                shown_us += min(max(1, time_us - before_us), _LONGEST_PAUSE_US)
            before_us = time_us
            frame = av.VideoFrame.from_ndarray(np.asarray(page), format="rgb24").reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709
            )
            frame.pts, frame.time_base = shown_us, Fraction(1, _TICKS_A_SECOND)
            container.mux(stream.encode(frame))
            count += 1
        container.mux(stream.encode(None))
    return count
