"""Model. Engines run the network on chips. They share one Protocol, are chosen by name and imported when opened.

What must stay true: a face's results do not depend on the batch size, on its position in a
batch or on its neighbours, beyond float rounding (each engine states its bound). Opening
the OpenVINO engine from a warm cache imports no torch.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from featray.errors import ConfigError
from featray.model.checkpoint import Checkpoint
from featray.model.config import CheckpointConfig
from featray.model.outputs import RawOutputs
from featray.names import CHIP_PX

RECIPES: Final = ("pyfeat", "card-center-crop")
PRECISIONS: Final = ("fp32", "bf16")
AUTO: Final = "auto"

_BF16_DEVIATIONS: Final[dict[str, float]] = {
    "au": 0.03,
    "emotion": 0.02,
    "valence_arousal": 0.06,
    "gaze": 0.08,
    "pose": 0.08,
    "mesh": 0.12,
    "blendshapes": 0.02,
}

_BF16_GAZE_IN_HEAD_FRAME: Final = 0.35
"""Gaze in the head's frame rotates with the pose, and with synthetic weights its angles are near a pole. The deviation
is at most 0.17 on the four chips; on 46 chips it is 0.04 on average and 0.58 at most."""


def bf16_deviations(config: CheckpointConfig) -> dict[str, float]:
    """Return the accepted absolute deviation of bf16 from fp32 by output, for synthetic weights.

    The bounds are about twice the deviation measured on four chips. The raw outputs of synthetic weights are
    large (the mesh spans +-8 chips, angles several radians), so trained weights, whose meshes lie within one
    chip, deviate less in absolute terms.
    """
    return _BF16_DEVIATIONS | ({"gaze": _BF16_GAZE_IN_HEAD_FRAME} if config.gaze_head_frame else {})


_ENGINES: Final[dict[str, str]] = {
    "torch": "featray.model.engine_torch:open_torch",
    "openvino": "featray.model.engine_openvino:open_openvino",
}


class Engine(Protocol):
    """Runs the network. `device` is "cpu" or "cuda:0"; `precision` "fp32" or "bf16"."""

    name: str
    precision: str
    device: str

    def __call__(self, chips: NDArray[np.uint8]) -> RawOutputs:
        """Run the network on chips `[N, 256, 256, 3]` uint8 RGB, any N >= 0."""
        ...

    def stop(self) -> None:
        """Make calls in other threads, and all later calls, raise `EngineStopped` before their next batch."""
        ...

    def is_usable(self) -> bool:
        """Return whether the engine still works after an error. A broken CUDA context cannot recover in its process."""
        ...


@dataclass(frozen=True)
class EngineSettings:
    """Settings of an engine; with `cache_dir` None nothing is cached on disk."""

    precision: str
    recipe: str
    batch_size: int
    num_threads: int
    gpu: bool
    cache_dir: Path | None


def choose(engine: str, precision: str, *, gpu: bool) -> tuple[str, str]:
    """Return engine and precision with `auto` resolved: torch and bf16 on a GPU, else OpenVINO and fp32.

    Without OpenVINO installed, a CPU gets torch and fp32. Imports neither torch nor OpenVINO.

    Raises:
        ConfigError: a name is unknown, or OpenVINO is combined with a GPU.

    """
    _check("model.engine", engine, (AUTO, *_ENGINES))
    _check("model.precision", precision, (AUTO, *PRECISIONS))
    if engine == AUTO:
        has_openvino = importlib.util.find_spec("openvino") is not None
        engine = "torch" if gpu or not has_openvino else "openvino"
    if gpu and engine == "openvino":
        raise ConfigError(
            "model.engine: 'openvino' runs on CPUs only; use 'torch', or set cluster.gpus_per_worker: 0 "
            "(above 0, its workers hold GPUs that they do not use)"
        )
    if precision == AUTO:
        precision = "bf16" if gpu else "fp32"
    return engine, precision


def open_engine(
    checkpoint: Checkpoint,
    *,
    engine: str,
    precision: str,
    recipe: str = "pyfeat",
    batch_size: int,
    num_threads: int = 1,
    gpu: bool = False,
    cache_dir: Path | None = None,
) -> Engine:
    """Load `checkpoint` into an engine that is ready to run.

    Args:
        checkpoint: from `read_checkpoint` or `resolve_checkpoint`.
        engine: "auto", "torch" or "openvino".
        precision: "auto", "fp32" or "bf16".
        recipe: how chips become the network's input; see `featray.model.recipes`.
        batch_size: maximum number of chips on the device at once. Results do not depend on it.
        num_threads: CPU threads of the engine; each runs its own batch.
        gpu: run on the process's first CUDA device.
        cache_dir: folder that keeps converted networks between runs.

    Raises:
        ConfigError: a name is unknown, or a size is below 1.
        ModelError: the checkpoint cannot be loaded, or there is no such device.

    """
    engine, precision = choose(engine, precision, gpu=gpu)
    _check("model.recipe", recipe, RECIPES)
    if batch_size < 1 or num_threads < 1:
        raise ConfigError(f"model.batch_size and threads must be at least 1: {batch_size}, {num_threads}")
    module_name, function_name = _ENGINES[engine].split(":")
    opener = getattr(importlib.import_module(module_name), function_name)
    settings = EngineSettings(precision, recipe, batch_size, num_threads, gpu, cache_dir)
    return cast(Callable[[Checkpoint, EngineSettings], Engine], opener)(checkpoint, settings)


def check_chips(chips: NDArray[np.uint8]) -> None:
    """Raise ValueError unless chips are `[N, 256, 256, 3]` uint8."""
    if chips.dtype != np.uint8 or chips.ndim != 4 or chips.shape[1:] != (CHIP_PX, CHIP_PX, 3):
        raise ValueError(f"chips are {chips.dtype} {list(chips.shape)}, not uint8 [N, 256, 256, 3]")


def _check(key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{key}: {value!r} is not one of {', '.join(allowed)}")
