"""Video. Open a container: allowed formats and limits, its header, and the mapping of FFmpeg's errors to ours.

A file's format is determined by its content, never by its name. FFmpeg would open playlists,
image sequences and network protocols if a file's first bytes asked for it; an allow-list
restricts it to real video containers, read from the one object that is passed in.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import IO, Annotated, Any

import av
import av.error
from pydantic import Field

from featray.errors import ErrorCode, VideoError, counted
from featray.records import Count
from featray.video.ending import end_of_packets, missing_end
from featray.video.nvdec import check_nvdec, make_hwaccel
from featray.video.reader import Reader
from featray.video.sniff import sniff
from featray.video.structure import has_fragments
from featray.video.tone import transfer_name

ALLOWED_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,ogg,flv,asf"

MAX_STREAMS = 256
"""A recorded transponder has about a hundred streams; each costs about 0.8 MB before anything is decoded."""

_OPTIONS = {
    "format_whitelist": ALLOWED_FORMATS,
    # FFmpeg may read only the object that is passed in, whatever the file's content names.
    "protocol_whitelist": "none",
    "max_streams": str(MAX_STREAMS),
    # FFmpeg's defaults, set explicitly because they limit the reads and the memory of opening.
    "probesize": "5000000",
    "analyzeduration": "5000000",
    # PyAV makes FFmpeg generate missing times; in AVI with B-frames they are wrong.
    "fflags": "-genpts",
}

_ABSURD_DURATION_US = 100 * 365 * 86_400 * 1_000_000
_DISCARD = 0x2  # AVINDEX_DISCARD_FRAME: outside the edit list, decoded but never shown


_NAMED_STREAMS = 8

TimeBase = Annotated[str, Field(pattern="^[0-9]{1,10}/[1-9][0-9]{0,9}$")]


@dataclass(frozen=True)
class Header:
    """The header of a file. It may be wrong: counts and durations are only claims.

    Attributes:
        container: FFmpeg's name of the format, first of its synonyms, such as `mov`.
        codec: FFmpeg's name of the decoder, such as `h264`.
        time_base: seconds per tick of the stream's timestamps, as `num/den`; None for pictures without times.
        duration_us: duration of the stream, or else of the container; None if both are missing or absurd.
        frames_promised: number of shown frames in a complete index; None if there is no such index.
        frames_estimated: `frames_promised`, or an estimate from duration and rate; None if neither is known.
        transfer: transfer characteristic by FFmpeg's name; None only in records of older versions.
        other_streams: text that lists the unused video streams; None if there are none.
    """

    container: str
    codec: str
    time_base: TimeBase | None
    duration_us: Count | None
    frames_promised: Count | None
    frames_estimated: Count | None
    transfer: str | None = None
    other_streams: Annotated[str, Field(max_length=2000)] | None = None


@contextmanager
def open_video(
    file: IO[bytes], *, num_threads: int = 1, max_pixels: int | None = None, hwaccel: str = "none"
) -> Iterator[tuple[Any, Any]]:
    """Open a container and its main video stream.

    Args:
        file: seekable binary file; it is only read.
        num_threads: threads of the decoder. One by default, because parallelism comes from workers.
        max_pixels: frame area above which a video is refused, before and during decoding; None for FFmpeg's limit.
        hwaccel: `cuda` reconstructs pictures on the GPU; see nvdec.py.

    Yields:
        PyAV's container and stream.

    Raises:
        VideoError: it is not a video, has no video stream, is too large, or has a codec that this FFmpeg lacks.
        ModelError: the GPU is no longer usable.
    """
    reader = Reader(file)
    reader.size_bytes = end_of_packets(reader)
    limits = {"max_pixels": str(max_pixels)} if max_pixels else {}
    try:
        container = _open(reader, limits, hwaccel)
    except VideoError as error:
        if hwaccel != "none":
            check_nvdec()  # or a lost GPU would look like invalid videos
        raise _explained(reader, error) from None
    with container:
        try:
            stream = _main_video_stream(container)
        except VideoError as error:
            raise _explained(reader, error) from None
        if max_pixels:
            refuse_huge(*_size(file, stream), max_pixels)
        for other in container.streams:
            if other.index != stream.index:
                other.discard = av.stream.Discard.all
        stream.codec_context.thread_count = num_threads
        stream.codec_context.options = limits
        yield container, stream


def refuse_huge(width_px: int, height_px: int, max_pixels: int) -> None:
    """Refuse frames that are larger than allowed.

    Raises:
        VideoError: the frames are too large.
    """
    if width_px * height_px > max_pixels:
        text = f"frames of {width_px}x{height_px} px exceed decode.max_pixels ({max_pixels})"
        raise VideoError(text, code=ErrorCode.TOO_LARGE)


@contextmanager
def video_errors(doing: str) -> Iterator[None]:
    """Map FFmpeg's exceptions inside the block to VideoError; `doing` names the action for the message."""
    try:
        yield
    except (av.error.DecoderNotFoundError, av.error.PatchWelcomeError):
        raise VideoError(f"no decoder while {doing}", code=ErrorCode.UNSUPPORTED_CODEC) from None
    except av.error.MemoryError:
        if doing == "opening":  # FFmpeg raises it both for limits and for too large allocations
            text = f"a header that lists more than {MAX_STREAMS} streams, or asks for more memory than available"
            raise VideoError(text, code=ErrorCode.TOO_LARGE) from None
        raise VideoError(f"out of memory while {doing}", code=ErrorCode.OUT_OF_MEMORY) from None
    except av.error.FFmpegError as error:
        code = ErrorCode.NOT_A_VIDEO if doing == "opening" else ErrorCode.DECODE_FAILED
        raise VideoError(f"FFmpeg failed while {doing}: {error.strerror}", code=code) from None


def read_header(container: Any, stream: Any) -> Header:
    """Read the header of an opened video."""
    time_base = stream.time_base
    duration_us = None
    if stream.duration:
        duration_us = round(stream.duration * time_base * 1_000_000)
    elif container.duration:
        duration_us = int(container.duration)  # already in microseconds
    if duration_us is not None and not 0 < duration_us < _ABSURD_DURATION_US:
        duration_us = None
    rate = stream.average_rate or stream.guessed_rate
    by_rate = int(duration_us * rate / 1_000_000) if duration_us and rate else 0
    promised = _frames_in_index(container, stream)
    return Header(
        container=container.format.name.split(",")[0],
        codec=stream.codec_context.name,
        time_base=f"{time_base.numerator}/{time_base.denominator}",
        duration_us=duration_us,
        frames_promised=promised,
        frames_estimated=promised or max(stream.frames, by_rate, 0) or None,
        transfer=transfer_name(stream.codec_context.color_trc),
        other_streams=_other_streams(container, stream),
    )


def parse_time_base(text: str | None) -> Fraction:
    """Parse `Header.time_base`; without one, a tick is one picture."""
    return Fraction(text or 1)


def unread_tail(container: Any, stream: Any) -> str | None:
    """Return a text that says what is missing at the end of a file that was read to its end; None if nothing is."""
    name = container.format.name.split(",")[0]
    reader = container.file.file
    last = [s.index_entries[len(s.index_entries) - 1] for s in container.streams if len(s.index_entries)]
    landmark = 0
    if name == "mov":
        ends = [entry.pos + entry.size for entry in stream.index_entries if not entry.flags & _DISCARD]
        outside = sum(end > reader.size_bytes for end in ends)
        if outside:
            lost = f"{outside} of {counted(len(ends), 'frame')} in the index"
            return f"{lost} are beyond the end of the file, byte {reader.size_bytes}"
        if has_fragments(reader):
            landmark = max((entry.pos + entry.size for entry in last), default=0)
    elif name in ("matroska", "flv"):  # the index gives the positions of some clusters or tags
        landmark = max((entry.pos for entry in last), default=0)
    return missing_end(reader, name, landmark)


def _open(reader: Reader, options: dict[str, str], hwaccel: str = "none") -> Any:
    on_gpu = None if hwaccel == "none" else make_hwaccel()
    with video_errors("opening"):
        return av.open(reader, mode="r", options={**_OPTIONS, **options}, metadata_errors="replace", hwaccel=on_gpu)


def _size(file: IO[bytes], stream: Any) -> tuple[int, int]:
    """Return width and height as declared; open again without probing if the decoder's probe refused the size."""
    width, height = stream.codec_context.width, stream.codec_context.height
    if not width * height:
        with _open(Reader(file), {"probesize": "32", "analyzeduration": "1"}) as unprobed:
            declared = unprobed.streams[stream.index].codec_context
            width, height = declared.width, declared.height
    return width, height


def _video_streams(container: Any) -> list[Any]:
    """Return the video streams without still pictures such as cover art."""
    pictures = av.stream.Disposition.attached_pic | av.stream.Disposition.still_image
    return [stream for stream in container.streams.video if not stream.disposition & pictures]


def _other_streams(container: Any, stream: Any) -> str | None:
    found = []
    for other in _video_streams(container):
        context = other.codec_context
        size = f"{context.name} {context.width}x{context.height}" if context else "of an unknown codec"
        frames = (
            f", {counted(other.frames, 'frame')}" if other.frames else ""
        )  # not the duration: Matroska gives all streams that of the longest
        if other.index != stream.index:
            found.append(f"stream {other.index}: {size}{frames}")
    more = f"; {len(found) - _NAMED_STREAMS} more" if len(found) > _NAMED_STREAMS else ""
    return "; ".join(found[:_NAMED_STREAMS]) + more or None


def _main_video_stream(container: Any) -> Any:
    """Return the stream that a player would show: no cover art or poster; prefer marked, then long, then large ones."""
    streams = _video_streams(container)
    if not streams:
        raise VideoError("a media file without a video stream", code=ErrorCode.NO_VIDEO_STREAM)
    if all(stream.codec_context is None for stream in streams):
        raise VideoError("no decoder for its video stream", code=ErrorCode.UNSUPPORTED_CODEC)
    longest = max(map(_seconds, streams))

    def rank(stream: Any) -> tuple[object, ...]:
        context = stream.codec_context
        return (
            context is not None,
            stream.frames != 1,  # a single frame is a poster
            bool(stream.disposition & av.stream.Disposition.default),
            2 * _seconds(stream) >= longest,  # not `==`: two cameras rarely end at the same frame
            context.width * context.height if context else 0,
            -stream.index,
        )

    return max(streams, key=rank)


def _seconds(stream: Any) -> float:
    return float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0


def _frames_in_index(container: Any, stream: Any) -> int | None:
    """Return the number of shown frames in the index; None unless it is an mp4 without fragments.

    Only for those does the demuxer's index list every frame.
    """
    if "mp4" not in container.format.name.split(",") or has_fragments(container.file.file):
        return None
    return sum(not entry.flags & _DISCARD for entry in stream.index_entries) or None


def _explained(reader: Reader, error: VideoError) -> VideoError:
    """Return a failure to open with a better message, based on the file's first bytes and its end."""
    if error.code not in (ErrorCode.NOT_A_VIDEO, ErrorCode.NO_VIDEO_STREAM):
        return error
    kind = sniff(reader.read_at(0, 1024))
    if kind.container is None:
        return VideoError(kind.text, code=kind.code)
    missing = missing_end(reader, kind.container)
    if missing:
        return VideoError(f"cannot be opened: {missing}", code=ErrorCode.TRUNCATED)
    if error.code is ErrorCode.NOT_A_VIDEO:
        return VideoError(f"{kind.text} whose header cannot be read", code=ErrorCode.DECODE_FAILED)
    return error
