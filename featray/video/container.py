"""Opening a container: which kinds, how its header reads, how FFmpeg's errors map to ours.

A file is judged by its content, never by its name. FFmpeg would open playlists, image
sequences and network protocols if a file's first bytes asked for it; the allow-list here
keeps it to real containers of video, read from the one object that we hand it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import IO, Any

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from featray.errors import ErrorCode, VideoError

ALLOWED_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,ogg,flv,asf"

_DISCARD = 0x2  # AV_PKT_FLAG_DISCARD: outside the edit list, decoded but never shown


@dataclass(frozen=True)
class Header:
    """What a file's header says. It may lie: counts and durations are promises.

    Attributes:
        container: FFmpeg's name of the format, first of its synonyms, such as `mov`.
        codec: FFmpeg's name of the decoder, such as `h264`.
        time_base: seconds a tick of the stream's timestamps, as `num/den`.
        duration_us: of the stream if it says so, else of the container; None if neither does.
        frames_promised: frames that the index says will be shown; None where there is no index.
        frames_estimated: from the promise, or duration and rate; None where neither is known.
    """

    container: str
    codec: str
    time_base: str
    duration_us: int | None
    frames_promised: int | None
    frames_estimated: int | None


@dataclass(frozen=True)
class PacketIndex:
    """Presentation times of a whole stream, from its packets, without decoding.

    Attributes:
        pts: int64 `[n]`, ascending, in stream ticks; packets that are never shown are left out.
        keyframe: bool `[n]`, whether decoding can start there.
    """

    pts: NDArray[np.int64]
    keyframe: NDArray[np.bool_]


@contextmanager
def open_video(file: IO[bytes], *, num_threads: int = 1) -> Iterator[tuple[Any, Any]]:
    """Open a container and its first real video stream.

    Args:
        file: seekable binary file; only ever read.
        num_threads: of the decoder. One: a machine is filled by workers, not by threads of one.

    Yields:
        PyAV's container and stream.

    Raises:
        VideoError: not a video, no video stream, or a codec that this FFmpeg lacks.
    """
    with video_errors("opening"):
        container = av.open(file, mode="r", options={"format_whitelist": ALLOWED_FORMATS}, metadata_errors="replace")
    with container:
        stream = _first_video_stream(container)
        stream.codec_context.thread_count = num_threads
        yield container, stream


@contextmanager
def video_errors(doing: str) -> Iterator[None]:
    """Map what FFmpeg raises inside the block to VideoError; `doing` says what was tried."""
    try:
        yield
    except (av.error.InvalidDataError, av.error.EOFError):
        code = ErrorCode.NOT_A_VIDEO if doing == "opening" else ErrorCode.DECODE_FAILED
        text = "the bytes are no video that FFmpeg knows" if doing == "opening" else f"damaged data while {doing}"
        raise VideoError(text, code=code) from None
    except (av.error.DecoderNotFoundError, av.error.PatchWelcomeError):
        raise VideoError(f"no decoder while {doing}", code=ErrorCode.UNSUPPORTED_CODEC) from None
    except av.error.MemoryError:
        raise VideoError(f"out of memory while {doing}", code=ErrorCode.OUT_OF_MEMORY) from None
    except av.error.FFmpegError as error:
        raise VideoError(f"FFmpeg failed while {doing}: {error.strerror}", code=ErrorCode.DECODE_FAILED) from None


def read_header(container: Any, stream: Any) -> Header:
    """The header of an opened video."""
    time_base = stream.time_base
    duration_us = None
    if stream.duration:
        duration_us = round(stream.duration * time_base * 1_000_000)
    elif container.duration:
        duration_us = int(container.duration)  # already in microseconds
    promised = sum(not entry.flags & _DISCARD for entry in stream.index_entries) if _index_is_complete(container) else 0
    rate = stream.average_rate or stream.guessed_rate
    estimated = promised or stream.frames
    if not estimated and duration_us and rate:
        estimated = int(duration_us * rate / 1_000_000)
    return Header(
        container=container.format.name.split(",")[0],
        codec=stream.codec_context.name,
        time_base=f"{time_base.numerator}/{time_base.denominator}",
        duration_us=duration_us,
        frames_promised=promised or None,
        frames_estimated=estimated or None,
    )


def scan_packets(container: Any, stream: Any) -> PacketIndex:
    """Read every packet of the stream once, without decoding any."""
    pts: list[int] = []
    keyframe: list[bool] = []
    with video_errors("reading packets"):
        for packet in container.demux(stream):
            if packet.pts is not None and packet.size and not packet.is_discard:
                pts.append(packet.pts)
                keyframe.append(packet.is_keyframe)
    order = np.argsort(np.asarray(pts, np.int64), kind="stable")
    return PacketIndex(np.asarray(pts, np.int64)[order], np.asarray(keyframe, np.bool_)[order])


def parse_time_base(text: str) -> Fraction:
    """The inverse of `Header.time_base`."""
    return Fraction(text)


def _first_video_stream(container: Any) -> Any:
    for stream in container.streams.video:
        if stream.disposition & av.stream.Disposition.attached_pic:
            continue  # cover art
        if stream.codec_context is None:
            raise VideoError("no decoder for its video stream", code=ErrorCode.UNSUPPORTED_CODEC)
        return stream
    raise VideoError("a media file without a video stream", code=ErrorCode.NO_VIDEO_STREAM)


def _index_is_complete(container: Any) -> bool:
    """Whether the demuxer's index lists every frame; only in (not fragmented) mp4 does it."""
    return "mp4" in container.format.name.split(",")
