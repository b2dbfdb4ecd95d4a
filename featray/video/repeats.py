"""Video. Whether two decoded frames show the same picture, to the bit.

What must stay true: frames that are taken for the same give the same pixels, whatever is asked of them. So all that the
conversion to RGB reads is compared, and nothing else: what lies beyond the visible end of a row differs from frame to
frame. PyAV does not tell where chroma samples lie: that a stream changes it between two equal frames is not noticed.
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
"""Compared together: frames that differ mostly do so in the first block, and it stays in the processor's cache."""


def same_picture(one: Frame, other: Frame) -> bool:
    """Return whether two frames show the same picture. False if one is missing, or lies in a GPU's memory."""
    if not (_is_readable(one) and _is_readable(other)) or _form(one) != _form(other):
        return False
    return all(map(_same, _planes(one.picture), _planes(other.picture)))


def digest(frame: Frame) -> bytes | None:
    """Return `DIGEST_BYTES` that two frames share if they show the same picture; None where that cannot be told."""
    if not _is_readable(frame):
        return None
    found = hashlib.sha256(repr(_form(frame)).encode())
    for plane in _planes(frame.picture):
        found.update(np.ascontiguousarray(plane).data)
    return found.digest()[:DIGEST_BYTES]


def _is_readable(frame: Frame) -> bool:
    return not frame.is_missing and frame.picture.sw_format is None


def _form(frame: Frame) -> tuple[Any, ...]:
    """All that makes pixels of a picture's planes."""
    picture = frame.picture
    coding = (picture.colorspace, picture.color_range, picture.color_primaries, picture.color_trc)
    stored = (picture.format.name, picture.width, picture.height, *map(int, coding), picture.interlaced_frame)
    return *stored, frame.width_px, frame.height_px, frame.rotation_degrees, frame.mirrored, frame.tone_map


def _planes(picture: Any) -> list[NDArray[np.uint8]]:
    """The planes' visible bytes, `[rows, bytes]`, from the top row on; of a palette too."""
    widths = _row_bytes(picture.format.name, picture.width, picture.height)
    planes = []
    for plane, row_bytes in zip(picture.planes, widths, strict=False):
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, -1)[:, :row_bytes]
        planes.append(rows[::-1] if plane.line_size < 0 else rows)
    return planes


@lru_cache(maxsize=64)
def _row_bytes(name: str, width: int, height: int) -> tuple[int, ...]:
    """Visible bytes of a row, by plane."""
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
