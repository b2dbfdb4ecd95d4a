"""A decoded frame: upright pixels on demand, and when it is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from av.video.reformatter import Interpolation
from numpy.typing import NDArray


@dataclass(frozen=True)
class Frame:
    """One sampled frame of a video, not yet converted.

    Attributes:
        index: position in presentation order, counted over the whole video.
        pts_us: presentation time in microseconds, from the stream.
        keyframe: whether it is one.
        width_px, height_px: of the upright frame, after rotation.
        rotation_degrees: counterclockwise turn that makes the stored picture upright: 0, 90, 180, 270.
        picture: PyAV's frame, as stored.
    """

    index: int
    pts_us: int
    keyframe: bool
    width_px: int
    height_px: int
    rotation_degrees: int
    picture: Any

    @classmethod
    def of(cls, picture: Any, *, index: int, pts_us: int) -> Frame:
        """Wrap a PyAV frame."""
        turn = round(picture.rotation / 90) * 90 % 360
        width_px, height_px = picture.width, picture.height
        if turn in (90, 270):
            width_px, height_px = height_px, width_px
        return cls(index, pts_us, bool(picture.key_frame), width_px, height_px, turn, picture)

    def rgb(self) -> NDArray[np.uint8]:
        """The upright frame, uint8 `[height, width, 3]`, RGB."""
        return self._upright(self.picture.to_ndarray(format="rgb24"))

    def shrunk_bgr(self, long_side_px: int) -> NDArray[np.uint8]:
        """The upright frame, uint8 BGR, shrunk so that its long side is at most `long_side_px`."""
        long_side = max(self.width_px, self.height_px)
        if long_side <= long_side_px:
            return self._upright(self.picture.to_ndarray(format="bgr24"))
        scale = long_side_px / long_side
        small = self.picture.reformat(
            width=max(1, round(self.picture.width * scale)),
            height=max(1, round(self.picture.height * scale)),
            format="bgr24",
            # swscale widens the filter when it shrinks, so bilinear is antialiased.
            interpolation=Interpolation.BILINEAR,
        )
        return self._upright(small.to_ndarray())

    def _upright(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if not self.rotation_degrees:
            return image
        return np.ascontiguousarray(np.rot90(image, self.rotation_degrees // 90))
