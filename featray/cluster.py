"""How many workers of which kind, from what the cluster has. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

from featray.config import ClusterConfig
from featray.errors import ConfigError

_INFER_PER_DECODE = 6
"""On CPUs, one decode worker (some 40 frames/s at 360p) feeds about six inference threads (some 7 faces/s each)."""

_SPARE_CPUS = 0.4
"""Left for planning, landing and publishing, which mostly wait for storage."""


@dataclass(frozen=True)
class Workers:
    """Actors of the two heavy stages and what each asks Ray for.

    Attributes:
        plan, decode, infer: numbers of actors.
        decode_cpus, infer_cpus, infer_gpus: logical resources an actor.
    """

    plan: int
    decode: int
    infer: int
    decode_cpus: float
    infer_cpus: float
    infer_gpus: float


def choose_workers(cpus: float, gpus: float, config: ClusterConfig) -> Workers:
    """Fill the cluster: on GPUs one inference actor each and decoding on all CPUs, else both share the CPUs.

    Args:
        cpus: of the cluster as it is; `config.cpus`, if given, says what it will be.
        gpus: the same.
        config: what the user wants.

    Raises:
        ConfigError: the cluster can never hold what the config asks for.
    """
    cpus = cpus if config.cpus == "auto" else config.cpus
    gpus = gpus if config.gpus == "auto" else config.gpus
    infer_gpus = _gpus_per_worker(gpus, config)
    if infer_gpus:
        infer = config.infer_workers if config.infer_workers != "auto" else max(1, int(gpus / infer_gpus))
        decode = config.decode_workers if config.decode_workers != "auto" else max(1, int(cpus) - infer)
    else:
        share = max(1, round(cpus / (_INFER_PER_DECODE + 1)))
        decode = config.decode_workers if config.decode_workers != "auto" else share
        infer = (
            config.infer_workers if config.infer_workers != "auto" else max(1, round(cpus) - (share if cpus > 4 else 0))
        )
    if infer * infer_gpus > gpus:
        raise ConfigError(
            f"cluster.infer_workers: {infer} workers of {infer_gpus:g} GPUs need more than the cluster's {gpus:g}"
        )
    # A worker with a GPU asks for that only: decoders that came first could hold all CPUs of the GPU's node.
    sharing = decode if infer_gpus else decode + infer
    each = min(1.0, int(100 * (cpus - _SPARE_CPUS) / sharing) / 100)
    if each <= 0:
        raise ConfigError(f"cluster: {sharing} workers do not fit on {cpus:g} CPUs; ask for fewer")
    return Workers(_plan_workers(decode), decode, infer, each, 0.0 if infer_gpus else each, infer_gpus)


def _plan_workers(decode: int) -> int:
    """Planning reads a header where decoding reads a video: one planner keeps eight decoders busy."""
    return max(1, decode // 8)


def _gpus_per_worker(gpus: float, config: ClusterConfig) -> float:
    if config.gpus_per_worker != "auto":
        if config.gpus_per_worker > gpus:
            raise ConfigError(f"cluster.gpus_per_worker: {config.gpus_per_worker:g} asked, the cluster has {gpus:g}")
        return config.gpus_per_worker
    return 1.0 if gpus >= 1 else 0.0
