"""Video. Detect decoded frames that show the same picture, bit for bit.

What must stay true: frames that are considered equal give the same pixels for every conversion. Therefore everything
that the conversion to RGB reads is compared, and nothing else: the bytes after the visible end of a row differ from
frame to frame. PyAV does not expose the chroma location, so a change of it between two equal frames goes unnoticed.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any, Final

import numpy as np
from av.video.format import VideoFormat
from numpy.typing import NDArray

from featray.video.frame import Frame

DIGEST_BYTES: Final = 16

_BLOCK_BYTES: Final = 1 << 16
"""Size of the blocks to compare: different frames mostly differ in the first block, and a block fits in the cache."""


def same_picture(one: Frame, other: Frame) -> bool:
    """Return whether two frames show the same picture; False if one is missing or in a GPU's memory."""
    if not (_is_readable(one) and _is_readable(other)) or _form(one) != _form(other):
        return False
    return all(map(_same, _planes(one.picture), _planes(other.picture)))


def digest(frame: Frame) -> bytes | None:
    """Return `DIGEST_BYTES` bytes that are equal for frames with the same picture; None if they are not readable."""
    if not _is_readable(frame):
        return None
    found = hashlib.sha256(repr(_form(frame)).encode())
    for plane in _planes(frame.picture):
        found.update(np.ascontiguousarray(plane).data)
    return found.digest()[:DIGEST_BYTES]


def _is_readable(frame: Frame) -> bool:
    return not frame.is_missing and frame.picture.sw_format is None


def _form(frame: Frame) -> tuple[Any, ...]:
    """Return everything except the planes that determines a picture's pixels."""
    picture = frame.picture
    coding = (picture.colorspace, picture.color_range, picture.color_primaries, picture.color_trc)
    stored = (picture.format.name, picture.width, picture.height, *map(int, coding), picture.interlaced_frame)
    return *stored, frame.width_px, frame.height_px, frame.rotation_degrees, frame.mirrored, frame.tone_map


def _planes(picture: Any) -> list[NDArray[np.uint8]]:
    """Return the visible bytes of each plane, `[rows, bytes]`, from the top row down; including a palette."""
    widths = _row_bytes(picture.format.name, picture.width, picture.height)
    planes = []
    for plane, row_bytes in zip(picture.planes, widths, strict=False):
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, -1)[:, :row_bytes]
        planes.append(rows[::-1] if plane.line_size < 0 else rows)
    return planes


@lru_cache(maxsize=64)
def _row_bytes(name: str, width: int, height: int) -> tuple[int, ...]:
    """Return the number of visible bytes per row, by plane."""
    layout = VideoFormat(name, width, height)
    components = layout.components
    planes = sorted({component.plane for component in components})
    if len(planes) > 1:
        return tuple(sum(c.width * _sample_bytes(c.bits) for c in components if c.plane == plane) for plane in planes)
    packed = -(-width * layout.padded_bits_per_pixel // 8)
    return (packed, _PALETTE_BYTES) if layout.has_palette else (packed,)


_PALETTE_BYTES: Final = 1024


def _sample_bytes(bits: int) -> int:
    return 1 if bits <= 8 else 2 if bits <= 16 else 4


def _same(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    step = max(1, _BLOCK_BYTES // max(1, one.shape[1]))
    return all(np.array_equal(one[i : i + step], other[i : i + step]) for i in range(0, len(one), step))
