"""Throughput by number of nodes, if cores are not the limit: python -m tests.benchmarks.bench_scaling.

Ray nodes on this machine, one decode worker a node, and videos on an S3 server with a delay. Units are
short, and the detector gets a small frame and finds no face, so that workers wait more than they compute. The rate is
that of the middle of a run, between a fifth and four fifths of its units, so starting workers and running dry are not
included. It is printed with the cores of this machine in use; if these are nearly all, the rate has no meaning.

    .venv/bin/python -m tests.benchmarks.bench_scaling --latency 1 1 2 4
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import fsspec
import ray
from ray.cluster_utils import Cluster
from rich.console import Console

from featray.config import Config, parse_config
from featray.run.progress import Progress
from featray.run.runner import run
from tests.fixtures import s3

UNITS_A_VIDEO = 30
"""Units of the clip with 472 frames, at 16 frames a unit."""


class Clocked(Progress):
    """Records the time at which each unit was counted, and the CPU time of this machine's cores until then."""

    def __init__(self) -> None:
        super().__init__(Console(file=io.StringIO()), quiet=True)
        self.units: list[tuple[float, float]] = []

    def update(self) -> None:
        """Record a unit."""
        self.units.append((time.monotonic(), _busy_seconds()))


def _busy_seconds() -> float:
    """Return busy seconds of all cores since the machine started, for all processes."""
    user, nice, system = Path("/proc/stat").read_text().split()[1:4]
    return (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")


@contextmanager
def nodes(count: int) -> Iterator[None]:
    """Start a head for everything light, and nodes that each have room for one decode worker."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for _ in range(count):
        cluster.add_node(num_cpus=2)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    try:
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()


def config_for(count: int, out: str, options: dict[str, Any]) -> Config:
    """Return a config with as many videos as nodes, so that each run takes as long as the others if it scales."""
    return parse_config(
        {
            "dataset": "bench",
            "input": {"uris": [f"s3://videos/{i}.mp4" for i in range(count)], "storage_options": options},
            "output": {"uri": out},
            "decode": {"unit_frames": 16},
            "detect": {"input_px": 64, "min_score": 1.0},
            "model": {"checkpoint": "synthetic:atto", "engine": "openvino"},
            "cluster": {"decode_workers": count, "decode_cpus": 1.5, "infer_workers": 1, "infer_cpus": 0.1},
        }
    )


def measure(count: int, options: dict[str, Any]) -> tuple[float, float]:
    """Return units a second in the middle of the run, and the cores in use meanwhile."""
    with tempfile.TemporaryDirectory() as out, nodes(count):
        clocked = Clocked()
        summary = run(config_for(count, out, options), clocked)
    assert summary.videos["ok"] == count, summary
    assert len(clocked.units) == count * UNITS_A_VIDEO, len(clocked.units)
    total = len(clocked.units)
    (first, busy_first), (last, busy_last) = clocked.units[total // 5], clocked.units[total * 4 // 5]
    return (total * 4 // 5 - total // 5) / (last - first), (busy_last - busy_first) / (last - first)


def main() -> None:
    """Print a line for each number of nodes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nodes", nargs="*", type=int, default=[1, 2, 4])
    parser.add_argument("--latency", type=float, default=1.0, help="Seconds before each answer of the storage.")
    asked = parser.parse_args()
    os.environ.update(RAY_BACKEND_LOG_LEVEL="fatal", OMP_NUM_THREADS="1", RAY_USAGE_STATS_ENABLED="0")
    clip = str(files("featray") / "demo_clips" / "face.mp4")
    with s3.server() as upstream:
        store = fsspec.filesystem("s3", endpoint_url=upstream, key="test", secret="test")
        store.mkdir("videos")
        for i in range(max(asked.nodes)):
            store.put_file(clip, f"videos/{i}.mp4")
        slow = s3.Proxy(upstream, every=1 << 30, stall_seconds=0, latency_seconds=asked.latency)
        options = {"endpoint_url": slow.url, "key": "test", "secret": "test"}
        alone = 0.0
        for count in asked.nodes:
            slow.counts.clear()
            rate, cores = measure(count, options)
            alone = alone or rate / count
            requests = slow.counts["all"] / (count * UNITS_A_VIDEO)
            print(
                f"{count} nodes, {asked.latency:g} s a request: {rate:.2f} units/s, {rate / (count * alone):.0%} of "
                f"linear; {requests:.1f} requests a unit; {cores:.1f} of {os.cpu_count()} cores in use",
                flush=True,
            )
        slow.close()


if __name__ == "__main__":
    main()
