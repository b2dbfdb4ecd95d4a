"""Video. Which H.264 packets decoding can begin at and give the very same pictures from there on.

FFmpeg and containers call a packet a keyframe if it holds any recovery point. One that says
"right again some frames later" (intra refresh) gives pictures that are patched up until then,
and FFmpeg's count of those frames wraps. So the packet itself is asked.
"""

from __future__ import annotations

from collections.abc import Iterator

_SLICE, _IDR_SLICE, _SEI = 1, 5, 6
_RECOVERY_POINT = 6  # an SEI payload type


def starts_exactly(packet: bytes, extradata: bytes | None) -> bool:
    """Return whether the packet is an IDR picture, or a recovery point that needs no frame to recover.

    Args:
        packet: of a stream whose keyframe flag is set.
        extradata: of its codec; says whether units are preceded by lengths or by start codes.
    """
    recovers_at_once = False
    for unit in _units(packet, extradata):
        kind = unit[0] & 31
        if kind == _IDR_SLICE:
            return True
        if kind == _SLICE:
            return recovers_at_once
        if kind == _SEI:
            recovers_at_once = recovers_at_once or _recovers_at_once(unit[1:])
    return False


def _units(packet: bytes, extradata: bytes | None) -> Iterator[bytes]:
    if extradata and len(extradata) > 4 and extradata[0] == 1:  # avcC: lengths of this many bytes
        size = (extradata[4] & 3) + 1
        at = 0
        while at + size < len(packet):
            length = int.from_bytes(packet[at : at + size], "big")
            if length:
                yield packet[at + size : at + size + length]
            at += size + length
        return
    for unit in packet.split(b"\x00\x00\x01")[1:]:
        if unit:
            yield unit


def _recovers_at_once(sei: bytes) -> bool:
    data = sei.replace(b"\x00\x00\x03", b"\x00\x00")
    at = 0
    while at < len(data) - 2:
        kind, at = _ff_coded(data, at)
        size, at = _ff_coded(data, at)
        if kind == _RECOVERY_POINT and at < len(data):
            return bool(data[at] & 0x80)  # recovery_frame_cnt is exp-Golomb coded: a leading one bit is 0
        at += size
    return False


def _ff_coded(data: bytes, at: int) -> tuple[int, int]:
    """A number that SEI writes as some bytes of 255 and one that is less; and the position behind it."""
    value = 0
    while at < len(data) and data[at] == 255:
        value, at = value + 255, at + 1
    return (value + data[at], at + 1) if at < len(data) else (value, at)
