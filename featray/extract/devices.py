"""Extract. The GPU of a decode worker: looked at before there is work, and opened by the process that decodes.

The worker itself never touches CUDA: it would hold half a gigabyte of the GPU for nothing. A process of its own looks
for it, once, and says in one line what is missing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Final

from featray.config import DecodeConfig, DetectConfig
from featray.errors import FeatrayError, ModelError, one_line

HEADROOM_GIB: Final = 6
"""What a decoding process with a GPU may have over `decode.memory_limit_gib`. The limit counts private memory that can
be written (`RLIMIT_DATA`), not address space, of which CUDA reserves more than there is memory: that is mapped without
access, or shared with the driver. What counts is torch's own data (1 GB with the detector, measured on a CPU), and that
of CUDA, its libraries and the driver (some 2 GB by what is known of CUDA processes, not measured on a GPU)."""

OPEN_FILES: Final = 1024
"""In place of 256: the driver opens its devices several times, and an event each."""

NO_GPU: Final = 69
"""Exit status of a decoding process that could not open its GPU."""

_SECONDS: Final = 180


@cache
def check_devices(detect_device: str, hwaccel: str) -> None:
    """Look for the GPU that a decode worker needs, if it needs one; once a process.

    Raises:
        FeatrayError: there is none, in one line with the fix.
    """
    if detect_device == "cpu" and hwaccel == "none":
        return
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "featray.extract.devices", detect_device, hwaccel]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise ModelError(f"the GPU did not answer in {_SECONDS} s; see what `nvidia-smi` says") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise ModelError(said[:500])


def open_devices(decode: DecodeConfig, detect: DetectConfig) -> None:
    """Start CUDA in this process and compute something, and open the video decoder, as far as they are wanted.

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

        check_nvdec()


def _main(detect_device: str, hwaccel: str) -> None:
    try:
        open_devices(
            DecodeConfig.model_validate({"hwaccel": hwaccel}), DetectConfig.model_validate({"device": detect_device})
        )
    except FeatrayError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    _main(*sys.argv[1:])
