"""Video. Decoding on NVIDIA's video decoder (NVDEC), through PyAV's hardware acceleration: `decode.hwaccel: cuda`.

FFmpeg's own decoders parse the stream, so seeking, times and counts of losses are the same as on a CPU. Pictures are
reconstructed on the GPU and copied back. Streams without a GPU decoder (other codecs, profiles and sizes; AV1, which
PyAV passes to dav1d) are decoded on the CPU.
"""

from __future__ import annotations

import platform
from typing import Any, Final

import av
import av.error
from av.codec.hwaccel import HWAccel, hwdevices_available

from featray.errors import ConfigError, ModelError

_DEVICE: Final = "cuda"
_LAYOUTS: Final = {"nv12": "yuv420p", "p010le": "yuv420p10le"}
_FIX: Final = "set decode.hwaccel: none"


def nvdec_is_built_in() -> bool:
    """Return whether PyAV's FFmpeg was built with NVDEC for H.264; this does not check for a GPU."""
    configs = av.Codec("h264", "r").hardware_configs or ()
    return _DEVICE in hwdevices_available() and any(config.device_type.name == _DEVICE for config in configs)


def as_from_cpu(picture: Any) -> Any:
    """Return a picture in the layout of CPU decoders; NVDEC interleaves the two chroma planes.

    swscale converts the interleaved layout to different RGB, by up to 4 grey levels. Separating the planes first is
    exact and gives the same pixels.
    """
    layout = _LAYOUTS.get(picture.format.name)
    # One thread: with several, PyAV's default, we saw wrong rows in pictures with odd chroma heights.
    return picture if layout is None else picture.reformat(format=layout, threads=1)


def make_hwaccel() -> Any:
    """Return the `hwaccel` argument for `av.open`.

    Raises:
        ConfigError: this PyAV has no NVDEC.
    """
    if not nvdec_is_built_in():
        raise ConfigError(f"decode.hwaccel: cuda, but PyAV {av.__version__} is built without NVDEC; {_FIX}")
    return HWAccel(_DEVICE, allow_software_fallback=True)


def check_nvdec() -> Any:
    """Open the GPU in the same way as for a video, and return the object that keeps it open.

    Raises:
        ConfigError: this PyAV has no NVDEC.
        ModelError: FFmpeg cannot open a CUDA device.
    """
    try:
        return make_hwaccel().create(av.Codec("h264", "r"))
    except av.error.FFmpegError as error:
        raise ModelError(
            f"decode.hwaccel: cuda, but FFmpeg cannot open a CUDA device on {platform.node()} ({error.strerror}); "
            f"install the driver's libcuda.so.1 and libnvcuvid.so.1 (in containers "
            f"NVIDIA_DRIVER_CAPABILITIES=compute,video), or {_FIX}"
        ) from None
