"""Video. Parse the structure of containers where FFmpeg does not expose it: boxes, elements, tags, packets.

All functions read a few bytes at a time from a file that may be damaged anywhere, and stop at
the first bytes that make no sense.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from featray.video.reader import Reader

MP4_BOXES = frozenset(
    b"ftyp moov mdat free skip wide moof mfra sidx ssix styp uuid meta pnot udta emsg prft pdin junk".split()
)
_MAX_BOXES = 10_000  # per level; real files have tens

SEGMENT, _CLUSTER, _BLOCK_GROUP = 0x18538067, 0x1F43B675, 0xA0  # Matroska's element ids
BLOCKS = frozenset({0xA3, 0xA1})
_MATROSKA_IDS = frozenset(
    {
        # in a cluster: SimpleBlock, BlockGroup, Block, BlockDuration, ReferenceBlock, Timestamp, PrevSize, Position,
        # CodecState, DiscardPadding, BlockAdditions, SilentTracks, EncryptedBlock; anywhere: Void, CRC-32
        *(0xA3, _BLOCK_GROUP, 0xA1, 0x9B, 0xFB, 0xE7, 0xAB, 0xA7, 0xA4, 0x75A2, 0x75A1, 0x5854, 0xAF, 0xEC, 0xBF),
        # next to clusters: SeekHead, Info, Tracks, Cues, Chapters, Attachments, Tags
        *(_CLUSTER, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1043A770, 0x1941A469, 0x1254C367),
    }
)


def has_fragments(reader: Reader) -> bool:
    """Return whether an mp4 file has fragments, whose packets are not in a single index."""
    for position, kind, size in mp4_boxes(reader, 0, MP4_BOXES):
        if kind == b"moof":
            return True
        # The movie box announces fragments that may come later.
        if kind == b"moov" and any(
            child == b"mvex" for _, child, _ in mp4_boxes(reader, position + 8, end=position + size)
        ):
            return True
    return False


def mp4_boxes(
    reader: Reader, start: int, known: frozenset[bytes] | None = None, *, end: int | None = None
) -> Iterator[tuple[int, bytes, int]]:
    """Yield position, type and size of the boxes from `start` on, as long as they are `known` ones."""
    position = start
    for _ in range(_MAX_BOXES):
        head = reader.read_at(position, 16)
        if len(head) < 8 or (known is not None and head[4:8] not in known) or (end is not None and position >= end):
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


def _vint(data: bytes, *, keep_marker: bool) -> tuple[int | None, int]:
    """Return an EBML number and its length in bytes; None for the reserved value "unknown"."""
    if not data or not data[0]:
        return None, 0
    length = 9 - data[0].bit_length()
    value = int.from_bytes(data[:length], "big")
    if keep_marker:
        return value, length
    value &= (1 << 7 * length) - 1
    return (None if value == (1 << 7 * length) - 1 else value), length


def matroska_element(reader: Reader, position: int) -> tuple[int, int, int | None] | None:
    """Return id, content position and size (None if unknown) of the element at a position."""
    head = reader.read_at(position, 12)
    identity, id_length = _vint(head, keep_marker=True)
    size, size_length = _vint(head[id_length:], keep_marker=False)
    if identity is None or not size_length or len(head) < id_length + size_length:
        return None
    return identity, position + id_length + size_length, size


def matroska_elements(reader: Reader, start: int) -> Iterator[tuple[int, int, int]]:
    """Yield id, content position and size of the elements from `start` on, as long as they are known ones.

    Clusters and block groups are entered: they are yielded with size 0, followed by their content.
    """
    position = start
    while (element := matroska_element(reader, position)) and element[0] in _MATROSKA_IDS:
        identity, content, size = element
        if identity in (_CLUSTER, _BLOCK_GROUP):
            size = 0
        if size is None:
            return
        yield identity, content, size
        position = content + size


def flv_tags(reader: Reader, start: int) -> Iterator[tuple[int, int]]:
    """Yield position and end of the tags from `start` on, as long as they are whole and contiguous."""
    position = start
    while True:
        head = reader.read_at(position, 4)
        size = int.from_bytes(head[1:4], "big") + 11
        if len(head) < 4 or head[0] & 31 not in (8, 9, 18):
            return
        if int.from_bytes(reader.read_at(position + size, 4), "big") != size:
            return
        yield position, position + size + 4
        position += size + 4


@dataclass(frozen=True)
class TransportLayout:
    """The layout of packets in an MPEG-TS file.

    Attributes:
        length: length of a packet, including bytes before or after its 188 bytes.
        lead: number of bytes before the 188 bytes.
        offset: position of the first packet's sync byte.
    """

    length: int
    lead: int
    offset: int


def transport_layout(reader: Reader) -> TransportLayout | None:
    """Return the layout, from the first five packets; None if sync bytes do not repeat regularly."""
    head = reader.read_at(0, 204 * 6)
    for length, lead in ((188, 0), (192, 4), (204, 0)):
        for offset in range(length):
            if head[offset : offset + 4 * length + 1 : length] == b"\x47" * 5:
                return TransportLayout(length, lead, offset)
    return None
