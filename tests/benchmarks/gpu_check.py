"""Checks that need a GPU, in under eight minutes: parity, out-of-memory, speed, detection and cropping, NVDEC.

For a bare machine with CUDA: Python with torch, torchvision, timm, safetensors and numpy, and this checkout. Ray,
OpenVINO, PyAV and py-feat may be absent; a part that needs one of them prints one line and is left out. Each part runs
in a separate process with its own time limit, so a part that fails, hangs or breaks the GPU's context affects no other.

    make gpu-check                                               if featray is installed
    python3 tests/benchmarks/gpu_check.py --json gpu-check.json  if it is not
    python3 tests/benchmarks/gpu_check.py --device cpu --quick   a rehearsal of seconds, on torch's CPU instead of a GPU

Prints tables and writes the same numbers as JSON. Weights are synthetic. Exit status: 0 all parts are done or left out,
and all results that must be equal are; 1 a part failed, or ran out of its time; 2 bad usage, or no GPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import json
import logging
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
import traceback
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

DATA = ROOT / "tests" / "data"
TORCH_NEEDS = ("torch", "torchvision", "timm", "safetensors", "numpy")
PARITY_VARIANTS = ("atto", "v25", "v28", "v24", "v26headframe", "v23mefl")
FP32_BOUND, FP32_MESH_BOUND = 1e-4, 1e-3
"""Bounds between featray and py-feat on a CPU."""


def stand_in_for_pydantic() -> None:
    """Allow featray's config classes to be created without pydantic: defaults and given values, without checks.

    Enough for configs that this file writes itself; it does not test that a wrong one is refused.
    """

    class BaseModel:
        model_fields: ClassVar[dict[str, None]] = {}

        def __init_subclass__(cls) -> None:
            cls.model_fields = cls.model_fields | dict.fromkeys(inspect.get_annotations(cls))

        def __init__(self, **values: Any) -> None:
            self.__dict__.update({name: values.get(name, getattr(self, name, None)) for name in self.model_fields})

        def model_dump(self) -> dict[str, Any]:
            return dict(self.__dict__)

        @classmethod
        def model_validate(cls, values: dict[str, Any]) -> BaseModel:
            return cls(**{name: value for name, value in values.items() if name in cls.model_fields})

    def decorator(*_: Any, **__: Any) -> Callable[[Any], Any]:
        return lambda function: function

    def default_of(default: Any = None, **_: Any) -> Any:
        return default

    pydantic = types.ModuleType("pydantic")
    contents = {"BaseModel": BaseModel, "ConfigDict": dict, "Field": default_of, "TypeAdapter": default_of}
    contents |= {
        "field_validator": decorator,
        "model_validator": decorator,
        "ValidationError": type("V", (Exception,), {}),
    }
    pydantic.__dict__.update(contents)
    sys.modules["pydantic"] = pydantic


@dataclass
class Check:
    """State shared by the parts.

    Attributes:
        on_gpu: whether there is a GPU; otherwise torch's CPU replaces it.
        quick: whether this is a rehearsal, with the smallest sizes and counts.
        folder: folder of synthetic checkpoints.
        found: results of earlier parts, by name.
    """

    on_gpu: bool
    quick: bool
    folder: Path
    found: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def device(self) -> Any:
        import torch

        return torch.device("cuda", 0) if self.on_gpu else torch.device("cpu")

    def checkpoint(self, variant: str) -> Any:
        """Return synthetic weights, written at first use."""
        from featray.model.checkpoint import read_checkpoint
        from featray.model.synth import SYNTHETIC_VARIANTS, write_synthetic

        path = self.folder / f"{variant}.safetensors"
        if not path.exists():
            write_synthetic(path, config=SYNTHETIC_VARIANTS[variant])
        return read_checkpoint(path)

    def engine(self, variant: str, precision: str, batch_size: int, *, gpu: bool = True) -> Any:
        """Return the torch engine; in a rehearsal the GPU's engine runs on the CPU, by the GPU's code path."""
        from featray.model.engines import open_engine

        settings = {"engine": "torch", "precision": precision, "batch_size": batch_size}
        return open_engine(self.checkpoint(variant), **settings, gpu=gpu)

    def chips(self, count: int) -> Any:
        import numpy as np

        return np.random.default_rng(count).integers(0, 256, (count, 256, 256, 3), np.uint8)

    def synchronize(self) -> None:
        if self.on_gpu:
            import torch

            torch.cuda.synchronize()

    def seconds(self, call: Callable[[], object], budget_s: float = 2.0) -> float:
        """Return median seconds of a call, to its end on the device, after three warm-up calls."""
        for _ in range(1 if self.quick else 3):
            call()
        self.synchronize()
        turns: list[float] = []
        end = time.perf_counter() + budget_s
        while len(turns) < (1 if self.quick else 5) or (
            not self.quick and time.perf_counter() < end and len(turns) < 200
        ):
            start = time.perf_counter()
            call()
            self.synchronize()
            turns.append(time.perf_counter() - start)
        return statistics.median(turns)


class LeftOut(Exception):
    """Raised by a part that cannot run here, with the reason."""


def needs(*names: str) -> None:
    for name in names:
        try:
            there = importlib.util.find_spec(name) is not None
        except (ImportError, ValueError):  # blocked, or partly installed
            there = False
        if not there:
            raise LeftOut(f"{name} is not installed")


def machine(check: Check) -> dict[str, Any]:
    """Return names and versions."""
    import torch

    found: dict[str, Any] = {"python": platform.python_version(), "torch": torch.__version__, "cpus": os.cpu_count()}
    absent = []
    for name in ("ray", "openvino", "av", "pydantic", "feat", "triton"):
        try:
            needs(name)
        except LeftOut:
            absent.append(name)
    found["absent"] = absent
    if check.on_gpu:
        properties = torch.cuda.get_device_properties(0)
        free, total = torch.cuda.mem_get_info(0)
        found |= {
            "card": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "memory_gib": round(total / 2**30, 1),
            "free_gib": round(free / 2**30, 1),
        }
    print(f"  {found.get('card', 'CPU')}, torch {found['torch']}; absent: {', '.join(absent) or 'nothing'}")
    return found


def ceilings(check: Check) -> dict[str, Any]:
    """Measure matrix products and copies, the upper bounds of speed."""
    import torch

    side = 8192 if check.on_gpu else 256
    torch.backends.cuda.matmul.allow_tf32 = False
    found = {}
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        a, b = (torch.randn(side, side, device=check.device, dtype=dtype) for _ in range(2))
        found[f"matmul_{name}_tflops"] = 2 * side**3 / check.seconds(lambda a=a, b=b: a @ b) / 1e12
    size = 1 << (30 if check.on_gpu else 22)
    source, target = (torch.empty(size, dtype=torch.uint8, device=check.device) for _ in range(2))
    found["copy_gb_per_s"] = 2 * size / check.seconds(lambda: target.copy_(source)) / 1e9
    for name, pinned in (("pinned", check.on_gpu), ("pageable", False)):
        host = torch.ones(1 << (28 if check.on_gpu else 20), dtype=torch.uint8, pin_memory=pinned)
        part = target[: len(host)]
        upload = check.seconds(lambda host=host, part=part: part.copy_(host, non_blocking=True))
        found[f"upload_{name}_gb_per_s"] = len(host) / upload / 1e9
    for name, value in found.items():
        print(f"  {name:24} {value:10.3g}")
    return found


def face_chips() -> Any:
    """Return the four chips of the tests, `[4, 256, 256, 3]`; the bounds of bf16 are for these."""
    import numpy as np

    return np.ascontiguousarray(np.load(DATA / "crop.npz")["chips"].transpose(0, 2, 3, 1))


def deviations(found: Any, expected: Any) -> dict[str, float]:
    """Return the largest absolute difference of each output."""
    import numpy as np

    names = [name for name in vars(expected) if getattr(expected, name) is not None]
    return {name: float(np.abs(getattr(found, name) - getattr(expected, name)).max()) for name in names}


def parity(check: Check) -> dict[str, Any]:
    """Compare every variant on the GPU, in fp32 and bf16, with fp32 on the CPU; and a batch with single chips."""
    from featray.model.engines import bf16_deviations

    variants = ("atto",) if check.quick else PARITY_VARIANTS
    chips, found, failed = face_chips()[: 3 if check.quick else None], {}, []
    for variant in variants:
        expected = check.engine(variant, "fp32", 4, gpu=False)(chips)
        bounds = bf16_deviations(check.checkpoint(variant).config)
        for precision in ("fp32", "bf16"):
            engine = check.engine(variant, precision, 16)
            raw = engine(chips)
            off = deviations(raw, expected)
            alone = deviations(
                engine(chips[2:3]), type(raw)(**{n: None if v is None else v[2:3] for n, v in vars(raw).items()})
            )
            limits = bounds if precision == "bf16" else {n: FP32_MESH_BOUND if n == "mesh" else FP32_BOUND for n in off}
            bad = [name for name, value in off.items() if not value <= limits[name]]
            failed += [f"{variant} {precision} {name}: {off[name]:.2g}, at most {limits[name]:g}" for name in bad]
            found[f"{variant} {precision}"] = {"off": off, "alone": max(alone.values()), "ok": not bad}
            worst = max(off, key=lambda name: off[name] / limits[name])
            print(
                f"  {variant:14} {precision}  worst {worst} {off[worst]:.1e} of {limits[worst]:g}; "
                f"a chip alone {max(alone.values()):.1e}  {'ok' if not bad else 'OFF'}"
            )
    return {"variants": found, "failed": failed}


@contextmanager
def little_memory(check: Check, left_bytes: int) -> Iterator[None]:
    """Fill the GPU except for `left_bytes`, as another process would."""
    import torch

    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(0)
    filler = torch.empty(max(free - left_bytes, 0), dtype=torch.uint8, device=check.device)
    try:
        yield
    finally:
        del filler
        torch.cuda.empty_cache()


def memory(check: Check) -> dict[str, Any]:
    """Check a GPU that is nearly full: batches are halved until they fit, and the numbers do not change."""
    if not check.on_gpu:
        raise LeftOut("a CPU's memory is not filled; the tests make up the error")
    import numpy as np
    import torch

    from featray.faces.on_gpu import BatchedNetwork

    warnings: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: warnings.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("featray").addHandler(handler)
    engine, chips = check.engine("v25", "fp32", 256), check.chips(300)
    expected = engine(chips)
    with little_memory(check, 1200 << 20):
        raw = engine(chips)
    off, halved = max(deviations(raw, expected).values()), len(warnings)
    detector = BatchedNetwork(mnv1(), check.device, 64)
    pictures = list(np.random.default_rng(0).integers(0, 256, (64, 1080, 1920, 3), np.uint8))
    with little_memory(check, 2 << 30):
        detector(pictures)
    peak = torch.cuda.max_memory_allocated() / 2**30
    print(f"  network: numbers moved by {off:.1e}; peak {peak:.1f} GiB")
    for warning in warnings:
        print(f"  {warning}")
    failed = [] if off < FP32_MESH_BOUND else [f"numbers moved by {off:.2g} when the batch was halved"]
    if not halved:
        failed.append("the network's memory did not run out: fill more")
    if detector.batch_frames == 64:
        failed.append("the detector's memory did not run out: fill more")
    return {"off": off, "warnings": warnings, "detector_batch": detector.batch_frames, "failed": failed}


def flops_a_face() -> float:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from featray.model.network import ChipTrunk, FlatHeads, MultitaskNet
    from featray.model.recipes import make_recipe
    from featray.model.synth import SYNTHETIC_VARIANTS

    with torch.device("meta"):  # only shapes
        network = MultitaskNet(SYNTHETIC_VARIANTS["v25"]).eval()
        chips = torch.zeros((1, 256, 256, 3), dtype=torch.uint8)
    trunk, heads = ChipTrunk(make_recipe("pyfeat").to("meta"), network), FlatHeads(network)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        heads(*trunk(chips))
    return float(counter.get_total_flops())


def engine(check: Check) -> dict[str, Any]:
    """Measure faces a second, from chips in memory to numbers in memory, by batch, and py-feat's on the same card."""
    flops = flops_a_face()
    batches = (1,) if check.quick else (8, 16, 32, 64, 128, 256)
    precisions = ("fp32",) if check.quick else ("bf16", "fp32")
    found: dict[str, Any] = {"gflop_a_face": flops / 1e9, "faces_per_s": {}, "share_of_matmul": {}}
    top = check.found.get("ceilings", {})
    for precision in precisions:
        ours = check.engine("v25", precision, max(batches))
        for batch in batches:
            chips = check.chips(batch)
            speed = batch / check.seconds(lambda ours=ours, chips=chips: ours(chips))
            ceiling = top.get(f"matmul_{precision}_tflops", 0) * 1e12 / flops
            found["faces_per_s"][f"{precision} {batch}"] = speed
            found["share_of_matmul"][f"{precision} {batch}"] = speed / ceiling if ceiling else None
            share = f", {100 * speed / ceiling:.0f} % of the ceiling" if ceiling else ""
            print(f"  v25 {precision} batch {batch:4}: {speed:9.1f} faces/s{share}")
    found["pyfeat"] = pyfeat(check, batches)
    return found


def pyfeat(check: Check, batches: tuple[int, ...]) -> dict[str, float] | str:
    """Measure py-feat's MultitaskModel (amp) on chips that are already floats on the device, its input type."""
    import torch

    try:
        needs("feat")
        from feat.multitask.inference import MultitaskModel
    except (LeftOut, ImportError) as error:
        print(f"  py-feat: left out: {error}")
        return str(error)
    device = "cuda" if check.on_gpu else "cpu"
    theirs = MultitaskModel(device=device, weights_path=str(check.checkpoint("v25").path), amp=check.on_gpu)
    found = {}
    for batch in batches:
        floats = torch.from_numpy(check.chips(batch)).permute(0, 3, 1, 2).float().div(255).to(check.device)
        found[str(batch)] = batch / check.seconds(lambda floats=floats: theirs(floats))
        print(f"  py-feat amp batch {batch:4}: {found[str(batch)]:9.1f} faces/s")
    return found


def graphs(check: Check) -> dict[str, Any]:
    """Measure the network as it is, compiled, and as a CUDA graph, on a batch on the device."""
    import torch

    from featray.model.network import ChipTrunk, FlatHeads, load_network
    from featray.model.recipes import make_recipe

    if not check.on_gpu:
        raise LeftOut("CUDA graphs need a GPU, and compiling for the CPU says nothing of one")
    network = load_network(check.checkpoint("v25"))
    network.set_compute_dtype(torch.bfloat16)
    trunk = ChipTrunk(make_recipe("pyfeat"), network).eval().to(check.device)
    heads = FlatHeads(network).eval()
    network.backbone.to(memory_format=torch.channels_last)

    def whole(chips: Any) -> Any:
        return heads(*trunk(chips))

    ways: dict[str, Callable[[Any], Callable[[Any], Any]]] = {
        "as it is": lambda chips: whole,
        "CUDA graph": lambda chips: as_graph(whole, chips),
        "compiled": lambda chips: torch.compile(whole),
        "compiled, CUDA graph": lambda chips: torch.compile(whole, mode="reduce-overhead"),
    }
    found: dict[str, Any] = {}
    with torch.inference_mode():
        for batch in (64, 256):
            chips = torch.from_numpy(check.chips(batch)).to(check.device)
            expected = whole(chips).clone()
            for name, make in ways.items():
                try:
                    start = time.perf_counter()
                    run = make(chips)
                    off = float((run(chips) - expected).abs().max())
                    check.synchronize()
                    first = time.perf_counter() - start
                    speed = batch / check.seconds(lambda run=run, chips=chips: run(chips))
                except Exception as error:  # noqa: BLE001 - if one method fails, the others still run
                    why = found[f"{name} {batch}"] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
                    print(f"  {name:22} batch {batch:4}: failed: {why[:80]}")
                    continue
                found[f"{name} {batch}"] = {"faces_per_s": speed, "first_s": first, "off": off}
                made = f"the first after {first:5.1f} s, moved {off:.1e}"
                print(f"  {name:22} batch {batch:4}: {speed:9.1f} faces/s, {made}")
    return found


def as_graph(call: Callable[[Any], Any], given: Any) -> Callable[[Any], Any]:
    """Capture a call as a graph that reads `given`; arguments of later calls are copied into it."""
    import torch

    still, side = given.clone(), torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call(still)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call(still)

    def run(chips: Any) -> Any:
        still.copy_(chips)
        graph.replay()
        return result

    return run


def mnv1() -> Any:
    from featray.faces.mnv1_network import load_mnv1

    return load_mnv1((ROOT / "featray" / "faces" / "assets" / "retinaface_mnv1_025.onnx").read_bytes())


def detection(check: Check) -> dict[str, Any]:
    """Check that the shipped detector and the cutting of chips equal the CPU's, and measure their speed."""
    import numpy as np
    import torch

    from featray.config import DetectConfig
    from featray.faces.crop import crop_squares, cut_chip
    from featray.faces.on_gpu import BatchedNetwork, GpuCutter
    from featray.faces.retinaface import decode_outputs

    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False
    rng, failed, found = np.random.default_rng(0), [], {}
    noise = rng.integers(0, 256, (1 if check.quick else 12, 360, 640, 3), np.uint8)
    pictures = [*np.ascontiguousarray(face_chips()[..., ::-1]), *noise]
    expected = BatchedNetwork(mnv1(), torch.device("cpu"), 1)(pictures)
    raw = BatchedNetwork(mnv1(), check.device, 16 if check.on_gpu else 2)(pictures)
    found["raw_off"] = max(
        float(np.abs(a - b).max()) for x, y in zip(raw, expected, strict=True) for a, b in zip(x, y, strict=True)
    )
    settings = DetectConfig(min_score=0.3)
    boxes = [
        [
            decode_outputs(*one, input_hw_px=p.shape[:2], frame_wh_px=p.shape[1::-1], settings=settings).box_xyxy
            for one, p in zip(of, pictures, strict=True)
        ]
        for of in (raw, expected)
    ]
    same = all(len(a) == len(b) for a, b in zip(*boxes, strict=True))
    found["boxes"] = sum(map(len, boxes[1]))
    found["boxes_off_px"] = (
        max((float(np.abs(a - b).max(initial=0)) for a, b in zip(*boxes, strict=True)), default=0.0) if same else None
    )
    if not same or found["boxes_off_px"] > 1e-3 or found["raw_off"] > 1e-3:
        failed.append(f"detector: off by {found['raw_off']:.2g}, boxes by {found['boxes_off_px']} px")
    print(
        f"  detector: raw outputs off by {found['raw_off']:.1e}, {found['boxes']} boxes by {found['boxes_off_px']} px"
    )
    cutter = GpuCutter(check.device)
    for name, (height, width) in {"360p": (360, 640), "1080p": (1080, 1920)}.items():
        frame = rng.integers(0, 256, (height, width, 3), np.uint8)
        (square,) = crop_squares(np.array([[0.4 * width, -9.5, 0.4 * width + 0.3 * height, 0.4 * height]]))
        if not np.array_equal(cut_chip(frame, square, cutter), cut_chip(frame, square)):
            failed.append(f"a chip of {name} differs from the CPU's")
        found[f"cut_ms {name}"] = 1e3 * check.seconds(lambda f=frame, s=square: cut_chip(f, s, cutter))
        found[f"cut_cpu_ms {name}"] = 1e3 * check.seconds(lambda f=frame, s=square: cut_chip(f, s))
        print(f"  a chip of {name}: {found[f'cut_ms {name}']:.2f} ms, on the CPU {found[f'cut_cpu_ms {name}']:.2f} ms")
    for batch in (1,) if check.quick else (1, 4, 16, 64):
        network = BatchedNetwork(mnv1(), check.device, batch)
        given = list(rng.integers(0, 256, (batch, 360, 640, 3), np.uint8))
        found[f"detect_frames_per_s {batch}"] = batch / check.seconds(lambda n=network, g=given: n(g))
        print(f"  detector, 640x360, batch {batch:3}: {found[f'detect_frames_per_s {batch}']:9.1f} frames/s")
    return {**found, "failed": failed}


def nvdec(check: Check) -> dict[str, Any]:
    """Check that the video decoder's pictures, through PyAV, equal the CPU's, and measure its speed."""
    needs("av")
    import av
    import numpy as np

    from featray.errors import ConfigError, ModelError
    from featray.video.nvdec import as_from_cpu, check_nvdec, make_hwaccel

    try:
        check_nvdec()
    except (ConfigError, ModelError) as error:
        raise LeftOut(str(error)) from None
    clip = ROOT / "featray" / "demo_clips" / "face.mp4"

    def decode(hwaccel: Any) -> list[Any]:
        with av.open(str(clip), hwaccel=hwaccel) as container:
            container.streams.video[0].codec_context.thread_count = 1
            return [as_from_cpu(frame).to_ndarray() for frame in container.decode(video=0)]

    on_cpu, on_gpu = decode(None), decode(make_hwaccel())
    off = max(int(np.abs(a.astype(int) - b).max()) for a, b in zip(on_cpu, on_gpu, strict=True))
    found = {"frames": len(on_cpu), "off": off}
    for name, make in (("cpu", lambda: None), ("nvdec", make_hwaccel)):
        found[f"{name}_frames_per_s"] = len(on_cpu) / check.seconds(lambda make=make: decode(make()))
    print(f"  {found}")
    return {**found, "failed": [] if off == 0 else [f"NVDEC's pictures are off by {off} grey levels"]}


CPU_MS = {"360p": (0.6, 1.5), "1080p": (13.6, 7.0)}
"""Milliseconds of one Zen 3 core for a frame, from RESULTS.md: decoding (1080p from a camera); RGB and shrunk input."""


def feeding(check: Check) -> dict[str, Any]:
    """Compute the number of decode workers that keep the card busy, from results of this run and CPU decode rates."""
    speeds = check.found.get("engine", {}).get("faces_per_s") or {}
    detected = check.found.get("detection") or {}
    if not speeds or not detected:
        raise LeftOut("needs the parts engine and detection")
    best = max(speeds, key=lambda name: speeds[name])
    frames = [value for name, value in detected.items() if name.startswith("detect_frames_per_s")]
    found: dict[str, Any] = {"faces_per_s": speeds[best], "at": best, "origin": "decoding: RESULTS.md, one Zen 3 core"}
    for name, (decode_ms, convert_ms) in CPU_MS.items():
        cut_ms = detected[f"cut_ms {name}"]
        worker_ms = decode_ms + convert_ms + 1e3 / max(frames) + cut_ms
        gpu_s = 1 / speeds[best] + 1 / max(frames)
        found[name] = {"worker_ms_a_frame": worker_ms, "workers": worker_ms / 1e3 / gpu_s}
        workers = found[name]["workers"]
        print(
            f"  {name}, a face in every frame: a worker takes {worker_ms:.1f} ms a frame, the card {1e3 * gpu_s:.2f}:"
        )
        print(f"    {workers:.1f} workers feed it, with decoding as RESULTS.md has it, not this machine's")
    return found


PARTS: dict[str, tuple[Callable[[Check], dict[str, Any]], int]] = {
    "machine": (machine, 20),
    "ceilings": (ceilings, 30),
    "parity": (parity, 110),
    "memory": (memory, 50),
    "engine": (engine, 80),
    "graphs": (graphs, 110),
    "detection": (detection, 40),
    "nvdec": (nvdec, 25),
    "feeding": (feeding, 5),
}
"""Each part with its limit in seconds: 470 together."""
REHEARSAL_S = 600
"""A rehearsal takes seconds, but may share its processors with a whole suite."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="least sizes: does it run?")
    parser.add_argument("--json", type=Path, default=Path("gpu-check.json"))
    parser.add_argument("--only", choices=PARTS, action="append", help="these parts; may be given more than once")
    options = parser.parse_args()
    missing = [name for name in TORCH_NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        print(f"missing: {', '.join(missing)}; pip install them", file=sys.stderr)
        return 2
    if (
        importlib.util.find_spec("pydantic") is None
        if "pydantic" not in sys.modules
        else sys.modules["pydantic"] is None
    ):
        print("pydantic is not installed: configs are taken unchecked")
        stand_in_for_pydantic()
    import timm  # noqa: F401 - loaded once, for all parts; nothing here may touch CUDA, or the forked parts could not
    import torch  # noqa: F401

    if options.device == "cpu":
        os.environ["FEATRAY_GPU_STAND_IN"] = "cpu"
    with tempfile.TemporaryDirectory() as folder:
        check = Check(options.device == "cuda", options.quick, Path(folder))
        if check.on_gpu and in_process_of_its_own(has_cuda, check, 60) != {"cuda": True}:
            print("torch sees no CUDA device here; --device cpu --quick rehearses without one", file=sys.stderr)
            return 2
        failed = run_parts(check, options.only or list(PARTS))
    result = {"device": options.device, "quick": options.quick, "parts": check.found, "failed": failed}
    options.json.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{'FAILED: ' + '; '.join(failed) if failed else 'all well'}; numbers in {options.json}")
    return 1 if failed else 0


def has_cuda(check: Check) -> dict[str, Any]:
    import torch

    return {"cuda": torch.cuda.is_available()}


def run_parts(check: Check, names: list[str]) -> list[str]:
    """Run parts in their order, and return the failures as text."""
    failed = []
    for name in PARTS:
        if name not in names:
            continue
        part, budget_s = PARTS[name]
        print(f"{name}", flush=True)
        start = time.perf_counter()
        found = check.found[name] = in_process_of_its_own(part, check, REHEARSAL_S if check.quick else budget_s)
        found["seconds"] = round(time.perf_counter() - start, 1)
        if "left_out" in found:
            print(f"  left out: {found['left_out']}")
        failed += [f"{name}: {reason}" for reason in found.get("failed", ())]
    return failed


def in_process_of_its_own(part: Callable[[Check], dict[str, Any]], check: Check, budget_s: int) -> dict[str, Any]:
    """Run a part in a fork, so that torch is loaded once, and return its result; this process must never touch CUDA."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run_part, args=(part, check, theirs))
    process.start()
    theirs.close()
    found: dict[str, Any]
    try:
        found = ours.recv() if ours.poll(budget_s) else {"failed": [f"not done in {budget_s} s"]}
    except EOFError:
        process.join()
        found = {"failed": [f"its process ended ({process.exitcode})"]}
    if process.is_alive():
        process.join(1)
        process.kill()
    process.join()
    return found


def _run_part(part: Callable[[Check], dict[str, Any]], check: Check, connection: Any) -> None:
    try:
        found = part(check)
    except LeftOut as why:
        found = {"left_out": str(why)}
    except Exception as error:  # noqa: BLE001 - a part that fails does not stop the others
        traceback.print_exc()
        found = {"failed": [f"{type(error).__name__}: {str(error)[:300]}"]}
    sys.stdout.flush()
    connection.send(found)


if __name__ == "__main__":
    sys.exit(main())
