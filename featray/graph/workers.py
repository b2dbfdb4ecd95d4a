"""Graph. Compute the numbers of workers, and whether they fit, from the cluster's resources. Pure arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from featray.config import ClusterConfig
from featray.errors import ConfigError, counted

_INFER_PER_DECODE = 6
"""On CPUs, one decode worker (about 40 frames/s at 360p) feeds about six inference threads (about 7 faces/s each)."""

LIGHT_CPUS: Final = 0.05
"""Logical CPUs of a worker that mostly waits for storage: planning and landing."""

_INFER_PER_LANDING = 16
"""A CPU worker produces a part about every ten seconds, and writing it takes a tenth of a second. A GPU produces
several per second, so each has its own landing worker."""

_SPARE_CPUS = 0.4
"""CPUs left for planning, landing and publishing, which mostly wait for storage."""

_LEAST_CPUS = 0.05
"""A worker's logical share may shrink to this, so that all fit on the nodes; it affects only placement."""

_SHARED_GPU: Final = 0.5
"""Share of a GPU for inference if decode workers take the other half."""

_NODES_SHOWN = 3


@dataclass(frozen=True)
class Node:
    """A node's resources; `memory_bytes` is the memory that Ray gives to workers."""

    cpus: float
    gpus: float
    memory_bytes: float
    gpu_model: str | None = None


@dataclass(frozen=True)
class Workers:
    """Numbers of actors, and the resources that each requests from Ray.

    Attributes:
        plan, decode, infer, land: numbers of actors.
        decode_cpus, infer_cpus, infer_gpus, decode_gpus: logical resources per actor.
        memory_bytes: memory per decode and inference actor; None: not requested.
    """

    plan: int
    decode: int
    infer: int
    land: int
    decode_cpus: float
    infer_cpus: float
    infer_gpus: float
    memory_bytes: int | None = None
    decode_gpus: float = 0.0


def expects_gpu(gpus: float, config: ClusterConfig) -> bool:
    """Return whether the network runs on GPUs: the cluster has or will have some, and the config does not forbid it."""
    there = gpus if config.gpus == "auto" else config.gpus
    return there > 0 and config.gpus_per_worker != 0


def choose_workers(nodes: Sequence[Node], config: ClusterConfig, decode_gpus: float = 0.0) -> Workers:
    """Return workers that fill the cluster: one inference actor per GPU and decoding on all CPUs, else both on CPUs.

    Args:
        nodes: the cluster's current nodes; `config.cpus` and `config.gpus`, if set, describe the fully grown cluster.
        config: the user's settings.
        decode_gpus: share of a GPU that each decode worker needs; it limits the number of decode workers.

    Raises:
        ConfigError: the cluster cannot hold the requested workers, and is not configured to grow.
    """
    cpus = sum(node.cpus for node in nodes) if config.cpus == "auto" else config.cpus
    decode, infer, infer_gpus = _counts(nodes, config, cpus, decode_gpus)
    return _sized(decode, infer, (infer_gpus, decode_gpus), cpus, nodes, config)


def local_workers(cpus: int, gpu: bool, config: ClusterConfig, decode_gpus: float = 0.0) -> Workers:
    """Return the workers of a run in one process: decoding threads, and CPU threads of the single engine.

    Args:
        cpus: CPUs of this process; `config.cpus` may request fewer.
        gpu: whether the network runs on a GPU.
        config: the user's settings; its resources per worker apply only to clusters.
        decode_gpus: as for `choose_workers`.
    """
    cpus = cpus if config.cpus == "auto" else max(1, min(cpus, int(config.cpus)))
    per_worker = _SHARED_GPU if gpu and decode_gpus else float(gpu)
    here = config.model_copy(update={"cpus": "auto", "gpus": "auto", "gpus_per_worker": per_worker})
    node = Node(cpus, float(gpu or decode_gpus > 0), math.inf)
    decode, infer, infer_gpus = _counts([node], here, cpus, decode_gpus)
    land = max(1, -(-infer // _INFER_PER_LANDING))
    return Workers(1, decode, infer, land, 1.0, 1.0, infer_gpus, decode_gpus=decode_gpus)


def choose_again(
    nodes: Sequence[Node], config: ClusterConfig, infer_gpus: float, decode_gpus: float = 0.0
) -> Workers | None:
    """Return workers for the cluster's current nodes after a loss; None if it cannot hold one of each kind.

    Nodes that are only announced do not count, and numbers of workers in the config are upper bounds.

    Args:
        nodes: the cluster's current nodes.
        config: the user's settings.
        infer_gpus: GPUs of an inference worker, as at the start, since precision and release depend on them.
        decode_gpus: GPUs of a decode worker, as at the start.
    """
    here = config.model_copy(update={"cpus": "auto", "gpus": "auto", "gpus_per_worker": infer_gpus})
    free = here.model_copy(update={"decode_workers": "auto", "infer_workers": "auto"})
    cpus = sum(node.cpus for node in nodes)
    decode, infer, _ = _counts(nodes, free, cpus, decode_gpus)
    decode = min(decode, config.decode_workers) if config.decode_workers != "auto" else decode
    infer = min(infer, config.infer_workers) if config.infer_workers != "auto" else infer
    while True:
        try:
            workers = _sized(decode, infer, (infer_gpus, decode_gpus), cpus, nodes, here)
        except ConfigError:
            workers = None
        if workers is not None and unplaced(workers, nodes, light=True) is None:
            return workers
        if decode == infer == 1:
            return None
        # The configured sizes of workers are kept, so their number is reduced.
        if decode >= infer:
            decode -= max(1, decode // 10)
        else:
            infer -= max(1, infer // 10)


def _counts(nodes: Sequence[Node], config: ClusterConfig, cpus: float, decode_gpus: float) -> tuple[int, int, float]:
    """Return the numbers of decode and inference workers, and the GPUs per inference worker."""
    gpus = sum(node.gpus for node in nodes) if config.gpus == "auto" else config.gpus
    infer_gpus = _gpus_per_worker(gpus, config, shared=decode_gpus > 0)
    if infer_gpus:
        share = _SHARED_GPU if decode_gpus else 1.0
        here = [node.gpus for node in nodes]
        most = sum(int(share * there / infer_gpus) for there in ([gpus] if config.grows else here))
        infer = config.infer_workers if config.infer_workers != "auto" else max(1, most)
        decode = config.decode_workers if config.decode_workers != "auto" else max(1, int(cpus) - infer)
    else:
        few = max(1, round(cpus / (_INFER_PER_DECODE + 1)))
        decode = config.decode_workers if config.decode_workers != "auto" else few
        infer = (
            config.infer_workers if config.infer_workers != "auto" else max(1, round(cpus) - (few if cpus > 4 else 0))
        )
    if decode_gpus and config.decode_workers == "auto":
        decode = max(1, min(decode, _decoders_on_gpus(max(1, int(gpus)), infer, infer_gpus, decode_gpus)))
    return decode, infer, infer_gpus


def _decoders_on_gpus(gpus: int, infer: int, infer_gpus: float, decode_gpus: float) -> int:
    """Return how many decode workers fit next to inference. A share must lie on one GPU: remainders do not add up."""
    left = 1 - min(1.0, -(-infer // gpus) * infer_gpus)
    return gpus * int(left / decode_gpus + 1e-6)


def _sized(
    decode: int, infer: int, gpus_each: tuple[float, float], cpus: float, nodes: Sequence[Node], config: ClusterConfig
) -> Workers:
    infer_gpus, _ = gpus_each
    # A GPU worker requests only its GPU: decoders placed first could hold all CPUs of its node.
    sharing = decode if infer_gpus else decode + infer
    each = min(1.0, int(100 * (cpus - _SPARE_CPUS) / sharing) / 100)
    return _made_to_fit(decode, infer, gpus_each, each, nodes, config)


def _made_to_fit(
    decode: int, infer: int, gpus_each: tuple[float, float], each: float, nodes: Sequence[Node], config: ClusterConfig
) -> Workers:
    """Return the workers with the largest CPU share up to `each` with which all can be placed on nodes.

    A GPU worker requests no CPU, and one decode worker fewer is planned for it: otherwise decode workers
    could fill the nodes with GPUs, and both would wait forever.
    """
    infer_gpus, decode_gpus = gpus_each

    def with_share(share: float) -> Workers:
        return Workers(
            plan=_plan_workers(decode),
            decode=decode,
            infer=infer,
            land=infer if infer_gpus else -(-infer // _INFER_PER_LANDING),
            decode_cpus=share if config.decode_cpus == "auto" else config.decode_cpus,
            infer_cpus=config.infer_cpus if config.infer_cpus != "auto" else 0.0 if infer_gpus else share,
            infer_gpus=infer_gpus,
            memory_bytes=None if config.memory_gib is None else int(config.memory_gib * 2**30),
            decode_gpus=decode_gpus,
        )

    most = share = max(each, _LEAST_CPUS)
    if config.grows:
        return with_share(most)
    problem = None
    while share >= _LEAST_CPUS:
        workers = with_share(share)
        problem = unplaced(workers, nodes)
        if problem is None:
            return workers
        share = round(share - 0.01, 2)
    raise ConfigError(
        f"{problem}; request fewer or smaller ones, or set cluster.cpus and cluster.gpus to the fully grown cluster's"
    )


def unplaced(workers: Workers, nodes: Sequence[Node], *, light: bool = False) -> str | None:
    """Return a message about workers that do not fit on the nodes; None if all fit. Inference is placed first.

    Args:
        workers: workers to be placed.
        nodes: nodes with their total resources.
        light: whether planning and landing need a place too. They take theirs before a lost worker restarts.
    """
    left = list(nodes)
    memory = workers.memory_bytes or 0
    for name, count, asked in (
        ("cluster.infer_workers", workers.infer, Node(workers.infer_cpus, workers.infer_gpus, memory)),
        ("cluster.decode_workers", workers.decode, Node(workers.decode_cpus, workers.decode_gpus, memory)),
        ("planning and landing", light * (workers.plan + workers.land), Node(LIGHT_CPUS, 0, 0)),
    ):
        missing = count
        for i, node in enumerate(left):
            here = min(missing, _room(node, asked))
            missing -= here
            left[i] = Node(
                node.cpus - here * asked.cpus,
                node.gpus - here * asked.gpus,
                node.memory_bytes - here * asked.memory_bytes,
            )
        if missing:
            wants = f"{counted(asked.cpus, 'CPU')}, {counted(asked.gpus, 'GPU')}"
            wants += f", {asked.memory_bytes / 2**30:g} GiB" if asked.memory_bytes else ""
            has = "; ".join(sorted({_described(node) for node in nodes})[:_NODES_SHOWN])
            return (
                f"{name}: {missing} of {counted(count, 'worker')} of {wants} find no place on the cluster's "
                f"{counted(len(nodes), 'node')} ({has})"
            )
    return None


def _room(node: Node, asked: Node) -> int:
    """Return how many such workers a node can hold."""
    pairs = ((node.cpus, asked.cpus), (node.gpus, asked.gpus), (node.memory_bytes, asked.memory_bytes))
    return max(0, int(min((has / wants for has, wants in pairs if wants), default=0.0) + 1e-6))


def _described(node: Node) -> str:
    return f"{counted(node.cpus, 'CPU')}, {counted(node.gpus, 'GPU')}, {node.memory_bytes / 2**30:.1f} GiB"


def _plan_workers(decode: int) -> int:
    """Return the number of planners: planning reads only headers, so one planner keeps eight decoders busy."""
    return max(1, decode // 8)


def _gpus_per_worker(gpus: float, config: ClusterConfig, *, shared: bool) -> float:
    if config.gpus_per_worker == "auto":
        return (_SHARED_GPU if shared else 1.0) if gpus >= 1 else 0.0
    return config.gpus_per_worker
