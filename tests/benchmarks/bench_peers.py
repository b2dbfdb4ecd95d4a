"""Frames a second of alternatives to featray: py-feat by itself, and py-feat in a short Ray Data script.

Same clip, same synthetic checkpoint, identity off. py-feat's RetinaFace-R34 really runs, on weights
from a seed, but its boxes are replaced by fixed ones, so every frame has one face. Each turn is a long
run minus a short one, in a separate process, and alternates with featray. Needs `make parity`'s environment.

    make bench-peers
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks import clips
from tests.benchmarks.bench_job import marginal, settings_here

BOX = [263.1, 62.4, 473.8, 313.6, 0.99]
"""Box of the clip's face, px, and a score."""

_SHORT, _LONG = 16, 64
"""Numbers of frames in py-feat's runs, where a frame takes half a second."""


def write_weights(folder: Path) -> None:
    """Write the multitask checkpoint and the detector's weights, from seeds."""
    from featray.model.synth import SYNTHETIC_VARIANTS, write_synthetic
    from tests.fixtures.r34_weights import write_r34_weights

    write_synthetic(folder / "v25.safetensors", config=SYNTHETIC_VARIANTS["v25"])
    write_r34_weights(folder / "r34.safetensors")


def open_pyfeat(folder: Path, threads: int) -> Any:
    """Return py-feat's Detectorv2, whose detector runs and then returns the fixed box."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import feat.detector_v2 as module
    import torch
    from feat.face_detectors.Retinaface.Retinaface_test import Retinaface
    from safetensors.torch import load_file

    torch.set_num_threads(threads)

    class FixedAnswer:
        def __init__(self, device: str) -> None:
            self._real = Retinaface(device=device, pretrained="none")
            self._real.net.load_state_dict(load_file(folder / "r34.safetensors"), strict=True)

        def __call__(self, frames: Any) -> Any:
            self._real(frames)
            return [[BOX] for _ in frames]

    module.Retinaface = FixedAnswer
    weights = str(folder / "v25.safetensors")
    return module.Detectorv2(device="cpu", identity_model=None, multitask_weights=weights, amp=False)


def pyfeat_seconds(folder: Path, frames: int) -> float:
    """Return wall seconds of py-feat on the first frames of the clip, two threads, batches of 16.

    Frames are read by PyAV: py-feat's own reader, torchcodec, needs CUDA libraries even on a CPU.
    """
    import av
    import numpy as np
    import torch

    detector = open_pyfeat(folder, threads=2)
    start = time.perf_counter()
    with av.open(str(folder / f"{frames}.mp4")) as container:
        images = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2)
    fex = detector.detect(tensor, data_type="tensor", batch_size=16, progress_bar=False)
    assert len(fex) == frames
    return time.perf_counter() - start


def script_seconds(folder: Path, frames: int) -> float:
    """Return wall seconds of the straightforward script: frames from a task, py-feat in two actors, Parquet out."""
    import av
    import numpy as np
    import ray
    import ray.data

    def decode(row: dict[str, Any]) -> Any:
        with av.open(row["path"]) as container:
            for i, frame in enumerate(container.decode(video=0)):
                yield {"frame": i, "image": frame.to_ndarray(format="rgb24")}

    class Detect:
        def __init__(self) -> None:
            self._detector = open_pyfeat(folder, threads=1)

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            import torch

            images = torch.from_numpy(np.ascontiguousarray(batch["image"])).permute(0, 3, 1, 2)
            fex = self._detector.detect(images, data_type="tensor", batch_size=16, progress_bar=False)
            numbers = fex.select_dtypes("number")
            return {str(name): numbers[name].to_numpy() for name in numbers.columns}

    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level="ERROR")
    start = time.perf_counter()
    data = ray.data.from_items([{"path": str(folder / f"{frames}.mp4")}]).flat_map(decode)
    found = data.map_batches(Detect, batch_size=16, compute=ray.data.ActorPoolStrategy(size=2), num_cpus=0.5)
    found.write_parquet(str(folder / f"script-{frames}-{time.time_ns()}"))
    return time.perf_counter() - start


_PEERS = {"py-feat": pyfeat_seconds, "py-feat in a Ray Data script": script_seconds}


def in_process(name: str, folder: Path, frames: int) -> float:
    """Return a peer's seconds, measured in a separate process."""
    command = [sys.executable, "-m", "tests.benchmarks.bench_peers", "--one", name, str(folder), str(frames)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit status {done.returncode}\n{done.stderr[-3000:]}")
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=1.0, help="of featray's long clip")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, folder, frames = options.one
        print(_PEERS[name](Path(folder), int(frames)))
        return
    settings = settings_here()
    rates: dict[str, list[float]] = {name: [] for name in (*_PEERS, *settings)}
    with tempfile.TemporaryDirectory(prefix="featray-bench-") as scratch:
        folder = Path(scratch)
        write_weights(folder)
        for frames in (_SHORT, _LONG):
            clips.first_frames(folder / f"{frames}.mp4", frames)
        for _ in range(options.turns):
            for name in _PEERS:
                seconds = in_process(name, folder, _LONG) - in_process(name, folder, _SHORT)
                rates[name].append((_LONG - _SHORT) / seconds)
            for name in settings:
                rates[name].append(marginal(name, folder, options.minutes)["frames_per_s"])
            print({name: round(turns[-1], 2) for name, turns in rates.items()}, flush=True)
    print(f"{'':30} {'frames/s':>9} {'min':>7} {'max':>7} {'x py-feat':>10} {'min':>6} {'max':>6}")
    for name, turns in rates.items():
        ratios = [ours / theirs for ours, theirs in zip(turns, rates["py-feat"], strict=True)]
        middle, ratio = statistics.median(turns), statistics.median(ratios)
        speeds = f"{middle:9.2f} {min(turns):7.2f} {max(turns):7.2f}"
        print(f"{name:30} {speeds} {ratio:10.2f} {min(ratios):6.2f} {max(ratios):6.2f}")
    if options.json:
        options.json.write_text(json.dumps(rates, indent=2) + "\n")


if __name__ == "__main__":
    main()
