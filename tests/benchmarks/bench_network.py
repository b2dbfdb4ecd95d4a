"""Faces a second of the network on one CPU thread: featray's engines compared with py-feat's model.

All run in one process and take turns, so that a busy machine slows them equally. Same
weights (synthetic v25), same chips, one batch a turn. Prints a table; asserts nothing.

    make bench
    .venv-parity/bin/python tests/benchmarks/bench_network.py --rounds 9
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from numpy.typing import NDArray

from featray.errors import ConfigError
from featray.model.checkpoint import Checkpoint, read_checkpoint
from featray.model.engines import open_engine
from featray.model.synth import SYNTHETIC_VARIANTS, write_synthetic

Run = Callable[[], object]

OURS = (("openvino", "fp32"), ("openvino", "bf16"), ("torch", "fp32"), ("torch", "bf16"))


def pyfeat_run(checkpoint: Checkpoint, chips: NDArray[np.uint8]) -> Run:
    """Return a run of py-feat's model, on chips that are already floats, its input type."""
    from feat.multitask.inference import MultitaskModel

    network = MultitaskModel(device="cpu", weights_path=str(checkpoint.path), amp=False)
    floats = torch.from_numpy(chips).permute(0, 3, 1, 2).float() / 255
    return lambda: network(floats)


def our_runs(checkpoint: Checkpoint, chips: NDArray[np.uint8]) -> dict[str, Run]:
    """Return runs of our engines on uint8 chips; those that this CPU cannot run are left out."""
    runs: dict[str, Run] = {}
    for name, precision in OURS:
        try:
            engine = open_engine(checkpoint, engine=name, precision=precision, batch_size=len(chips))
        except ConfigError as error:
            print(f"{name} {precision}: left out: {error}")
            continue
        runs[f"{name} {precision}"] = lambda engine=engine: engine(chips)
    return runs


def take_turns(runs: dict[str, Run], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Return wall and CPU seconds of every turn, after a warm-up of each run."""
    for run in runs.values():
        run()
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            seconds[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return seconds


def cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")


def print_table(seconds: dict[str, list[tuple[float, float]]], batch: int) -> None:
    baseline = seconds["py-feat fp32"]
    print(f"{'':16} {'faces/s':>8} {'min':>7} {'max':>7} {'x py-feat':>10} {'min':>6} {'max':>6} {'faces/CPU s':>12}")
    for name, turns in seconds.items():
        speeds = [batch / wall for wall, _ in turns]
        ratios = [theirs / ours for (ours, _), (theirs, _) in zip(turns, baseline, strict=True)]
        cpu = statistics.median(batch / cpu for _, cpu in turns)
        print(
            f"{name:16} {statistics.median(speeds):8.2f} {min(speeds):7.2f} {max(speeds):7.2f} "
            f"{statistics.median(ratios):10.2f} {min(ratios):6.2f} {max(ratios):6.2f} {cpu:12.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="turns each")
    parser.add_argument("--batch", type=int, default=16, help="faces a turn")
    parser.add_argument("--variant", default="v25", choices=SYNTHETIC_VARIANTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    chips = np.random.default_rng(0).integers(0, 256, (options.batch, 256, 256, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{options.variant}.safetensors"
        write_synthetic(path, config=SYNTHETIC_VARIANTS[options.variant])
        checkpoint = read_checkpoint(path)
        runs = {"py-feat fp32": pyfeat_run(checkpoint, chips), **our_runs(checkpoint, chips)}
        print(f"{cpu_name()}; one thread, batch {options.batch}, {options.variant}, {options.rounds} turns; medians")
        print_table(take_turns(runs, options.rounds), options.batch)


if __name__ == "__main__":
    main()
