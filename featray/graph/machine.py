"""Graph. Count this machine's CPUs and GPUs, for both executors and `featray doctor`, and detect a Ray cluster.

Called before any heavy import, so Ray is imported only if there may be a GPU.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_GPU_DEVICES: Final = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")
"""Devices of the drivers of NVIDIA, of Windows (WSL 2) and of AMD; without one there is no GPU to count."""


def on_cluster() -> bool:
    """Return whether there is a Ray cluster to connect to: inside `ray job submit`, or named by RAY_ADDRESS."""
    ray = sys.modules.get("ray")
    return bool(os.environ.get("RAY_ADDRESS")) or (ray is not None and bool(ray.is_initialized()))


def local_cpus() -> int:
    """Return the CPUs that this process may use: the least of affinity, container quota and Slurm's share, 1 or more.

    Slurm binds a task to its CPUs only if an administrator has configured that. Its variables are set in every job, the
    first one only if the job requests CPUs per task.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shares = [float(allowed), cgroup_quota()]
    told = (os.environ.get(name, "") for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"))
    shares += [float(cpus) for cpus in told if cpus.isdigit()]
    return max(1, math.floor(min(shares)))


def cgroup_quota(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """Return the CPUs of a container's quota, the minimum up to the root group; infinite without a quota.

    Args:
        root: mount point of the control groups; both versions are read.
        own: the kernel's list of this process's groups.
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
    """Yield the folder of a group and its parents; inside a container only the last one exists."""
    folder = root / path.lstrip("/")
    yield folder
    while folder != root and root in folder.parents:
        folder = folder.parent
        yield folder


def _quota(*files: Path) -> float:
    """Return the quota divided by its period; `max` and -1 mean no quota."""
    try:
        quota, period = " ".join(file.read_text() for file in files).split()
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError):
        return math.inf


def local_gpus() -> float:
    """Return the number of this machine's GPUs that this process may use and that torch calls `cuda`."""
    if not any(Path(device).exists() for device in _GPU_DEVICES):
        return 0.0
    from featray.graph.ray_internals import usable_gpus

    return usable_gpus()


def gpu_model() -> str | None:
    """Return the driver's name of the first GPU; None if torch sees none."""
    import torch

    if not torch.cuda.is_available():
        return None
    return str(torch.cuda.get_device_name(0))
