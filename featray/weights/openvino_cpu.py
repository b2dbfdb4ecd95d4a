"""Weights. OpenVINO as the network and the detectors run it: on the CPU, without usage reports, pinned to no core."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


def import_openvino() -> ModuleType:
    """Import `openvino` with its usage reports off. They are sent on import, unless their module is missing."""
    if "openvino" not in sys.modules:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    module: ModuleType = openvino
    return module


def has_bf16(core: Any) -> bool:
    """Return whether this CPU has instructions for bf16 that OpenVINO uses."""
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def compile_model(core: Any, model: Any, *, streams: int = 1, precision: str = "f32") -> Any:
    """Compile a model of `core` for so many requests at a time, each on one thread. RuntimeError where OpenVINO cannot.

    `precision` is "f32" or "bf16"; without a word OpenVINO takes bf16 wherever the CPU has it.
    """
    properties = {
        "INFERENCE_NUM_THREADS": streams,
        "NUM_STREAMS": streams,
        # Pinned, the threads of several processes land on the same cores.
        "ENABLE_CPU_PINNING": False,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
    }
    return core.compile_model(model, "CPU", properties)
