"""Whether a file ends before its own structure says that it should.

FFmpeg reads a shortened file to its end and calls that success. So each container is asked
in its own words where it should end. Only a few bytes are read, near the start and the end.
What says nothing of its end cannot be found short: MPEG-TS or MPEG-PS cut between two
packets, live Matroska cut between two blocks, and live ASF, look like recordings that were stopped.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable

from featray.video.reader import Reader

_MP4_BOXES = frozenset(
    b"ftyp moov mdat free skip wide moof mfra sidx ssix styp uuid meta pnot udta emsg prft pdin junk".split()
)
_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675  # Matroska's element ids
_TAIL_BYTES = 256 * 1024


def missing_end(reader: Reader, container: str, landmark: int = 0) -> str | None:
    """In words, what is missing at a file's end; None if nothing is, or if nothing can be said.

    Args:
        reader: the file.
        container: FFmpeg's name of the format, first of its synonyms.
        landmark: a position near the end from where the structure can be followed, for files that
            have many parts: the byte after the last packet of an mp4 with fragments, the last known
            cluster of a live Matroska. 0 follows it from the start.
    """
    if container == "mov":
        return _mp4(reader, landmark)
    if container == "matroska":
        return _matroska(reader, landmark)
    check = _CHECKS.get(container)
    return check(reader) if check else None


def has_fragments(reader: Reader) -> bool:
    """Whether an mp4 file holds fragments, whose packets no single index lists."""
    for position, kind, size in _mp4_boxes(reader, 0):
        if kind == b"moof":
            return True
        # Fragments may follow later than we can see; the movie box says that they may.
        if kind == b"moov" and b"mvex" in reader.read_at(position, min(size, 16 << 20)):
            return True
    return False


def _short(reader: Reader, end: int, what: str) -> str | None:
    if end <= reader.size_bytes:
        return None
    return f"{what} should end at byte {end}, the file ends at byte {reader.size_bytes}"


def _mp4_boxes(reader: Reader, start: int) -> Iterable[tuple[int, bytes, int]]:
    """Position, type and size of the boxes from `start` on, as long as they are known ones."""
    position = start
    while True:
        head = reader.read_at(position, 16)
        if len(head) < 8 or head[4:8] not in _MP4_BOXES:
            return
        size = int.from_bytes(head[:4], "big")
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        elif size == 0:
            size = reader.size_bytes - position
        if size < 8:
            return
        yield position, head[4:8], size
        position += size


def _mp4(reader: Reader, start: int) -> str | None:
    end, kind, seen = start, b"", set()
    for position, kind, size in _mp4_boxes(reader, start):
        end = position + size
        seen.add(kind)
    if start == 0 and end < reader.size_bytes and not seen & {b"moov", b"moof"}:
        return None
    if 0 < reader.size_bytes - end < 8 and seen:
        return f"half a box header stands at the end, byte {end}"
    return _short(reader, end, f"the {kind.decode('latin-1')} box")


def _vint(data: bytes, *, keep_marker: bool) -> tuple[int | None, int]:
    """An EBML number and its length in bytes; None for the reserved value "unknown"."""
    if not data or not data[0]:
        return None, 0
    length = 9 - data[0].bit_length()
    value = int.from_bytes(data[:length], "big")
    if keep_marker:
        return value, length
    value &= (1 << 7 * length) - 1
    return (None if value == (1 << 7 * length) - 1 else value), length


def _matroska_element(reader: Reader, position: int) -> tuple[int, int, int | None] | None:
    """Id, position of the content and its size (None: unknown) of the element at a position."""
    head = reader.read_at(position, 12)
    identity, id_length = _vint(head, keep_marker=True)
    size, size_length = _vint(head[id_length:], keep_marker=False)
    if identity is None or not size_length or len(head) < id_length + size_length:
        return None
    return identity, position + id_length + size_length, size


def _matroska(reader: Reader, landmark: int) -> str | None:
    header = _matroska_element(reader, 0)
    segment = _matroska_element(reader, header[1] + header[2]) if header and header[2] is not None else None
    if segment is None or segment[0] != _SEGMENT:
        return None
    if segment[2] is not None:
        return _short(reader, segment[1] + segment[2], "the Matroska segment")
    # A live stream: no size was filled in. A cluster without a size is entered, all else is stepped over.
    end = landmark or segment[1]
    while element := _matroska_element(reader, end):
        if element[2] is None and element[0] != _CLUSTER:
            return None
        end = element[1] + (element[2] or 0)
    return _short(reader, end, "the last Matroska block")


def _avi(reader: Reader) -> str | None:
    position, end = 0, 0
    while (head := reader.read_at(position, 12))[:4] == b"RIFF" and head[8:12] in (b"AVI ", b"AVIX"):
        size = int.from_bytes(head[4:8], "little")
        if size in (0, 0xFFFFFFFF):  # written to a pipe: the size was never filled in
            return None
        end = position + 8 + size
        position = end + size % 2
    return _short(reader, end, "the AVI")


def _flv(reader: Reader) -> str | None:
    head = reader.read_at(0, 4096)
    mark = head.find(b"\x00\x08filesize\x00")
    if 0 <= mark <= len(head) - 19:
        promised = struct.unpack_from(">d", head, mark + 11)[0]
        if 0 < promised < 2**53 and (short := _short(reader, int(promised), "the FLV")):
            return short
    size = int.from_bytes(reader.read_at(reader.size_bytes - 4, 4), "big")
    tag = reader.read_at(reader.size_bytes - 4 - size, 4)
    if tag[:1] in (b"\x08", b"\x09", b"\x12") and int.from_bytes(tag[1:4], "big") + 11 == size:
        return None
    return f"the last FLV tag is incomplete, the file ends at byte {reader.size_bytes}"


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
    if not tail[at + 5] & 4:
        return f"the last Ogg page, at byte {start + at}, is not marked as the end of its stream"
    return None


def _asf(reader: Reader) -> str | None:
    head = reader.read_at(0, 64 * 1024)
    at = head.find(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365"))
    if at < 0 or at + 100 > len(head):
        return None
    live = head[at + 88] & 1
    return None if live else _short(reader, struct.unpack_from("<Q", head, at + 40)[0], "the ASF")


def _mpegts(reader: Reader) -> str | None:
    head = reader.read_at(0, 204 * 6)
    for length, lead in ((188, 0), (192, 4), (204, 0)):
        for offset in range(length):
            if len(head) > offset + 4 * length and all(head[offset + i * length] == 0x47 for i in range(5)):
                rest = (reader.size_bytes - offset + lead) % length
                return f"the last transport packet holds {rest} of {length} bytes" if rest else None
    return None


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
    "flv": _flv,
    "ogg": _ogg,
    "asf": _asf,
    "mpegts": _mpegts,
    "mpeg": _mpegps,
}
