"""Weights. OpenVINO for the network and the detectors: on the CPU, without telemetry, without core pinning."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


def import_openvino() -> ModuleType:
    """Import `openvino` without telemetry, which it sends on import unless its telemetry module is missing."""
    if "openvino" not in sys.modules:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    module: ModuleType = openvino
    return module


def has_bf16(core: Any) -> bool:
    """Return whether this CPU has bf16 instructions that OpenVINO uses."""
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def compile_model(core: Any, model: Any, *, streams: int = 1, precision: str = "f32") -> Any:
    """Compile a model for `streams` concurrent requests, each on one thread; RuntimeError if OpenVINO cannot.

    `precision` is "f32" or "bf16"; by default OpenVINO would use bf16 on CPUs that have it.
    """
    properties = {
        "INFERENCE_NUM_THREADS": streams,
        "NUM_STREAMS": streams,
        # With pinning, the threads of several processes would share the same cores.
        "ENABLE_CPU_PINNING": False,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
    }
    return core.compile_model(model, "CPU", properties)
