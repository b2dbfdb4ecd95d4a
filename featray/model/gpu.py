"""Model. The GPU of this process: open it, detect when it is out of memory, and free its memory.

The functions import torch, not the module, because a run uses this module long before it needs torch.
"""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING, Final

from featray.errors import ModelError

if TYPE_CHECKING:
    import torch

STAND_IN: Final = "FEATRAY_GPU_STAND_IN"
"""Environment variable for tests: with `cpu`, torch's CPU device replaces the GPU. This tests everything except CUDA:
its kernels' rounding, its streams, its memory and its system calls."""

_NO_MEMORY: Final = ("out of memory", "_ALLOC_FAILED")
"""Parts of messages such as `CUDA error: out of memory` and `CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate`."""


def has_stand_in() -> bool:
    """Return whether the CPU stands in for a GPU."""
    return os.environ.get(STAND_IN) == "cpu"


def open_gpu(setting: str, fix: str) -> torch.device:
    """Return the first CUDA device of this process. TF32 is switched off, because fp32 parity would be lost.

    Args:
        setting: the setting that asks for a GPU, for the message.
        fix: the setting that avoids the GPU, for the message.

    Raises:
        ModelError: torch sees no CUDA device.
    """
    import torch

    if has_stand_in():
        return torch.device("cpu")
    if not torch.cuda.is_available():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        shown = "" if visible is None else f" (with CUDA_VISIBLE_DEVICES={visible!r})"
        raise ModelError(
            f"{setting}, but torch {torch.__version__}{shown} sees no CUDA device on {platform.node()}; "
            f"fix its driver, or {fix}"
        )
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda", 0)


def lacks_memory(error: RuntimeError) -> bool:
    """Return whether the GPU ran out of memory: by type for torch's allocator, by text for driver, cuBLAS and cuDNN."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _NO_MEMORY)


def free_unused(device: torch.device) -> None:
    """Return torch's cached memory to the GPU, after all queued work is done."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
