"""Video. A decoded frame: pixels on demand, square, upright and in SDR, and when it is shown."""

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


# FFmpeg attaches kinds of side data that PyAV 18 does not list (EXIF, the view of a stereo frame), and
# then PyAV gives none of a frame's side data, not even how the picture is turned.
Type._missing_ = classmethod(_type_not_listed)  # type: ignore[assignment]


@dataclass(frozen=True)
class Frame:
    """One sampled frame of a video, or picture of a sequence, not yet converted.

    Attributes:
        index: position in presentation order, counted over the whole video.
        pts_us: presentation time in microseconds, from the stream; None for pictures without times.
        keyframe: whether it is one.
        width_px, height_px: of the upright frame, with square pixels and after rotation.
        rotation_degrees: counterclockwise turn that makes the stored picture upright: 0, 90, 180, 270.
        mirrored: whether the stored picture is flipped left to right before that turn.
        picture: PyAV's frame, as stored; None if it is missing, which only pictures of a sequence are.
        beyond: whether it is no longer the unit's own, but the first of the next one.
        tone_map: how its HDR becomes SDR; None for SDR, and for HDR that is taken as it is coded.
        name: of a picture of a sequence, else None.
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
        """Stand for a picture that cannot be read."""
        return cls(index, pts_us, True, 0, 0, 0, False, None, beyond, name=name)

    @property
    def time_us(self) -> int:
        """`pts_us` of a frame that has a time."""
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
        """Wrap a PyAV frame; its pixels, `sar` wide and 1 high as it is stored, are made square."""
        mirrored, turn = _orientation(picture)
        width_px, height_px = square_size(picture.width, picture.height, sar)
        if turn in (90, 270):
            width_px, height_px = height_px, width_px
        keyframe = bool(picture.key_frame)
        return cls(index, pts_us, keyframe, width_px, height_px, turn, mirrored, picture, beyond, tone_map)

    @property
    def damaged(self) -> bool:
        """Return whether the decoder says that the picture is not what was coded: patched, or based on lost ones."""
        return self.is_missing or bool(self.picture.is_corrupt)

    @property
    def squared(self) -> bool:
        """Return whether its pixels were not square, and are made so."""
        return self._stored_size() != (self.picture.width, self.picture.height)

    def rgb(self) -> NDArray[np.uint8]:
        """The upright frame, uint8 `[height, width, 3]`, RGB."""
        return self.to_sdr(self.coded_rgb())

    def coded_rgb(self) -> NDArray[Any]:
        """The upright frame `[height, width, 3]`, RGB: uint8, or uint16 where `to_sdr` is still to be asked.

        swscale reads matrix (BT.601, BT.709, BT.2020 ...), range, chroma position and interlacing from
        the frame, and takes limited range, left chroma and BT.601 (of HDR: BT.2020) where the stream does not say.
        """
        return self._converted("rgb24", Interpolation.BICUBIC)

    @property
    def has_parts(self) -> bool:
        """Return whether `coded_part` costs less than the whole frame."""
        return self.tone_map is None and not self.squared and has_parts(self.picture)

    def coded_part(self, window: Window) -> NDArray[Any]:
        """The pixels `[y1:y2, x1:x2]` of `coded_rgb`, to the bit.

        Args:
            window: in px of the upright frame, inside it.
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
        """Pixels of `coded_rgb`, all or some, as uint8 RGB of SDR.

        Of a large frame a few chips are wanted, and mapping tones costs 40 ns a pixel.
        """
        return coded if self.tone_map is None else self.tone_map(coded)

    def scaled_rgb(self, scale: float) -> NDArray[np.uint8]:
        """The upright frame, uint8 RGB, its sides multiplied by `scale` and rounded."""
        return self.to_sdr(self._converted("rgb24", Interpolation.BICUBIC, scale))

    def shrunk_bgr(self, long_side_px: int) -> NDArray[np.uint8]:
        """The upright frame, uint8 BGR, shrunk so that its long side is at most `long_side_px`."""
        long_side = max(self.width_px, self.height_px)
        if long_side <= long_side_px:
            coded = self._converted("bgr24", Interpolation.BICUBIC)
        else:
            # swscale widens the filter when it shrinks, so bilinear is antialiased.
            coded = self._converted("bgr24", Interpolation.BILINEAR, long_side_px / long_side)
        return self.to_sdr(coded) if self.tone_map is None else np.ascontiguousarray(self.to_sdr(coded)[..., ::-1])

    def _stored_size(self) -> tuple[int, int]:
        """Width and height of the picture as it is stored, but with square pixels."""
        turned = self.rotation_degrees in (90, 270)
        return (self.height_px, self.width_px) if turned else (self.width_px, self.height_px)

    def _converted(self, pixel_format: str, interpolation: Interpolation, scale: float = 1) -> NDArray[Any]:
        """The upright frame in a packed format, or in `CODED_FORMAT` if its tones are to be mapped."""
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
        """Pixels as they are stored, or a part of them, mirrored and turned."""
        if self.mirrored:
            image = image[:, ::-1]
        return np.ascontiguousarray(np.rot90(image, self.rotation_degrees // 90))


_UNSPECIFIED: Final = 2
"""Matrix coefficients of ITU-T H.273 that a stream does not say."""


class _Contexts(threading.local):
    """Contexts that swscale has set up in this thread, by format and filter, for pictures of the sizes it had last."""

    def __init__(self) -> None:
        self.by_use: defaultdict[tuple[str, Interpolation], VideoReformatter] = defaultdict(VideoReformatter)


_contexts = _Contexts()


def reformat(picture: Any, pixel_format: str, interpolation: Interpolation, **options: Any) -> Any:
    """Convert like a PyAV frame's own `reformat`, which sets swscale up anew for each frame (0.2 ms for 4K).

    Args:
        picture: PyAV's frame.
        pixel_format: FFmpeg's name.
        interpolation: how sizes change.
        options: of `VideoReformatter.reformat`.
    """
    reformatter = _contexts.by_use[pixel_format, interpolation]
    # PyAV's default is a thread a core, in every worker.
    return reformatter.reformat(picture, format=pixel_format, interpolation=interpolation, threads=1, **options)


def pixels_of(picture: Any) -> NDArray[Any]:
    """The pixels of a PyAV frame, `[height, width, 3]`, in its own memory if they are packed in 8 bits."""
    if picture.format.name not in ("rgb24", "bgr24"):
        coded: NDArray[Any] = picture.to_ndarray()
        return coded
    (plane,) = picture.planes
    rows = np.frombuffer(plane, np.uint8)[: plane.height * plane.line_size].reshape(plane.height, plane.line_size)
    return rows[:, : 3 * plane.width].reshape(plane.height, plane.width, 3)


def _orientation(picture: Any) -> tuple[bool, int]:
    """Return whether to mirror and how far to turn, by the display matrix; odd angles go to the nearest right one.

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
