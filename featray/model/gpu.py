"""Model. The GPU of this process: whether there is one, how torch computes on it, and how it runs out of memory.

Torch is imported by the functions, not with the module: a run asks whether it needs a GPU long before it loads any.
"""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING, Final

from featray.errors import ModelError

if TYPE_CHECKING:
    import torch

STAND_IN: Final = "FEATRAY_GPU_STAND_IN"
"""Set to `cpu` in tests, torch's CPU device is taken wherever a GPU is asked for. It shows everything but CUDA itself:
not its kernels' rounding, its streams, its memory, nor what it asks of the system."""

_NO_MEMORY: Final = ("out of memory", "_ALLOC_FAILED")
"""As in `CUDA error: out of memory` and `CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate`."""


def has_stand_in() -> bool:
    """Return whether the CPU stands in for a GPU."""
    return os.environ.get(STAND_IN) == "cpu"


def open_gpu(setting: str, mend: str) -> torch.device:
    """Return the first CUDA device that this process may use, with TF32 off, which would cost fp32 its parity.

    Args:
        setting: that asks for it, for the message.
        mend: what to set where there is none.

    Raises:
        ModelError: torch sees none.
    """
    import torch

    if has_stand_in():
        return torch.device("cpu")
    if not torch.cuda.is_available():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        shown = "" if visible is None else f" (with CUDA_VISIBLE_DEVICES={visible!r})"
        raise ModelError(
            f"{setting}, but torch {torch.__version__}{shown} sees no CUDA device on {platform.node()}; "
            f"fix its driver, or {mend}"
        )
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda", 0)


def lacks_memory(error: RuntimeError) -> bool:
    """Return whether the GPU ran out of memory: the allocator says so by type, the driver, cuBLAS and cuDNN by text."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _NO_MEMORY)


def free_unused(device: torch.device) -> None:
    """Give back to the GPU what torch keeps for later, once all that was queued is done."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
