"""Faces. `retinaface-r34`: the detector that py-feat uses, with its weights, preprocessing and thresholds.

Its input is the whole frame, RGB, unless `detect.input_px` shrinks it. On a CPU it runs through
OpenVINO in fp32, which takes three quarters of torch's time (205 and 268 ms per 640x360 frame on one
thread); batches gain nothing there. Without OpenVINO, torch runs it.

The converted network takes frames of any size and is cached in the same folder as the converted
multitask networks. Conversion needs torch, 1.4 GB of memory and a few seconds: it runs once per
machine, in a separate process, when a worker starts and not within the time limit of a unit.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featray.config import DetectConfig
from featray.errors import ModelError, one_line
from featray.faces.detector import Faces, KnownFile
from featray.faces.retinaface import RawOutputs, decode_outputs
from featray.video.frame import Frame
from featray.weights.ir_cache import IrCache, ir_key
from featray.weights.openvino_cpu import compile_model, import_openvino

_log = logging.getLogger(__name__)

Network = Callable[[NDArray[np.uint8]], RawOutputs]
"""Runs on one frame, `[H, W, 3]` uint8 RGB."""

_IR, _IR_WEIGHTS = "network.xml", "network.bin"


class RetinaFaceResNet34:
    """Detects faces on whole frames; one thread."""

    batch_frames = 1
    by_picture = True

    def __init__(self, settings: DetectConfig, weights: KnownFile, cache_dir: Path) -> None:
        self._settings = settings
        has_openvino = importlib.util.find_spec("openvino") is not None
        self._network = open_openvino(weights, cache_dir) if has_openvino else open_torch(weights)

    def __call__(self, frames: Sequence[Frame]) -> list[Faces]:
        """Return the faces of each frame."""
        return [self._detect(frame) for frame in frames]

    def _detect(self, frame: Frame) -> Faces:
        image = input_picture(frame, self._settings.long_side_px)
        loc, score, landmarks = self._network(image)
        return decode_outputs(
            loc,
            score,
            landmarks,
            input_hw_px=(image.shape[0], image.shape[1]),
            frame_wh_px=(frame.width_px, frame.height_px),
            settings=self._settings,
        )


def input_picture(frame: Frame, long_side_px: int | None) -> NDArray[np.uint8]:
    """Return the network's input for a frame, uint8 `[H, W, 3]` RGB, shrunk if it is larger than `long_side_px`."""
    if long_side_px is None or long_side_px >= max(frame.width_px, frame.height_px):
        return frame.rgb()
    return np.ascontiguousarray(frame.shrunk_bgr(long_side_px)[..., ::-1])


def open_torch(weights: KnownFile) -> Network:
    """Load the network in torch; it uses torch's threads."""
    import torch

    from featray.faces.r34_network import load_r34

    network = load_r34(weights.path, weights.sha256)

    def run(image: NDArray[np.uint8]) -> RawOutputs:
        with torch.inference_mode():
            loc, score, landmarks = network(torch.from_numpy(image[None]))
        return loc[0].numpy(), score[0].numpy(), landmarks[0].numpy()

    return run


def open_openvino(weights: KnownFile, cache_dir: Path) -> Network:
    """Load the network in OpenVINO, in fp32 on one thread; convert it first if it is not in the cache.

    Raises:
        ModelError: it cannot be converted or compiled.
    """
    core = import_openvino().Core()
    try:
        model = _load_or_convert(weights, cache_dir, lambda files: core.read_model(files[_IR], files[_IR_WEIGHTS]))
        request = compile_model(core, model).create_infer_request()
    except RuntimeError as error:
        raise ModelError(f"{weights.path}: OpenVINO cannot compile it ({one_line(error)})") from error

    def run(image: NDArray[np.uint8]) -> RawOutputs:
        try:
            outputs = request.infer([image[None]], share_inputs=True)
        except RuntimeError as error:
            raise ModelError(f"OpenVINO failed on a frame ({one_line(error)})") from error
        return outputs[0][0], outputs[1][0], outputs[2][0]

    return run


def prepare(weights: KnownFile, cache_dir: Path) -> None:
    """Convert the network for OpenVINO if it is not in the cache.

    Raises:
        ModelError: it cannot be converted.
    """
    if importlib.util.find_spec("openvino") is not None:
        _load_or_convert(weights, cache_dir, lambda files: None)


def _load_or_convert(weights: KnownFile, cache_dir: Path, read: Callable[[Mapping[str, bytes]], Any]) -> Any:
    def make(folder: Path) -> None:
        _log.info("converting %s for OpenVINO", weights.path.name)
        code = "import sys; from featray.faces.retinaface_r34 import convert; convert(*sys.argv[1:])"
        command = [sys.executable, "-c", code, str(weights.path), weights.sha256, str(folder)]
        path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
        if done.returncode:
            reason = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
            raise ModelError(f"{weights.path}: cannot be converted for OpenVINO ({reason[0][:200]})")

    code = [Path(__file__).parent / name for name in ("r34_network.py", "retinaface_r34.py")]
    key = ir_key(f"retinaface-r34-{weights.sha256[:12]}", (weights.sha256, metadata.version("openvino")), code)
    return IrCache(cache_dir / "openvino").load_or_make(key, read=read, make=make)


def convert(weights: str, sha256: str, folder: str) -> None:
    """Convert the network in a file and save it in a folder, in this process."""
    import torch

    from featray.faces.r34_network import load_r34

    ov = import_openvino()
    torch.set_num_threads(1)
    size = torch.export.Dim("height", min=64, max=16384), torch.export.Dim("width", min=64, max=16384)
    example = torch.zeros((1, 360, 640, 3), dtype=torch.uint8)
    with torch.no_grad():
        network = load_r34(Path(weights), sha256)
        exported = torch.export.export(network, (example,), dynamic_shapes=({1: size[0], 2: size[1]},))
        model = ov.convert_model(exported)
    model.inputs[0].get_node().set_partial_shape(ov.PartialShape([1, -1, -1, 3]))
    model.validate_nodes_and_infer_types()
    ov.save_model(model, str(Path(folder) / _IR), compress_to_fp16=False)


def check_tensors(path: Path) -> None:
    """Check that a file has the network's tensors, without importing torch.

    Raises:
        ModelError: it is not a safetensors file, or has other tensors.
    """
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
    except (OSError, safetensors.SafetensorError) as error:
        raise ModelError(f"{path}: is not a safetensors file ({one_line(error)})") from error
    expected = tensor_shapes()
    # torch's count of training steps, which inference does not use.
    found = {name: shape for name, shape in found.items() if not name.endswith("num_batches_tracked")}
    for name in [*expected, *found]:
        if found.get(name) != expected.get(name):
            raise ModelError(
                f"{path}: not the weights of RetinaFace-R34: tensor {name[:100]!r} is {_shown(found.get(name))}, "
                f"not {_shown(expected.get(name))}",
                tensor=name,
            )


def tensor_shapes() -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor of the published file, except counts of training steps."""
    shapes: dict[str, tuple[int, ...]] = {}

    def norm(name: str, channels: int) -> None:
        shapes.update({f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")})

    def block(name: str, inputs: int, outputs: int, kernel: int) -> None:
        shapes[f"{name}.0.weight"] = (outputs, inputs, kernel, kernel)
        norm(f"{name}.1", outputs)

    shapes["body.conv1.weight"] = (64, 3, 7, 7)
    norm("body.bn1", 64)
    inputs = 64
    for layer, (blocks, outputs) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), start=1):
        for i in range(blocks):
            name = f"body.layer{layer}.{i}"
            for conv in (1, 2):
                shapes[f"{name}.conv{conv}.weight"] = (outputs, inputs if conv == 1 else outputs, 3, 3)
                norm(f"{name}.bn{conv}", outputs)
            if inputs != outputs:
                block(f"{name}.downsample", inputs, outputs, 1)
            inputs = outputs
    for i, channels in enumerate((128, 256, 512), start=1):
        block(f"fpn.output{i}", channels, 128, 1)
    for name in ("fpn.merge1", "fpn.merge2"):
        block(name, 128, 128, 3)
    for i in (1, 2, 3):
        widths = {"conv3X3": (128, 64), "conv5X5_1": (128, 32), "conv5X5_2": (32, 32), "conv7X7_2": (32, 32)}
        for name, (wide, narrow) in {**widths, "conv7x7_3": (32, 32)}.items():
            block(f"ssh{i}.{name}", wide, narrow, 3)
        for head, width in (("ClassHead", 2), ("BboxHead", 4), ("LandmarkHead", 10)):
            shapes[f"{head}._convs.{i - 1}.weight"] = (2 * width, 128, 1, 1)
            shapes[f"{head}._convs.{i - 1}.bias"] = (2 * width,)
    return shapes


def _shown(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else str(list(shape))
