"""Faces. The head of RetinaFace in torch, shared by both backbones."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

_ANCHORS: Final = 2
"""Anchors per cell of a map; see `retinaface.priors_px`."""


class Head(nn.Module):
    """Computes `width` numbers per anchor, in the order of `retinaface.priors_px`, from three maps of `channels`."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self._width = width
        self._convs = nn.ModuleList(nn.Conv2d(channels, _ANCHORS * width, 1) for _ in range(3))

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Return the numbers of all anchors, `[N, A, width]`."""
        outputs = [conv(x).permute(0, 2, 3, 1) for conv, x in zip(self._convs, maps, strict=True)]
        return torch.cat([output.reshape(output.shape[0], -1, self._width) for output in outputs], dim=1)
