"""Model. The ConvNeXt-V2 backbone of all heads: timm's, in one of two equivalent forms.

In timm's form, except for the small models, a block transposes the map to channels-last and uses
matrix products: best for torch. With pointwise convolutions the map keeps the layout of the depthwise
convolution: OpenVINO then needs no transposes, and a face takes a tenth less time in fp32 and a fifth
less in bf16 (tests/benchmarks/RESULTS.md). Both forms have the checkpoint's parameter names.
"""

from __future__ import annotations

from typing import Any, Final

import timm
import torch
from torch import Tensor, nn

from featray.model.config import CheckpointConfig

_EPS: Final = 1e-6
"""Epsilon of timm's LayerNorm in ConvNeXt."""


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of a map `[N, C, H, W]`, in steps that OpenVINO runs without a transpose."""

    def __init__(self, channels: int, device: torch.device | None = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(channels, device=device, dtype=dtype))

    def forward(self, maps: Tensor) -> Tensor:
        """Return the maps `[N, C, H, W]` normalised, scaled and shifted."""
        centred = maps - maps.mean(1, keepdim=True)
        variance = (centred * centred).mean(1, keepdim=True)
        return centred * torch.rsqrt(variance + _EPS) * self.weight[:, None, None] + self.bias[:, None, None]


def make_backbone(config: CheckpointConfig, *, pointwise_convs: bool) -> nn.Module:
    """Make a backbone without weights that returns the last map, preceded by the stride-16 map with `gaze_eye_roi`."""
    levels = [-2, -1] if config.gaze_eye_roi else [-1]
    form: dict[str, Any] = {"conv_mlp": True, "norm_layer": ChannelNorm} if pointwise_convs else {}
    # No memory until weights are loaded: drawing 28 million random weights takes a second.
    with torch.device("meta"):
        backbone: nn.Module = timm.create_model(
            config.backbone_arch, pretrained=False, features_only=True, out_indices=levels, **form
        )
    return backbone


def as_pointwise_convs(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights in the form for pointwise convolutions; small models already have it."""
    leaves = (".mlp.fc1.weight", ".mlp.fc2.weight")
    matrices = [
        name for name in state if name.startswith("backbone.") and name.endswith(leaves) and state[name].ndim == 2
    ]
    return state | {name: state[name][:, :, None, None] for name in matrices}
