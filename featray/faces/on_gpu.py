"""Faces. Detect faces and cut chips on a GPU (`detect.device: gpu`), in the decoding process.

Frames are decoded and converted on the CPU. The GPU receives the detector's input and, for each face, the part of the
frame that its chip shows; it returns boxes and chips. No frame travels between processes.

What must stay true: results do not depend on which frames share a batch. A picture's results depend only on the shape
of its batch, because libraries choose kernels by shape, and the shape is constant: full batches, padded with black
pictures, when every frame is detected; single frames with `detect.every` above 1, where few are. The order of additions
in a kernel is the same for each picture of a batch; kernels that add in arbitrary order are switched off. If memory
runs out, the batch is halved, which moves boxes by rounding errors (1e-5 px on a CPU).

Chips equal those of `crop.cut_chip` bit for bit: each kernel does one float32 operation, rounded as in IEEE 754.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featray.config import DetectConfig
from featray.errors import ModelError, one_line
from featray.faces.crop import Sampled
from featray.faces.detector import Faces, KnownFile
from featray.faces.retinaface import RawOutputs, decode_outputs
from featray.model.gpu import free_unused, lacks_memory, open_gpu

if TYPE_CHECKING:
    from featray.video.frame import Frame

_log = logging.getLogger(__name__)

BATCH_FRAMES: Final = {"retinaface-mnv1": 16, "retinaface-r34": 4}
"""For the first, a batch of 16 at 640x360 takes 0.3 GB and occupies every multiprocessor of a large GPU. The second
gets whole frames, and 4 of 1080p take 3 GB. These are estimates, not measured on a GPU."""

_SIZES_KEPT: Final = 4

_Taps = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]

Network = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
"""The signature of `RetinaFaceMnv1` and `RetinaFaceR34`."""


def open_device() -> torch.device:
    """Return the GPU of this process.

    Raises:
        ModelError: there is none.
    """
    return open_gpu("detect.device: gpu", "set detect.device: cpu")


class GpuDetector:
    """`Detector` on a GPU: RetinaFace with either backbone."""

    by_picture = True

    def __init__(self, settings: DetectConfig, weights: KnownFile | None) -> None:
        self._settings = settings
        device = open_device()
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        torch.set_num_threads(1)  # parallelism comes from workers, not from threads
        self.batch_frames = BATCH_FRAMES[settings.detector] if settings.every == 1 else 1
        self._network = BatchedNetwork(_load(settings, weights), device, self.batch_frames)
        # CUDA's libraries load on first use: trigger it before the sandbox closes and a unit's time starts.
        self._network([np.zeros((64, 64, 3), np.uint8)])

    def __call__(self, frames: Sequence[Frame]) -> list[Faces]:
        """Return the faces of each frame.

        Raises:
            ModelError: the GPU fails, or its memory is too small for a single frame.
        """
        pictures = [self._picture(frame) for frame in frames]
        try:
            outputs = self._network(pictures)
        except RuntimeError as error:
            raise ModelError(f"the detector failed on the GPU ({one_line(error)})") from error
        return [
            decode_outputs(
                *raw,
                input_hw_px=(picture.shape[0], picture.shape[1]),
                frame_wh_px=(frame.width_px, frame.height_px),
                settings=self._settings,
            )
            for frame, picture, raw in zip(frames, pictures, outputs, strict=True)
        ]

    def _picture(self, frame: Frame) -> NDArray[np.uint8]:
        """Return the detector's input, bit for bit the same as on a CPU."""
        if self._settings.detector == "retinaface-r34":
            from featray.faces.retinaface_r34 import input_picture

            return input_picture(frame, self._settings.long_side_px)
        assert self._settings.long_side_px is not None
        return frame.shrunk_bgr(self._settings.long_side_px)


def _load(settings: DetectConfig, weights: KnownFile | None) -> nn.Module:
    if weights is not None:
        from featray.faces.r34_network import load_r34

        return load_r34(weights.path, weights.sha256)
    from featray.faces.mnv1_network import load_mnv1
    from featray.faces.retinaface_mnv1 import read_weights

    return load_mnv1(read_weights())


class BatchedNetwork:
    """Runs a RetinaFace on pictures, in batches of one shape.

    Args:
        network: takes `[N, H, W, 3]` uint8; is moved to the device.
        device: a CUDA device, or the CPU in tests.
        batch_frames: pictures per batch; halved when memory runs out.
    """

    def __init__(self, network: nn.Module, device: torch.device, batch_frames: int) -> None:
        self._network = network.to(device)
        self._device, self._on_gpu = device, device.type == "cuda"
        self.batch_frames = batch_frames
        self._staging = lru_cache(_SIZES_KEPT)(self._make_staging)

    def __call__(self, pictures: Sequence[NDArray[np.uint8]]) -> list[RawOutputs]:
        """Return the raw outputs for each picture, uint8 `[H, W, 3]`; pictures of one size share batches.

        Raises:
            ModelError: memory is too small for a single picture's activations.
        """
        outputs: dict[int, RawOutputs] = {}
        by_size: dict[tuple[int, ...], list[int]] = {}
        for i, picture in enumerate(pictures):
            by_size.setdefault(picture.shape, []).append(i)
        for same in by_size.values():
            start = 0
            while start < len(same):
                batch = same[start : start + self.batch_frames]
                try:
                    outputs.update(zip(batch, self._run([pictures[i] for i in batch]), strict=True))
                except RuntimeError as error:
                    if not lacks_memory(error):
                        raise
                    if self.batch_frames == 1:
                        raise ModelError(
                            "the GPU's memory is too small for the detector and one frame; set detect.device: cpu"
                        ) from error
                else:
                    start += len(batch)
                    continue
                self._shrink()  # not above: the error's traceback holds the batch's activations
        return [outputs[i] for i in range(len(pictures))]

    def _run(self, pictures: Sequence[NDArray[np.uint8]]) -> list[RawOutputs]:
        staging = self._staging(pictures[0].shape, self.batch_frames)
        filled = staging.numpy()
        for place, picture in zip(filled, pictures, strict=False):
            place[...] = picture
        filled[len(pictures) :] = 0
        with torch.inference_mode():
            loc, score, landmarks = self._network(staging.to(self._device, non_blocking=True))
            flat = torch.cat([loc, score[..., None], landmarks], dim=2)[: len(pictures)].contiguous()
            # Both copies are in one stream; staging is not written again until the stream is synchronized.
            found = torch.empty(flat.shape, dtype=torch.float32, pin_memory=self._on_gpu)
            found.copy_(flat, non_blocking=True)
            if self._on_gpu:
                torch.cuda.current_stream(self._device).synchronize()
        return [(one[:, :4], one[:, 4], one[:, 5:]) for one in found.numpy()]

    def _make_staging(self, shape: tuple[int, ...], batch_frames: int) -> Tensor:
        return torch.zeros((batch_frames, *shape), dtype=torch.uint8, pin_memory=self._on_gpu)

    def _shrink(self) -> None:
        smaller = self.batch_frames // 2
        _log.warning("out of GPU memory with %d frames per batch; continuing with %d", self.batch_frames, smaller)
        self._staging.cache_clear()
        free_unused(self._device)
        self.batch_frames = smaller


class GpuCutter:
    """`crop.interpolate` on a GPU; only the part of the frame that a chip shows is uploaded."""

    def __init__(self, device: torch.device | None = None) -> None:
        self._device = open_device() if device is None else device

    def __call__(self, part_rgb: NDArray[Any], sampled: Sampled) -> NDArray[Any]:
        """Return one chip, `[256, 256, 3]`, from a part of a frame, `[height, width, 3]`; both uint8 or both uint16.

        Raises:
            ModelError: the GPU fails.
        """
        part = np.ascontiguousarray(part_rgb)
        try:
            with torch.inference_mode():
                rows = self._mix(self._upload(part), (sampled.top, sampled.bottom, sampled.down), 0)
                mixed = self._mix(rows, (sampled.left, sampled.right, sampled.across), 1)
                chip = torch.round(mixed).to(torch.uint8 if part.dtype == np.uint8 else torch.int32).cpu().numpy()
        except RuntimeError as error:
            raise ModelError(f"a chip could not be cut on the GPU ({one_line(error)})") from error
        return chip if part.dtype == np.uint8 else chip.astype(np.uint16)

    def _upload(self, part: NDArray[Any]) -> Tensor:
        """Upload pixels as float32, which holds 16-bit integers exactly; torch hardly supports uint16."""
        if part.dtype == np.uint8:
            return torch.from_numpy(part).to(self._device).float()
        return (torch.from_numpy(part.view(np.int16)).to(self._device).int() & 0xFFFF).float()

    def _mix(self, pixels: Tensor, taps: _Taps, axis: int) -> Tensor:
        """Interpolate along an axis: `(b - a) * weight + a`, one kernel per step so that none is fused."""
        first, second, weight = (torch.from_numpy(one).to(self._device) for one in taps)
        a, b = pixels.index_select(axis, first), pixels.index_select(axis, second)
        mixed = (b - a).mul_(weight.view((-1, 1, 1) if axis == 0 else (1, -1, 1)))
        return mixed.add_(a)
