"""onnxruntime as every detector runs it: on the CPU, on one thread, silent."""

from __future__ import annotations

from typing import Any


def open_session(weights: bytes | str) -> Any:
    """An `InferenceSession` of a model's bytes or of the file at a path."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])


def onnx_errors() -> tuple[type[Exception], ...]:
    """What onnxruntime raises: classes without a root of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return tuple(kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception))
