"""Graph. How many workers of which kind, and whether they fit, from what the cluster has. Pure arithmetic."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from featray.config import ClusterConfig
from featray.errors import ConfigError, counted

log = logging.getLogger(__name__)

_INFER_PER_DECODE = 6
"""On CPUs, one decode worker (some 40 frames/s at 360p) feeds about six inference threads (some 7 faces/s each)."""

LIGHT_CPUS: Final = 0.05
"""Of a worker that waits for storage: planning and landing."""

_INFER_PER_LANDING = 16
"""A CPU worker gives a part every ten seconds or so, which takes a tenth of a second to write; a GPU gives several a
second, so each has a landing worker of its own."""

_SPARE_CPUS = 0.4
"""Left for planning, landing and publishing, which mostly wait for storage."""

_LEAST_CPUS = 0.05
"""A worker's logical share may shrink to this, so that all fit on the nodes; it bounds nothing but placement."""

_SHARED_GPU: Final = 0.5
"""Of a GPU, for inference, where decode workers take the other half."""

_NODES_SHOWN = 3


@dataclass(frozen=True)
class Node:
    """A node's resources; `memory_bytes` is what Ray gives to workers."""

    cpus: float
    gpus: float
    memory_bytes: float
    gpu_model: str | None = None


@dataclass(frozen=True)
class Workers:
    """Actors of the two heavy stages and what each asks Ray for.

    Attributes:
        plan, decode, infer, land: numbers of actors.
        decode_cpus, infer_cpus, infer_gpus, decode_gpus: logical resources an actor.
        memory_bytes: that each of them asks for; None: not asked for.
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
    """Return whether the network runs on GPUs: the cluster has some, or will, and the config does not forbid it."""
    there = gpus if config.gpus == "auto" else config.gpus
    return there > 0 and config.gpus_per_worker != 0


def choose_workers(nodes: Sequence[Node], config: ClusterConfig, decode_gpus: float = 0.0) -> Workers:
    """Fill the cluster: on GPUs one inference actor each and decoding on all CPUs, else both share the CPUs.

    Args:
        nodes: of the cluster as it is; `config.cpus` and `config.gpus`, if given, say what it will be.
        config: what the user wants.
        decode_gpus: share of a GPU that each decode worker needs; of them there are as many then as GPUs have room.

    Raises:
        ConfigError: the cluster can never hold what the config asks for, and is not said to grow.
    """
    cpus = sum(node.cpus for node in nodes) if config.cpus == "auto" else config.cpus
    decode, infer, infer_gpus = _counts(nodes, config, cpus, decode_gpus)
    return _sized(decode, infer, (infer_gpus, decode_gpus), cpus, nodes, config)


def local_workers(cpus: int, gpu: bool, config: ClusterConfig, decode_gpus: float = 0.0) -> Workers:
    """Return the workers of a run in one process: decoding threads, and CPU threads of the one engine.

    Args:
        cpus: of this process; `config.cpus` may ask for fewer.
        gpu: whether the network runs on a GPU.
        config: what the user wants; its resources a worker are for clusters.
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
    """Workers for what is left of a cluster, or has come to it; None if it does not hold one of each kind.

    Promised nodes do not count here, and numbers of workers that the config names are upper bounds.

    Args:
        nodes: of the cluster as it is.
        config: what the user wants.
        infer_gpus: of an inference worker, as at the start: the run's precision, and so its release, hang on them.
        decode_gpus: of a decode worker, as at the start.
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
        # What the config says of their sizes holds, so that there are fewer of them.
        if decode >= infer:
            decode -= max(1, decode // 10)
        else:
            infer -= max(1, infer // 10)


def _counts(nodes: Sequence[Node], config: ClusterConfig, cpus: float, decode_gpus: float) -> tuple[int, int, float]:
    """Numbers of decode and of inference workers, and the GPUs that one of the latter asks for."""
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
    """Decode workers that find their share beside inference. Shares are of one GPU: what two have left is not added."""
    left = 1 - min(1.0, -(-infer // gpus) * infer_gpus)
    return gpus * int(left / decode_gpus + 1e-6)


def _sized(
    decode: int, infer: int, gpus_each: tuple[float, float], cpus: float, nodes: Sequence[Node], config: ClusterConfig
) -> Workers:
    infer_gpus, _ = gpus_each
    # A worker with a GPU asks for that only: decoders that came first could hold all CPUs of the GPU's node.
    sharing = decode if infer_gpus else decode + infer
    each = min(1.0, int(100 * (cpus - _SPARE_CPUS) / sharing) / 100)
    return _made_to_fit(decode, infer, gpus_each, each, nodes, config)


def _made_to_fit(
    decode: int, infer: int, gpus_each: tuple[float, float], each: float, nodes: Sequence[Node], config: ClusterConfig
) -> Workers:
    """The workers, with the largest CPU share up to `each` that lets every one be placed on some node.

    A worker with a GPU asks for no CPU (one fewer decodes for it): else decode workers could fill the
    nodes with GPUs, and both would wait forever.
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
        if problem := unplaced(with_share(most), nodes):
            log.warning("%s; they wait for the nodes that cluster.cpus and cluster.gpus promise", problem)
        return with_share(most)
    problem = None
    while share >= _LEAST_CPUS:
        workers = with_share(share)
        problem = unplaced(workers, nodes)
        if problem is None:
            return workers
        share = round(share - 0.01, 2)
    raise ConfigError(
        f"{problem}; ask for fewer or smaller ones, or say with cluster.cpus and cluster.gpus how far the cluster grows"
    )


def unplaced(workers: Workers, nodes: Sequence[Node], *, light: bool = False) -> str | None:
    """Return what finds no place on the nodes, as a message; None if all do. Inference is placed first.

    Args:
        workers: to be placed.
        nodes: as if nothing ran on them.
        light: whether planning and landing need a place too. They take theirs before a lost worker starts again.
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
    """How many such workers a node can take."""
    pairs = ((node.cpus, asked.cpus), (node.gpus, asked.gpus), (node.memory_bytes, asked.memory_bytes))
    return max(0, int(min((has / wants for has, wants in pairs if wants), default=0.0) + 1e-6))


def _described(node: Node) -> str:
    return f"{counted(node.cpus, 'CPU')}, {counted(node.gpus, 'GPU')}, {node.memory_bytes / 2**30:.1f} GiB"


def _plan_workers(decode: int) -> int:
    """Planning reads a header where decoding reads a video: one planner keeps eight decoders busy."""
    return max(1, decode // 8)


def _gpus_per_worker(gpus: float, config: ClusterConfig, *, shared: bool) -> float:
    if config.gpus_per_worker == "auto":
        return (_SHARED_GPU if shared else 1.0) if gpus >= 1 else 0.0
    return config.gpus_per_worker
