"""Video. A decoded frame: its time, and its pixels on demand: square, upright and in SDR."""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, cast

import numpy as np
from av.sidedata.sidedata import SideDataContainer, Type
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from featray.video.container import video_errors
from featray.video.part import Window, copy_part, has_parts
from featray.video.shape import SQUARE, square_size
from featray.video.tone import CODED_FORMAT, ToneMap

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


# FFmpeg attaches kinds of side data that PyAV 18 does not list (EXIF, the view of a stereo frame). Without
# this, PyAV then returns none of a frame's side data, not even its rotation.
Type._missing_ = classmethod(_type_not_listed)  # type: ignore[assignment]


@dataclass(frozen=True)
class Frame:
    """One sampled frame of a video, or picture of a sequence, not yet converted.

    Attributes:
        index: position in presentation order, counted over the whole video.
        pts_us: presentation time in microseconds, from the stream; None for pictures without times.
        keyframe: whether it is a keyframe.
        width_px, height_px: size of the upright frame, with square pixels and after rotation.
        rotation_degrees: counterclockwise turn that makes the stored picture upright: 0, 90, 180, 270.
        mirrored: whether the stored picture is flipped left to right before that turn.
        picture: PyAV's frame, as stored; None if it is missing, which is only possible in a sequence.
        beyond: whether it is the first frame of the next unit.
        tone_map: how its HDR becomes SDR; None for SDR, and for HDR that is used as coded.
        name: name of a picture of a sequence, else None.
    """

    index: int
    pts_us: int | None
    keyframe: bool
    width_px: int
    height_px: int
    rotation_degrees: int
    mirrored: bool
    picture: Any
    beyond: bool = False
    tone_map: ToneMap | None = None
    name: str | None = None

    @classmethod
    def missing(cls, *, index: int, pts_us: int | None, name: str, beyond: bool = False) -> Frame:
        """Return a frame that represents a picture that cannot be read."""
        return cls(index, pts_us, True, 0, 0, 0, False, None, beyond, name=name)

    @property
    def time_us(self) -> int:
        """Return `pts_us` of a frame that has a time."""
        assert self.pts_us is not None
        return self.pts_us

    @property
    def is_missing(self) -> bool:
        """Return whether it has no pixels."""
        return self.picture is None

    @classmethod
    def of(
        cls,
        picture: Any,
        *,
        index: int,
        pts_us: int,
        beyond: bool = False,
        sar: Fraction = SQUARE,
        tone_map: ToneMap | None = None,
    ) -> Frame:
        """Wrap a PyAV frame; its stored pixels are `sar` wide and 1 high, and are made square."""
        mirrored, turn = _orientation(picture)
        width_px, height_px = square_size(picture.width, picture.height, sar)
        if turn in (90, 270):
            width_px, height_px = height_px, width_px
        keyframe = bool(picture.key_frame)
        return cls(index, pts_us, keyframe, width_px, height_px, turn, mirrored, picture, beyond, tone_map)

    @property
    def damaged(self) -> bool:
        """Return whether the picture is missing, or damaged (concealed, or based on lost ones)."""
        return self.is_missing or bool(self.picture.is_corrupt)

    @property
    def squared(self) -> bool:
        """Return whether its pixels were not square and are made square."""
        return self._stored_size() != (self.picture.width, self.picture.height)

    def rgb(self) -> NDArray[np.uint8]:
        """Return the upright frame, uint8 `[height, width, 3]`, RGB."""
        return self.to_sdr(self.coded_rgb())

    def coded_rgb(self) -> NDArray[Any]:
        """Return the upright frame `[height, width, 3]`, RGB: uint8, or uint16 if it still needs `to_sdr`.

        swscale reads matrix (BT.601, BT.709, BT.2020 ...), range, chroma location and interlacing from the
        frame. The defaults are limited range, left chroma and BT.601 (BT.2020 for HDR).
        """
        return self._converted("rgb24", Interpolation.BICUBIC)

    @property
    def has_parts(self) -> bool:
        """Return whether `coded_part` costs less than the whole frame."""
        return self.tone_map is None and not self.squared and has_parts(self.picture)

    def coded_part(self, window: Window) -> NDArray[Any]:
        """Return the pixels `[y1:y2, x1:x2]` of `coded_rgb`, bit for bit.

        Args:
            window: a window inside the upright frame, in its px.
        """
        x1, y1, x2, y2 = window
        if not self.has_parts:
            return self.coded_rgb()[y1:y2, x1:x2]
        width_px, height_px = self._stored_size()
        stored = window.stored(width_px, height_px, self.mirrored, self.rotation_degrees)
        around = stored.in_blocks(width_px, height_px)
        image = pixels_of(reformat(copy_part(self.picture, around), "rgb24", Interpolation.BICUBIC))
        left, top = stored.x1 - around.x1, stored.y1 - around.y1
        return self._upright(image[top:, left:][: stored.y2 - stored.y1, : stored.x2 - stored.x1])

    def to_sdr(self, coded: NDArray[Any]) -> NDArray[np.uint8]:
        """Convert pixels of `coded_rgb`, all or some, to uint8 SDR RGB.

        Tone mapping costs 40 ns per pixel, and of a large frame only a few chips are needed.
        """
        return coded if self.tone_map is None else self.tone_map(coded)

    def scaled_rgb(self, scale: float) -> NDArray[np.uint8]:
        """Return the upright frame, uint8 RGB, with its sides multiplied by `scale` and rounded."""
        return self.to_sdr(self._converted("rgb24", Interpolation.BICUBIC, scale))

    def shrunk_bgr(self, long_side_px: int) -> NDArray[np.uint8]:
        """Return the upright frame, uint8 BGR, shrunk so that its long side is at most `long_side_px`."""
        long_side = max(self.width_px, self.height_px)
        if long_side <= long_side_px:
            coded = self._converted("bgr24", Interpolation.BICUBIC)
        else:
            # swscale widens the filter when it shrinks, so bilinear is antialiased.
            coded = self._converted("bgr24", Interpolation.BILINEAR, long_side_px / long_side)
        return self.to_sdr(coded) if self.tone_map is None else np.ascontiguousarray(self.to_sdr(coded)[..., ::-1])

    def _stored_size(self) -> tuple[int, int]:
        """Return width and height of the stored picture with square pixels."""
        turned = self.rotation_degrees in (90, 270)
        return (self.height_px, self.width_px) if turned else (self.width_px, self.height_px)

    def _converted(self, pixel_format: str, interpolation: Interpolation, scale: float = 1) -> NDArray[Any]:
        """Return the upright frame in a packed format, or in `CODED_FORMAT` if its tones will be mapped."""
        width_px, height_px = self._stored_size()
        options: dict[str, Any] = {}
        if self.tone_map is not None:
            pixel_format = CODED_FORMAT
            if self.picture.colorspace == _UNSPECIFIED:
                options = {"src_colorspace": Colorspace.BT2020}
        width_px, height_px = max(1, round(width_px * scale)), max(1, round(height_px * scale))
        converted = reformat(self.picture, pixel_format, interpolation, width=width_px, height=height_px, **options)
        return self._upright(pixels_of(converted))

    def _upright(self, image: NDArray[Any]) -> NDArray[Any]:
        """Return stored pixels, all or a part, mirrored and turned upright."""
        if self.mirrored:
            image = image[:, ::-1]
        return np.ascontiguousarray(np.rot90(image, self.rotation_degrees // 90))


_UNSPECIFIED: Final = 2
"""ITU-T H.273's code for unspecified matrix coefficients."""


class _Contexts(threading.local):
    """This thread's swscale contexts, by format and filter, set up for the latest picture sizes."""

    def __init__(self) -> None:
        self.by_use: defaultdict[tuple[str, Interpolation], VideoReformatter] = defaultdict(VideoReformatter)


_contexts = _Contexts()


def reformat(picture: Any, pixel_format: str, interpolation: Interpolation, **options: Any) -> Any:
    """Convert like a PyAV frame's own `reformat`, but reuse swscale contexts (setting one up takes 0.2 ms for 4K).

    Args:
        picture: PyAV's frame.
        pixel_format: FFmpeg's name of the target format.
        interpolation: filter for scaling.
        options: options of `VideoReformatter.reformat`.

    Raises:
        VideoError: swscale cannot convert the picture, for example because its matrix coefficients are reserved ones.
    """
    reformatter = _contexts.by_use[pixel_format, interpolation]
    with video_errors("converting a frame to RGB"):  # else this would look like a failure of the storage
        # PyAV's default is one thread per core, in every worker.
        return reformatter.reformat(picture, format=pixel_format, interpolation=interpolation, threads=1, **options)


def pixels_of(picture: Any) -> NDArray[Any]:
    """Return the pixels of a PyAV frame, `[height, width, 3]`; a view of its memory for packed 8-bit formats."""
    if picture.format.name not in ("rgb24", "bgr24"):
        coded: NDArray[Any] = picture.to_ndarray()
        return coded
    (plane,) = picture.planes
    rows = np.frombuffer(plane, np.uint8)[: plane.height * plane.line_size].reshape(plane.height, plane.line_size)
    return rows[:, : 3 * plane.width].reshape(plane.height, plane.width, 3)


def _orientation(picture: Any) -> tuple[bool, int]:
    """Return whether to mirror and how far to turn, from the display matrix; angles are rounded to multiples of 90.

    The matrix `[[a, b], [c, d]]` maps a stored point `(x, y)` to `(a x + c y, b x + d y)`.
    """
    # Not `picture.side_data`: the picture caches it, a cycle that keeps megabytes until Python's garbage collection.
    matrix = SideDataContainer(picture).get(Type.DISPLAYMATRIX)  # type: ignore[call-arg]
    if matrix is None:
        return False, 0
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return _TURNS[False, a < 0, d < 0]
    return _TURNS[True, c < 0, b < 0]
