"""Graph. This machine as both executors and `featray doctor` count it, and whether a Ray cluster is there.

Asked before anything heavy is loaded, so Ray is imported only where a GPU may be.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_GPU_DEVICES: Final = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")
"""What a driver of NVIDIA, of Windows below WSL 2, and of AMD leaves; without one there is no GPU to count."""


def on_cluster() -> bool:
    """Return whether a Ray cluster is there to connect to: inside `ray job submit`, or named by RAY_ADDRESS."""
    ray = sys.modules.get("ray")
    return bool(os.environ.get("RAY_ADDRESS")) or (ray is not None and bool(ray.is_initialized()))


def local_cpus() -> int:
    """Return the CPUs that this process may use: by its affinity, its container's quota, and Slurm's share; 1 or more.

    Slurm binds a task to its CPUs only where an administrator has set that up. Its variables are there in any job, the
    first one of them only if the job was given CPUs a task.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shares = [float(allowed), cgroup_quota()]
    told = (os.environ.get(name, "") for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"))
    shares += [float(cpus) for cpus in told if cpus.isdigit()]
    return max(1, math.floor(min(shares)))


def cgroup_quota(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """Return the CPUs that a container's quota comes to, the least on the way to the root; infinite if there is none.

    Args:
        root: where the control groups are mounted; both versions are read.
        own: which groups this process is in, as the kernel lists them.
    """
    try:
        groups = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return math.inf
    quotas = [math.inf]
    for _, controllers, path in groups:
        if not controllers:
            quotas += [_quota(folder / "cpu.max") for folder in _upwards(root, path)]
        elif "cpu" in controllers.split(","):
            for folder in _upwards(root / "cpu", path):
                quotas.append(_quota(folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us"))
    return min(quotas)


def _upwards(root: Path, path: str) -> Iterator[Path]:
    """The folders of a group and of those above it; inside a container only the last of them is there."""
    folder = root / path.lstrip("/")
    yield folder
    while folder != root and root in folder.parents:
        folder = folder.parent
        yield folder


def _quota(*files: Path) -> float:
    """Microseconds in a period over the period's; `max` and -1 are no quota."""
    try:
        quota, period = " ".join(file.read_text() for file in files).split()
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError):
        return math.inf


def local_gpus() -> float:
    """Return the GPUs of this machine that this process may use and torch knows as `cuda`."""
    if not any(Path(device).exists() for device in _GPU_DEVICES):
        return 0.0
    from featray.graph.ray_internals import usable_gpus

    return usable_gpus()


def gpu_model() -> str | None:
    """Return the name of the first GPU, as its driver gives it; None if torch sees none."""
    import torch

    if not torch.cuda.is_available():
        return None
    return str(torch.cuda.get_device_name(0))
