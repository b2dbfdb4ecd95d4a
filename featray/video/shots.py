"""Video. Detect shot cuts between two consecutive sampled frames.

The result depends only on the two frames, so it is the same wherever a video was cut into units.
It uses thumbnails, which cost a few hundredths of face detection. A changed tint is a cut.
Otherwise the luma of both is compared by correlation, so that a flash or a fade is not a cut;
first in place, then shifted onto each other (phase correlation: Kuglin and Hines, 1975), so that a
pan is not a cut. A mean difference of colours, as in PySceneDetect's content score, is as large in
our pans and flashes as in cuts.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from av.video.reformatter import Interpolation
from numpy.typing import NDArray

from featray.video.frame import Frame, reformat

WIDTH_PX: Final = 64
HEIGHT_PX: Final = 36
"""Large enough for the layout of a scene, and small enough to land with a unit."""

THUMBNAIL_BYTES: Final = 3 * HEIGHT_PX * WIDTH_PX

MIN_LIKENESS: Final = 0.45
"""Frames of the same shot gave at least 0.92 at a distance of 1/25 s, 0.68 at 1/5 s, 0.5 at 1 s and 2 s; different
shots at most 0.3. The same head in the same place, filmed closer, gave 0.3 to 0.54: half of such cuts are missed."""

MIN_DIFFERENCE: Final = 6.0
"""Mean difference in grey levels below which frames are one shot even without correlation: dark noise has none."""

MAX_TINT_CHANGE: Final = 12.0
"""Largest change of mean chroma within a shot, in levels of 255. Measured within shots: at most 0.8 at a distance of
1/25 s, 5 at 1 s, 2 in pans."""

MIN_MOVED_LIKENESS: Final = 0.9
"""Least correlation of the shared part after shifting. Pans by up to a third of the picture gave at least 0.96, a face
and its mirror image up to 0.85: with a free choice of the shift, many pictures are somewhat similar."""

_MIN_SHARED = 0.5
"""Least shared part of the picture; a smaller part says little about the rest."""

_NOISE_VARIANCE = 25.0
"""In grey levels squared; prevents flat pictures from being compared by their noise."""


def thumbnail(frame: Frame) -> NDArray[np.uint8]:
    """Return luma and chroma of a stored frame, uint8 `[3, 36, 64]`; each pixel is the mean of its area."""
    small = reformat(frame.picture, "yuv444p", Interpolation.AREA, width=WIDTH_PX, height=HEIGHT_PX)
    image: NDArray[np.uint8] = small.to_ndarray()
    return image


def read_thumbnail(data: bytes) -> NDArray[np.uint8]:
    """Return a thumbnail from its bytes."""
    return np.frombuffer(data, np.uint8).reshape(3, HEIGHT_PX, WIDTH_PX)


def is_cut(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> bool:
    """Return whether a new shot begins between two frames, given their thumbnails."""
    a, b = before[0].astype(np.float64), after[0].astype(np.float64)
    if np.abs(before[1:].mean(axis=(1, 2)) - after[1:].mean(axis=(1, 2))).max() > MAX_TINT_CHANGE:
        return True
    if np.abs(a - b).mean() < MIN_DIFFERENCE or _correlation(a, b) >= MIN_LIKENESS:
        return False
    return _moved_correlation(a, b) < MIN_MOVED_LIKENESS


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((np.square(a).mean() + _NOISE_VARIANCE) * (np.square(b).mean() + _NOISE_VARIANCE))
    return float((a * b).mean() / scale)


def _moved_correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return the correlation of the shared part after shifting one onto the other; 0 if the part is too small."""
    window = _window()
    cross = np.fft.rfft2((a - a.mean()) * window) * np.conj(np.fft.rfft2((b - b.mean()) * window))
    size = np.abs(cross)
    peaks = np.fft.irfft2(cross / (size + 1e-3 * size.max() + 1e-9), s=a.shape)
    place = np.unravel_index(int(peaks.argmax()), a.shape)
    down, right = (int(s) - n if s > n // 2 else int(s) for s, n in zip(place, a.shape, strict=True))
    one, other = _shared(a, down, right), _shared(b, -down, -right)
    return _correlation(one, other) if one.size >= _MIN_SHARED * a.size else 0.0


def _shared(image: NDArray[np.float64], down: int, right: int) -> NDArray[np.float64]:
    height, width = image.shape
    return image[max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)]


@lru_cache(maxsize=1)
def _window() -> NDArray[np.float64]:
    """Return a window that fades out the borders, whose wrap-around edge would outweigh the picture."""
    return np.outer(np.hanning(HEIGHT_PX), np.hanning(WIDTH_PX))
