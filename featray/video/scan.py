"""Video. List a video's packets without decoding them, and decide whether their times can be trusted.

Units are cut by these times, so they must be those of the decoded frames, one for one. Containers
do not guarantee that: AVI has no times for B-frames, a concatenated transport stream restarts its
clock, an H.264 frame may come in two packets, a VP8 packet may show nothing. If the times cannot
be proven right, the video is cut by counting frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import av.error
import numpy as np
from numpy.typing import NDArray

from featray.errors import ErrorCode, VideoError
from featray.video.clock import latest_ticks
from featray.video.h264 import starts_exactly
from featray.video.structure import has_fragments

_REHEARSED_PACKETS = 40
"""Packets to decode for comparing times: more than any decoder delays, and more than the usual alt-ref distance."""

_KEYFRAMES_SEEN = 3

_INDEX_KEYFRAME = 0x1  # AVINDEX_KEYFRAME

_MAX_NVOP_BYTES = 19
"""MPEG-4 packets up to this size may be "not coded": time passes but nothing is shown. This is FFmpeg's limit."""


@dataclass(frozen=True)
class PacketIndex:
    """Presentation times of a whole stream, from its packets, without decoding.

    Attributes:
        pts: int64 `[n]`, ascending times of the shown packets, in stream ticks; zeros, one per packet, if `trusted` is
            false.
        keyframe: bool `[n]`, whether decoding can start there.
        leading: bool `[n]`, whether a frame is stored after a keyframe that is shown later, so that decoding from
            that keyframe does not produce it.
        trusted: whether these are, one for one, the times of the frames of a full decode.
    """

    pts: NDArray[np.int64]
    keyframe: NDArray[np.bool_]
    leading: NDArray[np.bool_]
    trusted: bool


def scan_packets(container: Any, stream: Any) -> PacketIndex:
    """Read every packet of the stream once, from the start, and decode the first few.

    For an mp4 without fragments, only its index and its start are fetched.

    Raises:
        VideoError: the packets cannot be read.
    """
    pts: list[int | None] = []
    keyframe: list[bool] = []
    rehearsed: list[int | None] = []
    reader = container.file.file
    may_be_hollow = "mp4" in container.format.name.split(",") and not has_fragments(reader)
    indexed_keyframes: set[int] = set()
    packets = keyframes_seen = 0
    try:
        for packet in read_packets(container, stream):
            # Without the bytes FFmpeg marks no packet as a keyframe, so use the index.
            exact = packet.pos in indexed_keyframes if reader.hollow else starts_decoding(packet, stream)
            packets += bool(packet.size)
            keyframes_seen += packet.is_keyframe
            # The index's keyframes are trusted after the first ones were verified.
            may_be_hollow = may_be_hollow and (reader.hollow or exact == packet.is_keyframe)
            if len(pts) < _REHEARSED_PACKETS:
                rehearsed += _decoded_pts(packet)
            elif may_be_hollow and not reader.hollow and keyframes_seen >= _KEYFRAMES_SEEN:
                reader.hollow = True
                indexed_keyframes = {entry.pos for entry in stream.index_entries if entry.flags & _INDEX_KEYFRAME}
            if is_shown(packet, stream):
                pts.append(packet.pts)
                keyframe.append(exact)
    except av.error.FFmpegError as error:
        if not pts:
            raise VideoError(f"no packet can be read: {error.strerror}", code=ErrorCode.DECODE_FAILED) from None
    finally:
        reader.hollow = False
    latest = latest_ticks(stream.time_base)
    if any(time is not None and abs(time) > latest for time in pts):
        return _untrusted(packets)  # `Clock` gives these pictures other times
    return _index(pts, keyframe, rehearsed) or _untrusted(packets)


def read_packets(container: Any, stream: Any) -> Iterator[Any]:
    """Yield the packets of the stream from here on, ending with an empty one that drains the decoder.

    Raises:
        av.error.FFmpegError: the container is damaged; no packets follow.
    """
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except IndexError:
            return  # raised by PyAV at the end if damage made a new stream appear
        if packet is None:
            return
        yield packet


def starts_decoding(packet: Any, stream: Any) -> bool:
    """Return whether decoding from this packet on gives exactly the pictures of a full decode."""
    if not packet.is_keyframe or not packet.size:
        return False
    context = stream.codec_context
    return context.name != "h264" or starts_exactly(bytes(packet), context.extradata)


def is_shown(packet: Any, stream: Any) -> bool:
    """Return whether the packet produces a shown frame; False outside the edit list or without a picture."""
    if not packet.size or packet.is_discard:
        return False
    if stream.codec_context.name == "vp8":
        return bool(bytes(memoryview(packet)[:1])[0] & 0x10)  # the show_frame bit; alt-ref frames lack it
    return not (stream.codec_context.name == "mpeg4" and packet.size <= _MAX_NVOP_BYTES)


def _decoded_pts(packet: Any) -> list[int | None]:
    try:
        return [picture.pts for picture in packet.decode()]
    except av.error.FFmpegError:
        return [None]  # damage: nothing is proven


def _index(pts: list[int | None], keyframe: list[bool], rehearsed: list[int | None]) -> PacketIndex | None:
    # Packets after the last keyframe may lack a time (in MPEG-PS the last one does), because no unit starts there.
    while pts and pts[-1] is None and not keyframe[len(pts) - 1]:
        pts.pop()
    times = np.asarray([time for time in pts if time is not None], np.int64)
    keys = np.asarray(keyframe[: len(pts)], np.bool_)
    first = rehearsed[0] if rehearsed else None
    if len(times) != len(pts) or not rehearsed or first is None or not _gops_follow(times, keys):
        return None
    order = np.argsort(times, kind="stable")
    # A recording that starts within a GOP has packets that no decoder can show.
    order = order[times[order] >= first]
    times, keys = times[order], keys[order]
    if times[: len(rehearsed)].tolist() != rehearsed:
        return None
    return PacketIndex(times, keys, _leading(order, keys), trusted=True)


def _untrusted(number: int) -> PacketIndex:
    none = np.zeros(number, np.bool_)
    return PacketIndex(np.zeros(number, np.int64), none, none, trusted=False)


def _gops_follow(times: NDArray[np.int64], keys: NDArray[np.bool_]) -> bool:
    """Return whether times are unique and, in file order, every packet is between its neighbouring keyframes."""
    if len(np.unique(times)) != len(times):
        return False
    at = np.flatnonzero(keys)
    if not len(at) or (np.diff(times[at]) <= 0).any():
        return False
    gop = np.cumsum(keys) - 1  # -1: before the first keyframe
    bounds = np.concatenate([[np.iinfo(np.int64).min] * 2, times[at], [np.iinfo(np.int64).max]])
    return bool(((times > bounds[gop + 1]) & (times < bounds[gop + 3])).all())


def _leading(order: NDArray[np.int64], keys: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return, in presentation order, whether a keyframe that is shown later is stored earlier in the file."""
    positions = np.where(keys, order, np.iinfo(np.int64).max)
    earliest_after = np.minimum.accumulate(positions[::-1])[::-1]
    return earliest_after < order
