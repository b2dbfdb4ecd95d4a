"""Extract. Open the GPU in the decoding process, before its first request.

The decode worker itself never touches CUDA: a context would cost half a gigabyte of GPU memory for nothing.
"""

from __future__ import annotations

from typing import Final

from featray.config import DecodeConfig, DetectConfig
from featray.errors import ModelError, one_line

HEADROOM_GIB: Final = 6
"""Memory that a decoding process with a GPU may use in addition to `decode.memory_limit_gib`. The limit
(`RLIMIT_DATA`) counts private writable memory, not address space. CUDA reserves more address space than there is
memory, but maps it without access or shares it with the driver, so it does not count. What counts is torch's data (1 GB
with the detector, measured on a CPU) and that of CUDA, its libraries and the driver (about 2 GB, as is usual for CUDA
processes; not measured on a GPU)."""

OPEN_FILES: Final = 1024
"""Limit on open files, instead of 256: the driver opens each device several times, with an event file each."""

START_SECONDS: Final = 600
"""Time limit for loading torch and starting CUDA. It takes about ten seconds, or minutes on a busy machine."""


def open_devices(decode: DecodeConfig, detect: DetectConfig) -> object:
    """Start CUDA and the hardware video decoder in this process if the settings ask for them, and test CUDA.

    Returns:
        An object to keep while they are in use. Without it CUDA might shut down after each video and start again.

    Raises:
        FeatrayError: there is no GPU, or it does not work.
    """
    if detect.device == "gpu":
        import torch

        from featray.faces.on_gpu import open_device

        device = open_device()
        try:
            if (torch.ones(2, device=device) + 1).sum().item() != 4:
                raise ModelError("detect.device: gpu, but the GPU computes wrong results; check it with `nvidia-smi`")
        except RuntimeError as error:
            raise ModelError(f"detect.device: gpu, but the GPU does not work ({one_line(error)})") from error
    if decode.hwaccel != "none":
        from featray.video.nvdec import check_nvdec

        return check_nvdec()
    return None
