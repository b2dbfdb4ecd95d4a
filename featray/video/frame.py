"""Video. A decoded frame: upright pixels on demand, and when it is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from av.sidedata.sidedata import SideDataContainer, Type
from av.video.reformatter import Interpolation
from numpy.typing import NDArray

_TURNS = {
    # transposed, then left-right flipped, then upside-down flipped: mirrored, counterclockwise degrees
    (False, False, False): (False, 0),
    (True, False, True): (False, 90),
    (False, True, True): (False, 180),
    (True, True, False): (False, 270),
    (False, True, False): (True, 0),
    (True, False, False): (True, 90),
    (False, False, True): (True, 180),
    (True, True, True): (True, 270),
}


def _type_not_listed(cls: type[Type], value: int) -> Type:
    member: Any = object.__new__(cls)
    member._name_, member._value_ = f"TYPE_{value}", value
    return cast(Type, member)


# FFmpeg attaches kinds of side data that PyAV 18 does not list (EXIF, the view of a stereo frame), and
# then PyAV gives none of a frame's side data, not even how the picture is turned.
Type._missing_ = classmethod(_type_not_listed)  # type: ignore[assignment]


@dataclass(frozen=True)
class Frame:
    """One sampled frame of a video, not yet converted.

    Attributes:
        index: position in presentation order, counted over the whole video.
        pts_us: presentation time in microseconds, from the stream.
        keyframe: whether it is one.
        width_px, height_px: of the upright frame, after rotation.
        rotation_degrees: counterclockwise turn that makes the stored picture upright: 0, 90, 180, 270.
        mirrored: whether the stored picture is flipped left to right before that turn.
        picture: PyAV's frame, as stored.
        beyond: whether it is no longer the unit's own, but the first of the next one.
    """

    index: int
    pts_us: int
    keyframe: bool
    width_px: int
    height_px: int
    rotation_degrees: int
    mirrored: bool
    picture: Any
    beyond: bool = False

    @classmethod
    def of(cls, picture: Any, *, index: int, pts_us: int, beyond: bool = False) -> Frame:
        """Wrap a PyAV frame."""
        mirrored, turn = _orientation(picture)
        width_px, height_px = picture.width, picture.height
        if turn in (90, 270):
            width_px, height_px = height_px, width_px
        return cls(index, pts_us, bool(picture.key_frame), width_px, height_px, turn, mirrored, picture, beyond)

    @property
    def damaged(self) -> bool:
        """Whether the decoder says that the picture is not what was coded: patched up, or leaning on lost ones."""
        return bool(self.picture.is_corrupt)

    def rgb(self) -> NDArray[np.uint8]:
        """The upright frame, uint8 `[height, width, 3]`, RGB.

        swscale reads matrix (BT.601, BT.709, BT.2020 ...), range, chroma position and interlacing from
        the frame, and takes BT.601, limited range and left chroma where the stream does not say.
        It converts no transfer function: HDR (PQ, HLG) stays as dull as it is coded.
        """
        return self._converted("rgb24", Interpolation.BICUBIC)

    def scaled_rgb(self, scale: float) -> NDArray[np.uint8]:
        """The upright frame, uint8 RGB, its sides multiplied by `scale` and rounded."""
        return self._converted("rgb24", Interpolation.BICUBIC, scale)

    def shrunk_bgr(self, long_side_px: int) -> NDArray[np.uint8]:
        """The upright frame, uint8 BGR, shrunk so that its long side is at most `long_side_px`."""
        long_side = max(self.width_px, self.height_px)
        if long_side <= long_side_px:
            return self._converted("bgr24", Interpolation.BICUBIC)
        scale = long_side_px / long_side
        # swscale widens the filter when it shrinks, so bilinear is antialiased.
        return self._converted("bgr24", Interpolation.BILINEAR, scale)

    def _converted(self, pixel_format: str, interpolation: Interpolation, scale: float = 1) -> NDArray[np.uint8]:
        converted = self.picture.reformat(
            width=max(1, round(self.picture.width * scale)),
            height=max(1, round(self.picture.height * scale)),
            format=pixel_format,
            interpolation=interpolation,
            threads=1,  # PyAV's default is a thread a core, in every worker
        )
        image: NDArray[np.uint8] = converted.to_ndarray()
        if self.mirrored:
            image = image[:, ::-1]
        return np.ascontiguousarray(np.rot90(image, self.rotation_degrees // 90))


def _orientation(picture: Any) -> tuple[bool, int]:
    """Whether to mirror and how far to turn, as the display matrix says; other angles go to the nearest right one.

    The matrix `[[a, b], [c, d]]` sends a stored point `(x, y)` to `(a x + c y, b x + d y)`.
    """
    # Not `picture.side_data`: the picture keeps that, a cycle, and its megabytes lie there until Python collects.
    matrix = SideDataContainer(picture).get(Type.DISPLAYMATRIX)  # type: ignore[call-arg]
    if matrix is None:
        return False, 0
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return _TURNS[False, a < 0, d < 0]
    return _TURNS[True, c < 0, b < 0]
