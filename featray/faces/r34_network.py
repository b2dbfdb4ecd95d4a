"""Faces. RetinaFace with a ResNet-34 backbone, in torch: py-feat's face detector, from its published description.

What must stay true: tensor names are those of `py-feat/retinaface_r34`, so that its file loads
strictly; `tensor_shapes` lists the same tensors without importing torch.

Source: Deng et al., "RetinaFace: Single-stage Dense Face Localisation in the Wild", 2019.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import resnet34

from featray.errors import ModelError, one_line
from featray.faces.retinaface_head import Head
from featray.weights.cache import read_hashed

_MEAN_RGB: Final = (123.0, 117.0, 104.0)
_FPN_CHANNELS: Final = 128


def _conv(inputs: int, outputs: int, kernel: int = 3, *, active: bool = True) -> nn.Sequential:
    layers = [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs)]
    # Published as a leaky ReLU whose slope is 0 at this width.
    return nn.Sequential(*layers, nn.ReLU()) if active else nn.Sequential(*layers)


class _Body(nn.Module):
    """ResNet-34 without its classifier; returns the maps at strides 8, 16, 32."""

    def __init__(self) -> None:
        super().__init__()
        whole = resnet34(weights=None)
        self.conv1, self.bn1 = whole.conv1, whole.bn1
        self.layer1, self.layer2, self.layer3, self.layer4 = whole.layer1, whole.layer2, whole.layer3, whole.layer4

    def forward(self, x: Tensor) -> list[Tensor]:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer1(functional.max_pool2d(x, 3, stride=2, padding=1))
        x8 = self.layer2(x)
        x16 = self.layer3(x8)
        return [x8, x16, self.layer4(x16)]


class _Fpn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.output1, self.output2, self.output3 = (_conv(c, _FPN_CHANNELS, 1) for c in (128, 256, 512))
        self.merge1, self.merge2 = _conv(_FPN_CHANNELS, _FPN_CHANNELS), _conv(_FPN_CHANNELS, _FPN_CHANNELS)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        x8, x16, x32 = self.output1(maps[0]), self.output2(maps[1]), self.output3(maps[2])
        x16 = self.merge2(x16 + functional.interpolate(x32, size=x16.shape[2:], mode="nearest"))
        x8 = self.merge1(x8 + functional.interpolate(x16, size=x8.shape[2:], mode="nearest"))
        return [x8, x16, x32]


class _Ssh(nn.Module):
    """Context module with three receptive fields."""

    def __init__(self) -> None:
        super().__init__()
        whole, quarter = _FPN_CHANNELS, _FPN_CHANNELS // 4
        self.conv3X3 = _conv(whole, whole // 2, active=False)
        self.conv5X5_1 = _conv(whole, quarter)
        self.conv5X5_2 = _conv(quarter, quarter, active=False)
        self.conv7X7_2 = _conv(quarter, quarter)
        self.conv7x7_3 = _conv(quarter, quarter, active=False)

    def forward(self, x: Tensor) -> Tensor:
        shared = self.conv5X5_1(x)  # conv7X7_2 reads this too: the weights were trained that way
        branches = [self.conv3X3(x), self.conv5X5_2(shared), self.conv7x7_3(self.conv7X7_2(shared))]
        return functional.relu(torch.cat(branches, dim=1))


class RetinaFaceR34(nn.Module):
    """Computes raw outputs from frames.

    Takes `[N, H, W, 3]` uint8 RGB; returns box regressions `[N, A, 4]`, face probabilities `[N, A]` and
    landmark regressions `[N, A, 10]`, all float32.
    """

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.body, self.fpn = _Body(), _Fpn()
        self.ssh1, self.ssh2, self.ssh3 = _Ssh(), _Ssh(), _Ssh()
        self.ClassHead, self.BboxHead, self.LandmarkHead = (
            Head(_FPN_CHANNELS, 2),
            Head(_FPN_CHANNELS, 4),
            Head(_FPN_CHANNELS, 10),
        )
        self.register_buffer("mean", torch.tensor(_MEAN_RGB).view(1, 3, 1, 1), persistent=False)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run the network."""
        x = frames.permute(0, 3, 1, 2).float() - self.mean
        maps = [ssh(x) for ssh, x in zip((self.ssh1, self.ssh2, self.ssh3), self.fpn(self.body(x)), strict=True)]
        return self.BboxHead(maps), torch.softmax(self.ClassHead(maps), dim=-1)[..., 1], self.LandmarkHead(maps)


def load_r34(path: Path, sha256: str) -> RetinaFaceR34:
    """Load the network with the weights of a `.safetensors` file, in eval mode.

    Raises:
        ModelError: the file has another sha256, or its tensors do not match the network.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    network = RetinaFaceR34()
    try:
        network.load_state_dict(load(read_hashed(path, sha256)))
    except (RuntimeError, SafetensorError) as error:
        raise ModelError(f"{path}: not the weights of RetinaFace-R34 ({one_line(error, 200)})") from error
    return network.eval().requires_grad_(False)
