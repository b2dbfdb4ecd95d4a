"""Cost of a unit and memory in long runs of many small units.

`featray run` in a separate process on a few tiny videos, then on more, then on many (links to one clip of four small
frames; the small network). Prints the cost of a unit from one size to the next, and the resident memory of each
kind of process at four moments of the longest run. The network is not measured; asserts nothing.

    .venv/bin/python -m tests.benchmarks.bench_growth
    .venv/bin/python -m tests.benchmarks.bench_growth --executor local --units 10 110      # as in `make bench`
    .venv/bin/python -m tests.benchmarks.bench_growth --units 10 15000      # a soak of half an hour, or an hour
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from tests.benchmarks import clips
from tests.benchmarks.bench_job import processes_below

_SAMPLE_SECONDS = 5.0


def run(folder: Path, clip: Path, units: int, executor: str) -> tuple[float, list[dict[str, float]]]:
    """Return wall seconds, and memory every few seconds (MB, by kind of process)."""
    inputs = folder / f"in-{units}"
    inputs.mkdir()
    for number in range(units):
        (inputs / f"{number:06d}.mp4").symlink_to(clip)
    config = folder / f"{units}.yaml"
    sections = {
        "dataset": "growth",
        "input": {"uris": [f"{inputs}/*.mp4"]},
        "output": {"uri": str(folder / f"out-{units}")},
        "model": {"checkpoint": "synthetic:atto"},
        "cluster": {"executor": executor},
    }
    config.write_text(yaml.safe_dump(sections))
    memory = []
    start = time.monotonic()
    with subprocess.Popen([sys.executable, "-m", "featray", "run", str(config), "--log-line"]) as process:
        while process.poll() is None:
            time.sleep(min(_SAMPLE_SECONDS, 0.5 + time.monotonic() - start))
            memory.append(resident_mb(process.pid))
    if process.returncode:
        raise SystemExit(f"featray run {config}: exit status {process.returncode}")
    return time.monotonic() - start, memory


def resident_mb(root: int) -> dict[str, float]:
    """Return the present resident memory of the largest process of each kind."""
    found: dict[str, float] = {}
    for kind, status in processes_below(root):
        if "VmRSS:" in status:
            found[kind] = max(found.get(kind, 0), int(status.partition("VmRSS:")[2].split()[0]) / 1024)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--units", type=int, nargs="+", default=[10, 1000, 10_000], help="of the runs, one after another"
    )
    parser.add_argument("--executor", choices=["auto", "local", "ray"], default="auto")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    found: dict[str, Any] = {"units": options.units, "wall_s": []}
    memory: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="featray-bench-") as scratch:
        folder = Path(scratch)
        clip = clips.tiny(folder / "tiny.mp4")
        for units in options.units:
            wall, memory = run(folder, clip, units, options.executor)
            found["wall_s"].append(wall)
            print(f"{units:7} units: {wall:.1f} s", flush=True)
    sizes = list(zip(options.units, found["wall_s"], strict=True))
    for (fewer, before), (more, after) in pairwise(sizes):
        print(f"from {fewer} to {more} units: {1000 * (after - before) / (more - fewer):.1f} ms a unit")
    found["memory_mb"] = [memory[len(memory) * quarter // 4 - 1] for quarter in (1, 2, 3)] + memory[-3:-2]
    for kind in sorted({kind for moment in found["memory_mb"] for kind in moment}):
        sizes_mb = ", ".join(f"{moment.get(kind, 0):.0f}" for moment in found["memory_mb"])
        print(f"{kind}: {sizes_mb} MB at a quarter, half, three quarters and the end")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
