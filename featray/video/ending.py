"""Video. Detect files that end before their own structure says they should.

FFmpeg reads a truncated file to its end without an error. Therefore each container's structure
is checked for where the file should end. Only a few bytes near the start and the end are read.
Some truncations cannot be detected: MPEG-TS or MPEG-PS cut between two packets, and live Matroska
cut between two blocks, look like recordings that were stopped.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from featray.video.reader import Reader
from featray.video.structure import (
    MP4_BOXES,
    SEGMENT,
    flv_tags,
    matroska_element,
    matroska_elements,
    mp4_boxes,
    transport_layout,
)

_TAIL_BYTES = 256 * 1024
_MOST_PADDING_BYTES = 64 << 20


def missing_end(reader: Reader, container: str, landmark: int = 0) -> str | None:
    """Return a text that says what is missing at a file's end; None if nothing is missing or it cannot be determined.

    Args:
        reader: the file.
        container: FFmpeg's name of the format, first of its synonyms.
        landmark: a position near the end from which the structure can be followed, for files with
            many parts: the byte after the last packet of an mp4 with fragments, the last known
            cluster of a Matroska, the last known tag of an FLV. 0 follows it from the start.
    """
    if container == "mov":
        return _mp4(reader, landmark)
    if container == "matroska":
        return _matroska(reader, landmark)
    if container == "flv":
        return _flv(reader, landmark)
    check = _CHECKS.get(container)
    return check(reader) if check else None


def end_of_packets(reader: Reader) -> int:
    """Return where the packets of an MPEG-TS with trailing zeros end; the file's end for other files.

    Recorders that reserve space leave such zeros. FFmpeg would take the last packet before them as damaged.
    """
    size = reader.size_bytes
    if (layout := transport_layout(reader)) is None or any(reader.read_at(size - 1, 1)):
        return size
    end = size
    while end > 0 and size - end < _MOST_PADDING_BYTES:
        start = max(0, end - _TAIL_BYTES)
        if block := reader.read_at(start, end - start).rstrip(b"\0"):
            first = layout.offset - layout.lead
            packets = -(-(start + len(block) - first) // layout.length)
            return min(size, first + packets * layout.length)
        end = start
    return size


def _short(reader: Reader, end: int, what: str) -> str | None:
    if end <= reader.size_bytes:
        return None
    return f"{what} should end at byte {end}, the file ends at byte {reader.size_bytes}"


def _mp4(reader: Reader, start: int) -> str | None:
    end, kind, seen = start, b"", set()
    for position, kind, size in mp4_boxes(reader, start, MP4_BOXES):
        end = position + size
        seen.add(kind)
    if start == 0 and end < reader.size_bytes and not seen & {b"moov", b"moof"}:
        return None
    if 0 < reader.size_bytes - end < 8 and seen:
        return f"half a box header at the end, byte {end}"
    return _short(reader, end, f"the {kind.decode('latin-1')} box")


def _matroska(reader: Reader, landmark: int) -> str | None:
    header = matroska_element(reader, 0)
    segment = matroska_element(reader, header[1] + header[2]) if header and header[2] is not None else None
    if segment is None or segment[0] != SEGMENT:
        return None
    segment_end = None if segment[2] is None else segment[1] + segment[2]
    if segment_end and segment_end > reader.size_bytes:
        return _short(reader, segment_end, "the Matroska segment")
    # Live streams have no size, and elements with damaged sizes hide the elements after them.
    end = landmark or segment[1]
    for _, content, size in matroska_elements(reader, end):
        end = content + size
    if end < (segment_end or reader.size_bytes):
        return f"no Matroska element at byte {end}, where one should be"
    return _short(reader, end, "the last Matroska block") if segment_end is None else None


def _avi(reader: Reader) -> str | None:
    position, end = 0, 0
    while (head := reader.read_at(position, 12))[:4] == b"RIFF" and head[8:12] in (b"AVI ", b"AVIX"):
        size = int.from_bytes(head[4:8], "little")
        if size in (0, 0xFFFFFFFF):  # written to a pipe: the size was never filled in
            return None
        end = position + 8 + size
        position = end + size % 2
    return _short(reader, end, "the AVI")


def _flv(reader: Reader, landmark: int) -> str | None:
    head = reader.read_at(0, 4096)
    mark = head.find(b"\x00\x08filesize\x00")
    if 0 <= mark <= len(head) - 19:
        promised = struct.unpack_from(">d", head, mark + 11)[0]
        if 0 < promised < 2**53 and (short := _short(reader, int(promised), "the FLV")):
            return short
    end = landmark or int.from_bytes(head[5:9], "big") + 4
    end = max((behind for _, behind in flv_tags(reader, end)), default=end)
    if end < reader.size_bytes:
        return f"no whole FLV tag at byte {end}, where one should be; the file ends at byte {reader.size_bytes}"
    return None


def _ogg(reader: Reader) -> str | None:
    start = max(0, reader.size_bytes - _TAIL_BYTES)
    tail = reader.read_at(start, _TAIL_BYTES)
    at = tail.rfind(b"OggS")
    if at < 0:
        return None
    segments = tail[at + 26] if at + 26 < len(tail) else 0
    length = 27 + segments + sum(tail[at + 27 : at + 27 + segments])
    if at + max(length, 28) > len(tail):
        return f"the last Ogg page, at byte {start + at}, is incomplete"
    page = tail[at : at + length]
    if _ogg_checksum(page[:22] + bytes(4) + page[26:]) != int.from_bytes(page[22:26], "little"):
        return f"the last Ogg page, at byte {start + at}, is damaged"
    if not tail[at + 5] & 4:
        return f"the last Ogg page, at byte {start + at}, is not marked as the end of its stream"
    return None


def _ogg_checksum(page: bytes) -> int:
    """Return Ogg's CRC-32: polynomial 0x04c11db7, not reflected (RFC 3533)."""
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1) ^ (0x04C11DB7 if crc & 0x80000000 else 0)
        crc &= 0xFFFFFFFF
    return crc


def _asf(reader: Reader) -> str | None:
    head = reader.read_at(0, 64 * 1024)
    at = head.find(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365"))
    if at < 0 or at + 100 > len(head):
        return None
    if not head[at + 88] & 1:
        return _short(reader, struct.unpack_from("<Q", head, at + 40)[0], "the ASF")
    # Live recordings have no size, but consist of packets of equal size, followed by at most an index.
    length = max(1, struct.unpack_from("<I", head, at + 92)[0])
    start = max(0, reader.size_bytes - _TAIL_BYTES)
    index = reader.read_at(start, _TAIL_BYTES).rfind(bytes.fromhex("90080033b1e5cf1189f400a0c90349cb"))
    end = reader.size_bytes if index < 0 else start + index
    rest = (end - struct.unpack_from("<Q", head, 16)[0] - 50) % length
    return f"the last ASF packet has {rest} of {length} bytes" if rest else None


def _mpegts(reader: Reader) -> str | None:
    layout = transport_layout(reader)
    if layout is None:
        return None
    rest = (reader.size_bytes - layout.offset + layout.lead) % layout.length
    return f"the last transport packet has {rest} of {layout.length} bytes" if rest else None


def _mpegps(reader: Reader) -> str | None:
    start = max(0, reader.size_bytes - _TAIL_BYTES)
    tail = reader.read_at(start, _TAIL_BYTES)
    at = tail.find(b"\x00\x00\x01\xba")
    while 0 <= at <= len(tail) - 6:
        if tail[at : at + 3] != b"\x00\x00\x01":
            return None
        kind = tail[at + 3]
        if kind == 0xB9:
            return None
        if kind != 0xBA:
            at += 6 + int.from_bytes(tail[at + 4 : at + 6], "big")
        elif tail[at + 4] >> 6 == 1:  # MPEG-2
            at += 14 + (tail[at + 13] & 7 if at + 13 < len(tail) else 0)
        else:
            at += 12
    if at < 0 or at == len(tail):
        return None
    return f"the last pack is incomplete, the file ends at byte {reader.size_bytes}"


_CHECKS: dict[str, Callable[[Reader], str | None]] = {
    "avi": _avi,
    "ogg": _ogg,
    "asf": _asf,
    "mpegts": _mpegts,
    "mpeg": _mpegps,
}
