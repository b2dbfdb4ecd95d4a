"""Video. decord as a second backend: linear decoding only, and only where its frames can be vouched for.

Install it with `pip install featray[decord]`; either distribution of the module `decord` will do:
`decord` 0.6.0 (FFmpeg 4.1) or `decord2` (FFmpeg 8.1). PyAV opens the file first, so all limits and
refusals of `container.py` hold, and PyAV's packets give the times. What we measured on videos in
some hundred forms, with both distributions unless one is named:

* MPEG-TS: all frames are wrong but one. MPEG-PS: the same, or right frames without times. Refused.
* Edit lists: frames outside the list are shown, 98 instead of 95 in a clip of ours. Refused, by
  the number of frames.
* Mirrored video is not mirrored, and 0.6.0 does not turn Matroska. Refused.
* Times start at 0 whatever the stream says, and are beyond 64 bits for frames without a time.
  PyAV's are taken; a video whose packets do not give them (AVI with B-frames) is refused.
* No Ogg, no live Matroska, WebM or ASF; no AV1 in 0.6.0: `decord cannot open it`.
* Random access is wrong on open GOPs and edit lists, so a unit is decoded from the video's first
  frame on: cut long videos into few units (`decode.unit_frames`) with this backend.
* It stops at the first damaged packet, and the whole object is read into memory.
* It gives 8 bits without a word on HDR, whose tones cannot be mapped any more. Refused, unless
  `decode.tone_map` is off. Of pixels that are not square the container's word holds for all frames.
* Its colours differ from PyAV's where it minds neither the place of chroma nor interlacing: by up
  to 5 of 255 in 10 bits, by 1 to 4 on average in interlaced video. All else was identical.
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
"""Mean difference, of 255, up to which two first frames are one: chroma gives up to 4, other pictures over 20."""


def load_decord() -> Decoder:
    """The backend.

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
    """Decode with decord, one thread, from the video's first frame on.

    Raises:
        VideoError: the file cannot be opened, or is of a form in which decord's frames are wrong.
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
        text = "decord gives no HDR to map tones of; set decode.backend to pyav, or decode.tone_map to off"
        raise VideoError(text, code=ErrorCode.UNSUPPORTED_CONTAINER)
    # A range of frames comes of times that are not trusted, and those were refused.
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
    """All frames as decord gives them, uint8 RGB and turned upright."""
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
