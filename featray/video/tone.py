"""Video. Tone mapping: convert HDR video to BT.709 SDR, which detectors and the network were trained on.

The mapping is fixed and ignores the stream's mastering display, so that a frame's pixels depend only on the frame. It
works in display light:

* HLG and PQ to light: Rec. ITU-R BT.2100, HLG for a display of 1000 cd/m² (system gamma 1.2).
* Colours from the stream's primaries to BT.709, by their chromaticities; colours outside the gamut are clipped.
* Brightness: the EETF of Rep. ITU-R BT.2390 (5.4.1) from 1000 cd/m² to the 203 cd/m² of Rep. ITU-R BT.2408's reference
  white, for each channel. Light up to 91 cd/m², where faces mostly are, is unchanged; from there to 1000 cd/m² it is
  compressed; brighter light becomes white.
* Light to SDR: the inverse of Rec. ITU-R BT.1886, gamma 2.4, with white at 203 cd/m².

FFmpeg in PyAV's wheels has neither zscale nor libplacebo. Its swscale maps HDR too, but clips everything brighter than
203 cd/m² and takes 5 s to set up and 60 ms per 1080p frame.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from av.video.reformatter import ColorPrimaries, ColorTrc
from numpy.typing import NDArray

CODED_FORMAT: Final = "gbrp12le"
"""FFmpeg's name of the format to map: 12 bits, the maximum of BT.2100."""

_CODES: Final = 1 << 12
_PEAK_CD_M2: Final = 1000.0
_WHITE_CD_M2: Final = 203.0
_BLOCK_PX: Final = 1 << 15
"""Pixels to map at once, so that intermediate arrays fit in the processor's cache."""

_Floats = NDArray[np.float32]


@lru_cache(maxsize=32)
def transfer_name(code: int) -> str:
    """Return FFmpeg's name of a transfer characteristic (ITU-T H.273), such as `bt709` or `smpte2084`."""
    try:
        return ColorTrc(code).name.lower().replace("_", "-")
    except ValueError:
        return "reserved"


class ToneMap(NamedTuple):
    """The conversion of one kind of HDR to SDR; `of` returns None for SDR.

    Attributes:
        transfer: `arib-std-b67` (HLG) or `smpte2084` (PQ).
        primaries: the stream's primaries, as a code of ITU-T H.273.
    """

    transfer: str
    primaries: int

    @classmethod
    def of(cls, picture: object) -> ToneMap | None:
        """Return the tone map of a PyAV frame; None for SDR."""
        transfer = transfer_name(picture.color_trc)  # type: ignore[attr-defined]
        return cls(transfer, int(picture.color_primaries)) if transfer in _TO_LIGHT else None  # type: ignore[attr-defined]

    def __call__(self, coded: NDArray[np.uint16]) -> NDArray[np.uint8]:
        """Map pixels.

        Args:
            coded: `[..., 3]`, the stream's R'G'B' in `CODED_FORMAT`: 0 to 4095.

        Returns:
            BT.709 RGB of the same shape.
        """
        flat = coded.reshape(-1, 3)
        shown = np.empty(flat.shape, np.uint8)
        for start in range(0, len(flat), _BLOCK_PX):
            part = slice(start, start + _BLOCK_PX)
            self._map(flat[part], shown[part])
        return shown.reshape(coded.shape)

    def _map(self, coded: NDArray[np.uint16], shown: NDArray[np.uint8]) -> None:
        light, to_sdr = _light_table(self.transfer), _sdr_table()
        channels = [light.take(coded[:, i], mode="clip") for i in range(3)]
        if self.transfer == "arib-std-b67":
            red, green, blue = _BT2020_LUMA
            gain = np.power(red * channels[0] + green * channels[1] + blue * channels[2], _HLG_GAMMA - 1)
            channels = [channel * gain for channel in channels]
        for i, (red, green, blue) in enumerate(_to_bt709(self.primaries)):
            linear = red * channels[0] + green * channels[1] + blue * channels[2]
            # The square root gives dark values, where SDR is steep, enough entries of the table.
            index = np.sqrt(np.clip(linear, 0, 1, out=linear), out=linear)
            index *= len(to_sdr) - 1
            index += 0.5
            shown[:, i] = to_sdr.take(index.astype(np.uint16), mode="clip")


_HLG_GAMMA: Final = np.float32(1.2)
_BT2020_LUMA: Final = np.asarray([0.2627, 0.6780, 0.0593], np.float32)


def _hlg_to_scene_light(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Apply the inverse OETF of BT.2100, table 5; the OOTF needs all three channels and comes later."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    light: NDArray[np.float64] = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    return light


_M1, _M2, _C1, _C2, _C3 = 2610 / 16384, 2523 / 4096 * 128, 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32


def _pq_to_light(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Apply the EOTF of BT.2100, table 4; the result is in shares of the peak."""
    root = signal ** (1 / _M2)
    cd_m2 = 10_000 * (np.maximum(root - _C1, 0) / (_C2 - _C3 * root)) ** (1 / _M1)
    return np.minimum(cd_m2 / _PEAK_CD_M2, 1)


def _light_to_pq(cd_m2: NDArray[np.float64]) -> NDArray[np.float64]:
    root = (cd_m2 / 10_000) ** _M1
    signal: NDArray[np.float64] = ((_C1 + _C2 * root) / (1 + _C3 * root)) ** _M2
    return signal


_TO_LIGHT: Final = {"arib-std-b67": _hlg_to_scene_light, "smpte2084": _pq_to_light}


@lru_cache(maxsize=2)
def _light_table(transfer: str) -> _Floats:
    """Return the light of each code, 1 at the peak."""
    return _TO_LIGHT[transfer](np.linspace(0, 1, _CODES)).astype(np.float32)


@lru_cache(maxsize=1)
def _sdr_table() -> NDArray[np.uint8]:
    """Return SDR values by the square root of light, in 4096 steps up to the peak."""
    light = np.linspace(0, 1, 4096) ** 2 * _PEAK_CD_M2
    shown = _compressed(light) / _WHITE_CD_M2
    return np.rint(255 * np.clip(shown, 0, 1) ** (1 / 2.4)).astype(np.uint8)


def _compressed(cd_m2: NDArray[np.float64]) -> NDArray[np.float64]:
    """Apply the EETF of BT.2390, 5.4.1, from a peak of 1000 cd/m² and black at 0 to reference white and black at 0."""
    peak, white = _light_to_pq(np.asarray([_PEAK_CD_M2, _WHITE_CD_M2]))
    signal, top = _light_to_pq(cd_m2) / peak, white / peak
    knee = 1.5 * top - 0.5
    t = np.clip((signal - knee) / (1 - knee), 0, 1)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * top
    mapped = np.where(signal < knee, signal, spline) * peak
    return _pq_to_light(mapped) * _PEAK_CD_M2


_CHROMATICITIES: Final = {
    # red x, y, green x, y, blue x, y; white is D65 in all
    ColorPrimaries.BT709: (0.640, 0.330, 0.300, 0.600, 0.150, 0.060),
    ColorPrimaries.BT2020: (0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    ColorPrimaries.SMPTE432: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}


@lru_cache(maxsize=4)
def _to_bt709(primaries: int) -> _Floats:
    """Return the `[3, 3]` matrix from linear RGB of these primaries to BT.709; unknown primaries count as BT.2020."""
    known = next((found for found in _CHROMATICITIES if found == primaries), ColorPrimaries.BT2020)
    matrix = np.linalg.inv(_to_xyz(ColorPrimaries.BT709)) @ _to_xyz(known)
    return matrix.astype(np.float32)


def _to_xyz(primaries: ColorPrimaries) -> NDArray[np.float64]:
    """Return the matrix from linear RGB to CIE XYZ, as in SMPTE RP 177."""
    xy = np.asarray([*_CHROMATICITIES[primaries], 0.3127, 0.3290]).reshape(4, 2)
    xyz = np.column_stack([xy[:, 0] / xy[:, 1], np.ones(4), (1 - xy.sum(axis=1)) / xy[:, 1]])
    red_green_blue, white = xyz[:3].T, xyz[3]
    return red_green_blue * np.linalg.solve(red_green_blue, white)
