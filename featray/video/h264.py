"""Video. Find the H.264 packets from which decoding gives exactly the pictures of a full decode.

FFmpeg and containers call a packet a keyframe if it has any recovery point. A recovery point
that takes some frames (intra refresh) gives incomplete pictures until then, and FFmpeg's count
of those frames wraps. Therefore the packet itself is parsed.
"""

from __future__ import annotations

from collections.abc import Iterator

_SLICE, _IDR_SLICE, _SEI = 1, 5, 6
_RECOVERY_POINT = 6  # an SEI payload type


def starts_exactly(packet: bytes, extradata: bytes | None) -> bool:
    """Return whether the packet is an IDR picture, or a recovery point that needs no frame to recover.

    Args:
        packet: a packet whose keyframe flag is set.
        extradata: the codec's extradata, which determines whether units have length prefixes or start codes.
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
    """Return a number coded in SEI as bytes of 255 and a last smaller byte, and the position after it."""
    value = 0
    while at < len(data) and data[at] == 255:
        value, at = value + 255, at + 1
    return (value + data[at], at + 1) if at < len(data) else (value, at)
