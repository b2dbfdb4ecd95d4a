"""Cost of embeddings: CPU seconds of the same job without and with them, in turns.

Every run is a separate process, with the network in full size and synthetic weights; CPU time is that of the process
and its children. Prints a line a run and the share; asserts nothing.

    .venv/bin/python -m tests.benchmarks.bench_identify --seconds 20 --rounds 3
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import yaml

import featray
from tests.fixtures.corpus import run_ffmpeg

CLIP = Path(featray.__file__).parent / "demo_clips" / "face.mp4"


def run(folder: Path, name: str, *, identify: bool) -> float:
    """Run the job, and return its CPU seconds."""
    config = {
        "dataset": "bench",
        "input": {"uris": [f"{folder}/in/*.mp4"]},
        "output": {"uri": f"{folder}/{name}"},
        "cluster": {"executor": "local"},
        "identify": {"enabled": True, "accept_biometric": True} if identify else {},
    }
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(config))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "featray", "run", str(file)], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "in").mkdir()
        for number in range(options.clips):
            copy = str(folder / "in" / f"{number}.mp4")
            run_ffmpeg("-t", str(options.seconds), "-i", str(CLIP), "-c", "copy", copy)
        seconds: dict[bool, list[float]] = {False: [], True: []}
        for turn in range(options.rounds):
            for identify in (False, True) if turn % 2 == 0 else (True, False):
                spent = run(folder, f"out-{turn}-{identify}", identify=identify)
                seconds[identify].append(spent)
                print(f"round {turn} {'with' if identify else 'without'} embeddings: {spent:.1f} s of CPU", flush=True)
        without, with_them = median(seconds[False]), median(seconds[True])
        print(f"median {without:.1f} s without, {with_them:.1f} s with: {100 * (with_them / without - 1):+.2f} %")


if __name__ == "__main__":
    main()
