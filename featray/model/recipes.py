"""Model. Recipes convert uint8 chips to the network's input, on the device that runs the network.

Results depend on the recipe, so it has a name and is recorded with them. Each recipe is a
module whose forward takes chips `[N, 256, 256, 3]` uint8 RGB and returns
`[N, 3, 224, 224]` float32, normalised with ImageNet's mean and standard deviation.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featray.model.config import IMAGE_SIDE_PX
from featray.names import CHIP_PX

_MEAN: Final = (0.485, 0.456, 0.406)
_STD: Final = (0.229, 0.224, 0.225)


class Recipe(nn.Module):
    """Computes `rows @ chip @ rows.T` per channel, then normalises, as two matrix products and one affine map."""

    rows: Tensor
    rows_t: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(self, rows: NDArray[np.float32]) -> None:
        super().__init__()
        std = torch.tensor(_STD, dtype=torch.float64).view(1, 3, 1, 1)
        mean = torch.tensor(_MEAN, dtype=torch.float64).view(1, 3, 1, 1)
        self.register_buffer("rows", torch.from_numpy(rows.copy()), persistent=False)
        self.register_buffer("rows_t", torch.from_numpy(rows.T.copy()), persistent=False)
        self.register_buffer("scale", (1.0 / (255.0 * std)).float(), persistent=False)
        self.register_buffer("shift", (-mean / std).float(), persistent=False)

    def forward(self, chips: Tensor) -> Tensor:
        """Convert chips `[N, 256, 256, 3]` uint8 to images `[N, 3, 224, 224]` float32."""
        pixels = chips.permute(0, 3, 1, 2).to(torch.float32)
        resized = torch.matmul(torch.matmul(self.rows, pixels), self.rows_t)
        return resized * self.scale + self.shift


def make_recipe(name: str) -> Recipe:
    """Make the recipe `pyfeat` or `card-center-crop`; KeyError for another name.

    `pyfeat` resizes the whole chip with an antialiased bilinear filter, as py-feat 2.1.5
    does and as the model was trained. `card-center-crop` cuts out the chip's centre, as the
    model card describes.
    """
    rows = {"pyfeat": antialiased_resize_matrix, "card-center-crop": center_crop_matrix}[name]
    return Recipe(rows(CHIP_PX, IMAGE_SIDE_PX))


def antialiased_resize_matrix(side_in: int, side_out: int) -> NDArray[np.float32]:
    """Return the `[side_out, side_in]` matrix of torch's bilinear `interpolate(antialias=True)` along one axis.

    Each output pixel is a triangle filter around its centre, widened by the scale and
    normalised (PyTorch's UpSampleKernel; the same filter as Pillow's).
    """
    # All in float32, as in torch: the rounding of the centres moves a resized pixel by 1e-5.
    scale = np.float32(side_in) / np.float32(side_out)
    support = max(scale, np.float32(1.0))
    centers = (np.arange(side_out, dtype=np.float32) + np.float32(0.5)) * scale
    distance = np.abs(np.arange(side_in, dtype=np.float32) - centers[:, None] + np.float32(0.5)) / support
    weights = np.maximum(np.float32(0.0), np.float32(1.0) - distance)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


def center_crop_matrix(side_in: int, side_out: int) -> NDArray[np.float32]:
    """Return the `[side_out, side_in]` matrix that selects the central pixels of one axis."""
    return np.eye(side_out, side_in, (side_in - side_out) // 2, dtype=np.float32)
