"""Video. Decoding on NVIDIA's video decoder (NVDEC), through PyAV's hardware acceleration: `decode.hwaccel: cuda`.

FFmpeg's own decoders read the stream, so seeking, times and the account of losses are as ever; pictures are
reconstructed on the GPU, and copied back. What the GPU has no decoder for (other codecs, profiles and sizes; AV1, which
PyAV gives to dav1d) is decoded on the CPU.
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
_MEND: Final = "set decode.hwaccel: none"


def nvdec_is_built_in() -> bool:
    """Return whether PyAV's FFmpeg was built with NVDEC for H.264, which says nothing of a GPU."""
    configs = av.Codec("h264", "r").hardware_configs or ()
    return _DEVICE in hwdevices_available() and any(config.device_type.name == _DEVICE for config in configs)


def as_from_cpu(picture: Any) -> Any:
    """Return a picture in the layout that a CPU's decoder gives; NVDEC interleaves the two planes of chroma.

    swscale makes other RGB of that, up to 4 grey levels; taken apart first, which is exact, the pixels are the same.
    """
    layout = _LAYOUTS.get(picture.format.name)
    # On several threads, which PyAV takes by default, rows of pictures with odd chroma heights were seen to go wrong.
    return picture if layout is None else picture.reformat(format=layout, threads=1)


def make_hwaccel() -> Any:
    """Return what `av.open` takes.

    Raises:
        ConfigError: this PyAV has no NVDEC.
    """
    if not nvdec_is_built_in():
        raise ConfigError(f"decode.hwaccel: cuda, but PyAV {av.__version__} is built without NVDEC; {_MEND}")
    return HWAccel(_DEVICE, allow_software_fallback=True)


def check_nvdec() -> Any:
    """Open the GPU as every video does, and return what holds it open.

    Raises:
        ConfigError: this PyAV has no NVDEC.
        ModelError: FFmpeg cannot open a CUDA device.
    """
    try:
        return make_hwaccel().create(av.Codec("h264", "r"))
    except av.error.FFmpegError as error:
        raise ModelError(
            f"decode.hwaccel: cuda, but FFmpeg opens no CUDA device on {platform.node()} ({error.strerror}); it needs "
            f"the driver's libcuda.so.1 and libnvcuvid.so.1 (in containers NVIDIA_DRIVER_CAPABILITIES=compute,video), "
            f"or {_MEND}"
        ) from None
