"""The whole job: frames a second with everything included, start-up, memory.

`featray run` in a separate process, as users start it, on a long clip and on a short one; their
difference is the cost of a frame after start-up. --stages also prints the rate that the stages
alone allow on these cores, measured right before and after on all of them at once, because a core is a few
per cent faster while the others are idle. Prints a table, and writes JSON with --json; asserts nothing.

    make bench
    .venv/bin/python -m tests.benchmarks.bench_job --minutes 5 --only "bf16, every 5" --stages
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from featray.weights.openvino_cpu import has_bf16, import_openvino
from tests.benchmarks import clips

SETTINGS: dict[str, dict[str, Any]] = {
    "fp32, dense": {"model": {"precision": "fp32"}, "detect": {"every": 1}},
    "bf16, dense": {"model": {"precision": "bf16"}, "detect": {"every": 1}},
    "bf16, every 5": {"model": {"precision": "bf16"}, "detect": {"every": 5}},
}


def settings_here() -> dict[str, dict[str, Any]]:
    """Return those of SETTINGS that this CPU can run; print the others."""
    left_out = () if has_bf16(import_openvino().Core()) else [name for name in SETTINGS if name.startswith("bf16")]
    for name in left_out:
        print(f"{name}: left out, this CPU has no bf16 instructions")
    return {name: sections for name, sections in SETTINGS.items() if name not in left_out}


_KINDS = {"driver": "featray run", "decoding process": "featray.extract.forkserver", "infer worker": "(Infer)"}
"""Kinds of processes, each with the text of its command line that identifies it."""


def run_job(clip: Path, folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Run once; return wall seconds, and peak memory by kind of process, MB."""
    with tempfile.TemporaryDirectory(dir=folder) as out:
        config = Path(out) / "config.yaml"
        inputs = {"dataset": "bench", "input": {"uris": [str(clip)]}, "output": {"uri": f"{out}/out"}}
        config.write_text(yaml.safe_dump({**inputs, **settings}))
        command = [sys.executable, "-m", "featray", "run", str(config), "--quiet"]
        start = time.monotonic()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            peaks = _Peaks(process.pid)
            _, complaints = process.communicate()
            wall = time.monotonic() - start
        if process.returncode:
            raise SystemExit(f"{' '.join(command)}: exit status {process.returncode}\n{complaints}")
        return {"wall_s": wall, "peak_mb": peaks.stop()}


class _Peaks(threading.Thread):
    """Watches a process and its descendants, and records the largest resident memory of each kind."""

    def __init__(self, root: int) -> None:
        super().__init__(daemon=True)
        self._root, self._done, self._peaks = root, threading.Event(), dict[str, float]()
        self.start()

    def stop(self) -> dict[str, float]:
        self._done.set()
        self.join()
        return self._peaks

    def run(self) -> None:
        while not self._done.wait(0.5):
            for kind, status in processes_below(self._root):
                if "VmHWM:" in status:
                    peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
                    self._peaks[kind] = max(peak, self._peaks.get(kind, 0))


def processes_below(root: int) -> Iterator[tuple[str, str]]:
    """Yield the kind and the /proc status of a process and its descendants, if they have a kind."""
    for pid in [root, *_below(root)]:
        try:
            command = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        for kind, mark in _KINDS.items():
            if mark in command:
                yield kind, status


def _below(root: int) -> list[int]:
    found = []
    for path in Path(f"/proc/{root}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # ended meanwhile
            for child in map(int, path.read_text().split()):
                found += [child, *_below(child)]
    return found


def marginal(name: str, folder: Path, minutes: float) -> dict[str, Any]:
    """Return frames a second of the job: a long run minus a short one."""
    times = max(2, round(minutes * 60 * 24 / clips.FRAMES))
    short, long = clips.plain(folder / "short.mp4"), clips.plain(folder / "long.mp4", times)
    runs = [run_job(clip, folder, SETTINGS[name]) for clip in (short, long)]
    frames = clips.FRAMES * (times - 1)
    rate = frames / (runs[1]["wall_s"] - runs[0]["wall_s"])
    return {"frames_per_s": rate, "short_s": runs[0]["wall_s"], "long_s": runs[1]["wall_s"], **runs[1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.5, help="of the long clip")
    parser.add_argument("--only", choices=SETTINGS, help="one setting instead of all")
    parser.add_argument("--stages", action="store_true", help="compare with what the stages alone allow")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="featray-bench-") as scratch:
        folder = Path(scratch)
        three_seconds = clips.first_frames(folder / "three.mp4", 72)
        runs = [run_job(three_seconds, folder, SETTINGS["fp32, dense"])["wall_s"] for _ in range(2)]
        found["start"] = {"first_s": runs[0], "again_s": runs[1]}
        print(f"72 frames, Ray started for it: {runs[0]:.1f} s, and once more {runs[1]:.1f} s")
        for name in [options.only] if options.only else settings_here():
            stages = measure_stages(folder) if options.stages else []
            one = found[name] = marginal(name, folder, options.minutes)
            peaks = ", ".join(f"{kind} {mb:.0f} MB" for kind, mb in sorted(one["peak_mb"].items()))
            print(f"{name:14} {one['frames_per_s']:6.2f} frames/s, whole long run {one['long_s']:.0f} s; peak {peaks}")
            if options.stages:
                stages += measure_stages(folder)
                one["stages_allow_frames_per_s"] = allowed = sum(allowed_by(core, name) for core in stages) / 2
                print(
                    f"{'':14} {allowed:6.2f} frames/s is what the stages alone allow: "
                    f"{one['frames_per_s'] / allowed:.0%} of it"
                )
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


def measure_stages(folder: Path) -> list[dict[str, Any]]:
    """Run bench_stages on every core at once, and return the result of each."""
    places = [folder / f"stages-{core}.json" for core in os.sched_getaffinity(0)]
    command = [sys.executable, "-m", "tests.benchmarks.bench_stages", "--job", "--json"]
    copies = [subprocess.Popen([*command, str(place)], stdout=subprocess.DEVNULL) for place in places]
    if any([copy.wait() for copy in copies]):
        raise SystemExit(f"{' '.join(command)}: failed")
    return [json.loads(place.read_text()) for place in places]


def allowed_by(stages: dict[str, Any], name: str) -> float:
    """Return frames a second of 360p with one face, on the core of the measurement, if only the stages took time."""
    precision, every = name.split(",")[0], 5 if "every 5" in name else 1
    before = stages["stages"][f"360p, 1 face, every {every}"]["decode_detect_crop_ms_a_frame"]
    after = stages["infer_ms_a_face"][f"openvino {precision}"] + sum(stages["tables"].values())
    return 1000 / (before + after)


if __name__ == "__main__":
    main()
