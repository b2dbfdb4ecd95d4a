"""Graph. This machine as both executors and `featray doctor` count it, and whether a Ray cluster is there.

Asked before anything heavy is loaded, so Ray is imported only where a GPU may be.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

_GPU_DEVICES: Final = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")
"""What a driver of NVIDIA, of Windows below WSL 2, and of AMD leaves; without one there is no GPU to count."""


def on_cluster() -> bool:
    """Return whether a Ray cluster is there to connect to: inside `ray job submit`, or named by RAY_ADDRESS."""
    ray = sys.modules.get("ray")
    return bool(os.environ.get("RAY_ADDRESS")) or (ray is not None and bool(ray.is_initialized()))


def local_cpus() -> int:
    """Return the CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def local_gpus() -> float:
    """Return the GPUs of this machine that this process may use and torch knows as `cuda`."""
    if not any(Path(device).exists() for device in _GPU_DEVICES):
        return 0.0
    from featray.graph.ray_internals import usable_gpus

    return usable_gpus()


def gpu_model() -> str:
    """Return the name of the first GPU, as its driver gives it."""
    import torch

    return str(torch.cuda.get_device_name(0))
