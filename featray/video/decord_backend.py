"""Video. decord as a second backend: linear decoding only, and only for files whose frames are known to be right.

Install it with `pip install featray[decord]`. Either distribution of the module `decord` works:
`decord` 0.6.0 (FFmpeg 4.1) or `decord2` (FFmpeg 8.1). PyAV opens the file first, so all limits and
refusals of `container.py` apply, and PyAV's packets give the times. We measured the following on
videos in about a hundred forms, with both distributions unless one is named:

* MPEG-TS: all frames but one are wrong. MPEG-PS: the same, or right frames without times. Refused.
* Edit lists: frames outside the list are shown, 98 instead of 95 in one of our clips. Refused
  because the number of frames differs.
* Mirrored video is not mirrored, and 0.6.0 does not rotate Matroska. Refused.
* Times start at 0 whatever the stream says, and exceed 64 bits for frames without a time. PyAV's
  times are used; a video whose packets have none (AVI with B-frames) is refused.
* No Ogg, no live Matroska, WebM or ASF; no AV1 in 0.6.0: `decord cannot open it`.
* Random access is wrong on open GOPs and edit lists, so each unit is decoded from the video's
  first frame: with this backend, cut long videos into few units (`decode.unit_frames`).
* It stops at the first damaged packet, and reads the whole object into memory.
* It converts HDR to 8 bits without a warning, so tones cannot be mapped. Refused, unless
  `decode.tone_map` is off. For non-square pixels the container's aspect ratio applies to all frames.
* Its colours differ from PyAV's because it ignores chroma location and interlacing: by up to 5 of
  255 in 10 bits, by 1 to 4 on average in interlaced video. All other videos were identical.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

import av
import numpy as np

from featray.config import DecodeConfig
from featray.errors import ConfigError, ErrorCode, VideoError, counted
from featray.video.container import open_video, refuse_huge
from featray.video.decode import DecodeAccount, Decoder, decode_pyav
from featray.video.frame import Frame
from featray.video.scan import PacketIndex, scan_packets
from featray.video.shape import SQUARE, square_size
from featray.video.tone import ToneMap
from featray.video.units import WHOLE_VIDEO, Sampler, Unit

_WRONG_FRAMES = frozenset({"mpegts", "mpeg", "mpegvideo"})
_SAME_PICTURE = 12.0
"""Mean difference, of 255, up to which two first frames count as equal: chroma causes up to 4, other pictures over
20."""


def load_decord() -> Decoder:
    """Load the backend.

    Raises:
        ConfigError: decord is not installed.
    """
    try:
        import decord
    except ImportError:
        raise ConfigError("decode.backend: decord is not installed; pip install featray[decord]") from None
    decord.logging.set_level(decord.logging.QUIET)
    return decode_decord


def decode_decord(
    file: IO[bytes], unit: Unit, settings: DecodeConfig, account: DecodeAccount, stride: int = 1
) -> Iterator[Frame]:
    """Decode with decord, in one thread, from the video's first frame on.

    Raises:
        VideoError: the file cannot be opened, or has a form for which decord's frames are wrong.
    """
    as_stored = DecodeConfig(max_pixels=settings.max_pixels, tone_map="off", square_pixels="off")
    first = next(decode_pyav(file, WHOLE_VIDEO[0], as_stored, DecodeAccount()), None)
    with open_video(file, max_pixels=settings.max_pixels) as (container, stream):
        name = container.format.name.split(",")[0]
        index, time_base = scan_packets(container, stream), stream.time_base
        sar = stream.sample_aspect_ratio or SQUARE
    turned_wrong = first is not None and (first.mirrored or (first.rotation_degrees and name != "mov"))
    if first is None or name in _WRONG_FRAMES or turned_wrong or not index.trusted:
        text = f"decord gives wrong frames or times for this form of {name}; set decode.backend to pyav"
        raise VideoError(text, code=ErrorCode.UNSUPPORTED_CONTAINER)
    if settings.tone_map == "auto" and ToneMap.of(first.picture):
        text = "decord does not decode HDR for tone mapping; set decode.backend to pyav, or decode.tone_map to off"
        raise VideoError(text, code=ErrorCode.UNSUPPORTED_CONTAINER)
    # Units that are ranges of frames come from untrusted times, which were refused above.
    end = len(index.pts) if unit.end_pts is None else int(np.searchsorted(index.pts, unit.end_pts))
    sampler = Sampler(settings.sample, time_base, unit)
    for i, image in enumerate(_images(file, index, first)):
        if i < unit.first_index:
            continue
        if i == end and stride == 1:
            return
        pts = int(index.pts[i])
        height_px, width_px = image.shape[:2]
        if settings.square_pixels == "auto":
            upright = 1 / sar if first.rotation_degrees in (90, 270) else sar
            width_px, height_px = square_size(width_px, height_px, upright)
            refuse_huge(width_px, height_px, settings.max_pixels)
        pts_us = round(pts * time_base * 1_000_000)
        picture = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame = Frame(i, pts_us, bool(index.keyframe[i]), width_px, height_px, 0, False, picture, beyond=i == end)
        if frame.beyond:
            yield frame
            return
        account.note_frame(frame, sar, first.picture.color_trc)
        account.rotation_degrees = first.rotation_degrees
        if sampler.takes(i, pts):
            yield frame


def _images(file: IO[bytes], index: PacketIndex, first: Frame) -> Iterator[Any]:
    """Yield all frames as decord returns them, uint8 RGB, upright."""
    import decord

    file.seek(0)
    try:
        reader = decord.VideoReader(file, ctx=decord.cpu(0), num_threads=1)
        frames = len(reader)
    except decord.DECORDError:
        raise VideoError("decord cannot open it", code=ErrorCode.UNSUPPORTED_CONTAINER) from None
    if frames != len(index.pts):
        text = (
            f"decord gives {counted(frames, 'frame')} where the file shows {len(index.pts)}; set decode.backend to pyav"
        )
        raise VideoError(text, code=ErrorCode.UNSUPPORTED_CONTAINER)
    for i in range(frames):
        try:
            image = reader.next().asnumpy()
        except (decord.DECORDError, StopIteration):
            raise VideoError(f"decord stopped at frame {i} of {frames}", code=ErrorCode.DECODE_FAILED) from None
        if i == 0:
            _refuse_other_picture(image, first.rgb())
        yield image


def _refuse_other_picture(image: Any, expected: Any) -> None:
    if image.shape != expected.shape or np.abs(image.astype(np.int16) - expected).mean() > _SAME_PICTURE:
        text = "decord's first frame is not the video's, or not upright; set decode.backend to pyav"
        raise VideoError(text, code=ErrorCode.UNSUPPORTED_CONTAINER)
