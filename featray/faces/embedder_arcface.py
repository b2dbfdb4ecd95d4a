"""Faces. `arcface-r50`: the embedder that py-feat's Detectorv2 uses, in torch on the CPU.

Its weights may only be used for research and do not ship with featray; `embedder_weights.py` finds them. They were
published by InsightFace (Deng, Guo, Xue and Zafeiriou, "ArcFace", CVPR 2019), and converted by py-feat.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from featray.config_identify import EMBEDDING_WIDTHS
from featray.errors import ModelError, one_line
from featray.faces.detector import KnownFile
from featray.faces.embedder import in_batches, unit

SIZE_PX: Final = 112
WIDTH: Final = EMBEDDING_WIDTHS["arcface-r50"]
FACES_PER_INFERENCE: Final = 4
"""Fixed batch size; the last batch is padded, so that an embedding does not depend on the number of faces."""

_TEMPLATE: Final = (
    (38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041),
)  # fmt: skip
"""Positions of eyes, nose tip and mouth corners in an aligned face, in px: InsightFace's five points."""


class ArcFaceEmbedder:
    """`Embedder`; one thread, batches of a fixed size.

    Raises:
        ModelError: the file does not match its sha256, or its tensors do not match the network.
    """

    name = "arcface-r50"
    width = WIDTH
    size_px = SIZE_PX
    template = np.array(_TEMPLATE)

    def __init__(self, weights: KnownFile) -> None:
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
        """Return the network's raw output, `[n, 512]`, which does not have length 1."""
        return in_batches(self._infer, faces, FACES_PER_INFERENCE, WIDTH)

    def _infer(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        import torch

        try:
            with torch.inference_mode():
                result: NDArray[np.float32] = self._network(torch.from_numpy(batch)).numpy()
        except RuntimeError as error:
            raise ModelError(f"torch failed on a batch ({one_line(error)})") from error
        return result
