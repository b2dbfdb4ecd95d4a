"""Faces. The network of `arcface-r50` in torch: a ResNet with 50 layers whose blocks begin with a normalisation.

What must stay true: tensor names are those of `py-feat/arcface_r50`, so that its file loads strictly. Normalisations
after a convolution are folded into it there, so convolutions have a bias.

Source: Deng, Guo, Xue and Zafeiriou, "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR 2019.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from torch import Tensor, nn

from featray.errors import ModelError, one_line
from featray.weights.cache import read_hashed

_STAGES: Final = ((3, 64), (4, 128), (14, 256), (3, 512))
"""Blocks and channels; each stage begins by halving the picture, 112 px to 7."""


class _Block(nn.Module):
    """Two convolutions with a shortcut, which is a convolution itself if the size changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.prelu = nn.PReLU(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride=stride, padding=1)
        self.downsample = nn.Conv2d(inputs, outputs, 1, stride=stride) if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        found: Tensor = self.conv2(self.prelu(self.conv1(self.bn1(x)))) + shortcut
        return found


class ArcFace(nn.Module):
    """From aligned faces, `[n, 112, 112, 3]` uint8 RGB, to descriptors `[n, 512]`, float32, of any length."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1)
        self.prelu = nn.PReLU(64)
        inputs = 64
        for number, (blocks, outputs) in enumerate(_STAGES, start=1):
            stage = [_Block(inputs if i == 0 else outputs, outputs, 2 if i == 0 else 1) for i in range(blocks)]
            self.add_module(f"layer{number}", nn.Sequential(*stage))
            inputs = outputs
        self.bn2 = nn.BatchNorm2d(512)
        self.fc = nn.Linear(512 * 7 * 7, 512)
        self.features = nn.BatchNorm1d(512)

    def forward(self, faces: Tensor) -> Tensor:
        """Run the network."""
        x = faces.permute(0, 3, 1, 2).float() / 255 * 2 - 1
        x = self.prelu(self.conv1(x))
        for number in range(1, len(_STAGES) + 1):
            x = self.get_submodule(f"layer{number}")(x)
        found: Tensor = self.features(self.fc(self.bn2(x).flatten(1)))
        return found


def load_arcface(path: Path, sha256: str) -> ArcFace:
    """Return the network with the weights of a `.safetensors` file, in eval mode.

    Raises:
        ModelError: the file is not that of `sha256`, or its tensors are not those of the network.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    network = ArcFace()
    try:
        tensors = load(read_hashed(path, sha256))
        # Counts of training steps, which the published file does not have and which nothing is computed from.
        counts = {name: value for name, value in network.state_dict().items() if name.endswith("num_batches_tracked")}
        network.load_state_dict(counts | tensors)
    except (RuntimeError, SafetensorError) as error:
        raise ModelError(f"{path}: not the weights of ArcFace-R50 ({one_line(error, 200)})") from error
    return network.eval().requires_grad_(False)
