"""Faces. `arcface-r50`: the embedder that py-feat's Detectorv2 uses, in torch on the CPU.

Its weights may be used for research alone and do not ship with featray; `embedder_weights.py` finds them. They were
published by InsightFace (Deng, Guo, Xue and Zafeiriou, "ArcFace", CVPR 2019), and converted by py-feat.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from featray.errors import ModelError, one_line
from featray.faces.detector import DetectorFile
from featray.faces.embedder import unit

SIZE_PX: Final = 112
WIDTH: Final = 512
FACES_PER_INFERENCE: Final = 4
"""The fixed batch; the last one is padded, so that a face's numbers do not depend on how many came together."""

_TEMPLATE: Final = (
    (38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041),
)  # fmt: skip
"""Where eyes, nose tip and corners of the mouth lie in an aligned face, in px: InsightFace's five points."""


class ArcFaceEmbedder:
    """`Embedder`; one thread, batches of a fixed size.

    Raises:
        ModelError: the file is not that of its sha256, or its tensors are not those of the network.
    """

    name = "arcface-r50"
    width = WIDTH
    size_px = SIZE_PX
    template = np.array(_TEMPLATE)

    def __init__(self, weights: DetectorFile) -> None:
        from featray.faces.arcface_network import load_arcface

        self.sha256 = weights.sha256
        self._network = load_arcface(weights.path, weights.sha256)

    def __call__(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute embeddings; see `Embedder`.

        Raises:
            ModelError: torch fails.
        """
        return unit(self.descriptors(faces))

    def descriptors(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the network's own output, `[n, 512]`, which is not of length 1."""
        import torch

        found = np.empty((len(faces), WIDTH), np.float32)
        staging = np.zeros((FACES_PER_INFERENCE, SIZE_PX, SIZE_PX, 3), np.uint8)
        for start in range(0, len(faces), FACES_PER_INFERENCE):
            batch = faces[start : start + FACES_PER_INFERENCE]
            staging[: len(batch)] = batch
            try:
                with torch.inference_mode():
                    result = self._network(torch.from_numpy(staging)).numpy()
            except RuntimeError as error:
                raise ModelError(f"torch failed on a batch ({one_line(error)})") from error
            found[start : start + len(batch)] = result[: len(batch)]
        return found


def tensor_shapes() -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of the published file."""
    shapes: dict[str, tuple[int, ...]] = {}

    def norm(name: str, channels: int) -> None:
        shapes.update({f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")})

    def conv(name: str, inputs: int, outputs: int, kernel: int = 3) -> None:
        shapes.update({f"{name}.weight": (outputs, inputs, kernel, kernel), f"{name}.bias": (outputs,)})

    conv("conv1", 3, 64)
    shapes["prelu.weight"] = (64,)
    inputs = 64
    for stage, (blocks, outputs) in enumerate(((3, 64), (4, 128), (14, 256), (3, 512)), start=1):
        for i in range(blocks):
            name = f"layer{stage}.{i}"
            norm(f"{name}.bn1", inputs)
            conv(f"{name}.conv1", inputs, outputs)
            shapes[f"{name}.prelu.weight"] = (outputs,)
            conv(f"{name}.conv2", outputs, outputs)
            if i == 0:
                conv(f"{name}.downsample", inputs, outputs, 1)
            inputs = outputs
    norm("bn2", 512)
    shapes |= {"fc.weight": (WIDTH, 512 * 7 * 7), "fc.bias": (WIDTH,)}
    norm("features", WIDTH)
    return shapes
