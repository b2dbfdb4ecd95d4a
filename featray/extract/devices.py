"""Extract. The GPU of a decode worker, which the process that decodes opens before there is work.

The worker itself never touches CUDA: it would hold half a gigabyte of the GPU for nothing.
"""

from __future__ import annotations

from typing import Final

from featray.config import DecodeConfig, DetectConfig
from featray.errors import ModelError, one_line

HEADROOM_GIB: Final = 6
"""What a decoding process with a GPU may have over `decode.memory_limit_gib`. The limit counts private memory that can
be written (`RLIMIT_DATA`), not address space, of which CUDA reserves more than there is memory: that is mapped without
access, or shared with the driver. What counts is torch's own data (1 GB with the detector, measured on a CPU), and that
of CUDA, its libraries and the driver (some 2 GB by what is known of CUDA processes, not measured on a GPU)."""

OPEN_FILES: Final = 1024
"""In place of 256: the driver opens its devices several times, and an event each."""

START_SECONDS: Final = 600
"""For a decoding process to load torch and start CUDA: some ten, or minutes where others keep all processors busy."""


def open_devices(decode: DecodeConfig, detect: DetectConfig) -> object:
    """Start CUDA in this process and compute something, and open the video decoder, as far as they are wanted.

    Returns:
        What has to be kept as long as they are used: without it CUDA might end with a video, and start with the next.

    Raises:
        FeatrayError: there is no GPU, or it does not work.
    """
    if detect.device == "gpu":
        import torch

        from featray.faces.on_gpu import open_device

        device = open_device()
        try:
            if (torch.ones(2, device=device) + 1).sum().item() != 4:
                raise ModelError("detect.device: gpu, but the GPU computes wrongly; see what `nvidia-smi` says")
        except RuntimeError as error:
            raise ModelError(f"detect.device: gpu, but the GPU does not work ({one_line(error)})") from error
    if decode.hwaccel != "none":
        from featray.video.nvdec import check_nvdec

        return check_nvdec()
    return None
