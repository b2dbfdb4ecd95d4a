"""Model. The ConvNeXt-V2 behind every head: timm's, in one of two forms that compute the same.

In timm's form of all but the small models a block turns the map to channels-last and multiplies
by matrices: best for torch. With pointwise convolutions the map stays as the depthwise
convolution leaves it: OpenVINO turns nothing over then, and a face takes a tenth less time in
fp32 and a fifth less in bf16 (tests/benchmarks/RESULTS.md). Parameter names are the checkpoint's in both.
"""

from __future__ import annotations

from typing import Any, Final

import timm
import torch
from torch import Tensor, nn

from featray.model.config import CheckpointConfig

_EPS: Final = 1e-6
"""Of timm's LayerNorm in ConvNeXt."""


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of a map `[N, C, H, W]`, in steps that OpenVINO runs without turning the map."""

    def __init__(self, channels: int, device: torch.device | None = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(channels, device=device, dtype=dtype))

    def forward(self, maps: Tensor) -> Tensor:
        """`[N, C, H, W]` to the same, normalised, scaled and shifted."""
        centred = maps - maps.mean(1, keepdim=True)
        variance = (centred * centred).mean(1, keepdim=True)
        return centred * torch.rsqrt(variance + _EPS) * self.weight[:, None, None] + self.bias[:, None, None]


def make_backbone(config: CheckpointConfig, *, pointwise_convs: bool) -> nn.Module:
    """Give the maps that the heads need: the last, before it the stride-16 one with `gaze_eye_roi`. Without weights."""
    levels = [-2, -1] if config.gaze_eye_roi else [-1]
    form: dict[str, Any] = {"conv_mlp": True, "norm_layer": ChannelNorm} if pointwise_convs else {}
    # Without memory until weights are loaded: drawing 28 million random ones takes a second.
    with torch.device("meta"):
        backbone: nn.Module = timm.create_model(
            config.backbone_arch, pretrained=False, features_only=True, out_indices=levels, **form
        )
    return backbone


def as_pointwise_convs(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give the same weights for a backbone with pointwise convolutions; small models have them already."""
    leaves = (".mlp.fc1.weight", ".mlp.fc2.weight")
    matrices = [
        name for name in state if name.startswith("backbone.") and name.endswith(leaves) and state[name].ndim == 2
    ]
    return state | {name: state[name][:, :, None, None] for name in matrices}
