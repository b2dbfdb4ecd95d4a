"""Model. The torch engine: for GPUs, and for CPUs if OpenVINO is not installed.

Rows do not depend on their batch. On a CPU every batch has the same shape, and a row varies
by at most 2e-6 with its position. On a GPU the libraries choose kernels by batch shape, of
which there are few: expect 1e-5 in fp32, and a fraction of the error of bf16 in bf16. Chips
travel through pinned memory. If GPU memory runs out, the batch is halved.
"""

from __future__ import annotations

import logging
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featray.errors import ConfigError, ModelError
from featray.model.checkpoint import Checkpoint
from featray.model.engines import EngineSettings, check_chips
from featray.model.gpu import free_unused, lacks_memory, open_gpu
from featray.model.network import ChipTrunk, FlatHeads, load_network
from featray.model.outputs import RawOutputs, flat_widths, split_flat
from featray.model.recipes import make_recipe
from featray.model.streams import Streams
from featray.names import CHIP_PX

_log = logging.getLogger(__name__)

_CPU_BATCH: Final = 4
"""Fixed batch size on a CPU, whatever the configured one: larger batches exceed the caches (15 % slower)."""

_SMALLEST_BUCKET: Final = 8


class TorchEngine:
    """`Engine` on torch. Use `open_torch`."""

    name = "torch"

    def __init__(self, checkpoint: Checkpoint, settings: EngineSettings, device: torch.device) -> None:
        self.precision = settings.precision
        self.device = "cuda:0" if device.type == "cuda" else "cpu"
        self._on_gpu = device.type == "cuda"
        self._torch_device = device
        self._config = checkpoint.config
        self._width = sum(flat_widths(checkpoint.config).values())
        network = load_network(checkpoint)
        if settings.precision == "bf16":
            network.set_compute_dtype(torch.bfloat16)
        self._trunk = ChipTrunk(make_recipe(settings.recipe), network).eval().to(device)
        heads = FlatHeads(network).eval()
        network.backbone.to(memory_format=torch.channels_last)
        self._stride = None if self._on_gpu else _CPU_BATCH
        lanes = 1 if self._on_gpu else settings.num_threads
        batch_size = settings.batch_size if self._on_gpu else _CPU_BATCH
        self._streams = Streams([_Lane(self._trunk, heads, device, batch_size) for _ in range(lanes)])

    def __call__(self, chips: NDArray[np.uint8]) -> RawOutputs:
        """Run the network on chips `[N, 256, 256, 3]` uint8 RGB, any N >= 0.

        Raises:
            ModelError: the GPU's memory is too small for a single chip's activations.

        """
        check_chips(chips)
        flat = torch.empty((len(chips), self._width), dtype=torch.float32, pin_memory=self._on_gpu)
        stride = self._stride or max(len(chips), 1)

        def run(lane: _Lane, start: int) -> None:
            lane(chips[start : start + stride], flat[start : start + stride])

        self._streams.run(run, range(0, len(chips), stride))
        # Copied, so that results do not keep pinned memory alive.
        return split_flat(flat.numpy().copy() if self._on_gpu else flat.numpy(), self._config)

    def stop(self) -> None:
        """See `Engine`."""
        self._streams.stop()

    def is_usable(self) -> bool:
        """See `Engine`. Computes a small sum on the device."""
        try:
            return bool((torch.ones(2, device=self._torch_device) + 1).sum().item() == 4)
        except RuntimeError:
            return False


class _Lane:
    """Runs batches one after the other, on a CPU thread or on a GPU, where copies overlap with computation."""

    def __init__(self, trunk: ChipTrunk, heads: FlatHeads, device: torch.device, batch_size: int) -> None:
        self._trunk, self._heads, self._device = trunk, heads, device
        self._on_gpu = device.type == "cuda"
        self._turn = 0
        self._set_batch_size(batch_size)

    def __call__(self, chips: NDArray[np.uint8], flat: Tensor) -> None:
        """Fill the rows of `flat`, one per chip; ModelError if memory is too small for one chip."""
        with torch.inference_mode():  # applies to the current thread only
            start = 0
            while start < len(chips):
                count = min(self._batch_size, len(chips) - start)
                try:
                    self._run(chips[start : start + count], flat[start : start + count])
                except RuntimeError as error:
                    if not lacks_memory(error):
                        raise
                    if self._batch_size == 1:
                        raise ModelError(
                            "the GPU's memory is too small for the network and one chip; free GPU memory, or set "
                            "cluster.gpus_per_worker: 0"
                        ) from error
                else:
                    start += count
                    continue
                self._shrink()  # not above: the error's traceback holds the batch's activations
            if self._on_gpu:
                torch.cuda.current_stream(self._device).synchronize()

    def _run(self, chips: NDArray[np.uint8], flat: Tensor) -> None:
        """Run one batch. On a GPU everything is queued, and the copy of the next batch overlaps with it."""
        count = len(chips)
        slot = self._turn = 1 - self._turn if self._on_gpu else 0
        if (copied := self._copied[slot]) is not None:
            copied.synchronize()
        staging = self._staging[slot]
        np.copyto(staging.numpy()[:count], chips)
        batch = staging[: self._padded(count)].to(self._device, non_blocking=True)
        if self._on_gpu:
            self._copied[slot] = torch.cuda.current_stream(self._device).record_event()
        flat.copy_(self._heads(*self._trunk(batch))[:count], non_blocking=True)

    def _padded(self, count: int) -> int:
        """Return the number of rows to run for `count` chips: the batch size on a CPU; a power of two >= 8 on a GPU."""
        if not self._on_gpu:
            return self._batch_size
        return min(max(_SMALLEST_BUCKET, 1 << (count - 1).bit_length()), self._batch_size)

    def _set_batch_size(self, batch_size: int) -> None:
        self._batch_size = batch_size
        num_slots = 2 if self._on_gpu else 1
        shape = (batch_size, CHIP_PX, CHIP_PX, 3)
        self._staging = [torch.zeros(shape, dtype=torch.uint8, pin_memory=self._on_gpu) for _ in range(num_slots)]
        self._copied: list[torch.cuda.Event | None] = [None] * num_slots

    def _shrink(self) -> None:
        smaller = self._batch_size // 2
        _log.warning("out of GPU memory with %d chips per batch; continuing with %d", self._batch_size, smaller)
        free_unused(self._device)
        self._set_batch_size(smaller)


def open_torch(checkpoint: Checkpoint, settings: EngineSettings) -> TorchEngine:
    """Open the torch engine on the first CUDA device, or on the CPU with `num_threads` threads.

    Sets process-wide torch options: the thread count, and TF32 off, because fp32 parity would be lost.

    Raises:
        ConfigError: bf16 on a GPU without bf16; torch's emulation is slow.
        ModelError: a GPU is asked for but torch sees none, or the checkpoint cannot be loaded.

    """
    torch.set_num_threads(1)  # one thread per lane; an operation on several threads would round in another order
    if not settings.gpu:
        return TorchEngine(checkpoint, settings, torch.device("cpu"))
    device = open_gpu("a GPU is asked for", "set cluster.gpus_per_worker: 0 to run on CPUs")
    emulated = device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
    if settings.precision == "bf16" and emulated:
        raise ConfigError(f"model.precision: {torch.cuda.get_device_name(0)} has no bf16; use fp32")
    return TorchEngine(checkpoint, settings, device)
