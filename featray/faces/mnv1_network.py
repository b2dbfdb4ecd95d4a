"""Faces. The shipped detector as a torch module, for GPUs: the network of `retinaface_mnv1.py`, from the same file.

What must stay true: convolutions are created in the order in which the file's graph uses them, because weights are
assigned by order; their names in the file mean nothing. Batch norms are folded into the convolutions.

Source: Deng et al., "RetinaFace: Single-stage Dense Face Localisation in the Wild", 2019. Format of the file:
onnx.proto, and Protocol Buffers' wire format.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from featray.errors import ModelError
from featray.faces.retinaface_head import Head

MEAN_BGR: Final = (104.0, 117.0, 127.0)
_SLOPE: Final = 0.1
_CHANNELS: Final = 64


def _conv(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, *, groups: int = 1, active: bool = True
) -> nn.Module:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups)
    return nn.Sequential(conv, nn.LeakyReLU(_SLOPE)) if active else conv


def _separable(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(_conv(inputs, inputs, 3, stride, groups=inputs), _conv(inputs, outputs, 1))


class _Ssh(nn.Module):
    """Context module with three receptive fields."""

    def __init__(self) -> None:
        super().__init__()
        half, quarter = _CHANNELS // 2, _CHANNELS // 4
        self.near = _conv(_CHANNELS, half, active=False)
        self.shared = _conv(_CHANNELS, quarter)
        self.middle = _conv(quarter, quarter, active=False)
        self.wide = nn.Sequential(_conv(quarter, quarter), _conv(quarter, quarter, active=False))

    def forward(self, x: Tensor) -> Tensor:
        shared = self.shared(x)
        return functional.relu(torch.cat([self.near(x), self.middle(shared), self.wide(shared)], dim=1))


class RetinaFaceMnv1(nn.Module):
    """Computes raw outputs from pictures.

    Takes `[N, H, W, 3]` uint8 BGR; returns box regressions `[N, A, 4]`, face probabilities `[N, A]` and
    landmark regressions `[N, A, 10]`, all float32.
    """

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stage8 = nn.Sequential(
            _conv(3, 8, 3, 2),
            _separable(8, 16), _separable(16, 32, 2), _separable(32, 32), _separable(32, 64, 2), _separable(64, 64),
        )  # fmt: skip
        self.stage16 = nn.Sequential(_separable(64, 128, 2), *(_separable(128, 128) for _ in range(5)))
        self.stage32 = nn.Sequential(_separable(128, 256, 2), _separable(256, 256))
        self.lateral8, self.lateral16, self.lateral32 = (_conv(c, _CHANNELS, 1) for c in (64, 128, 256))
        self.merge16, self.merge8 = _conv(_CHANNELS, _CHANNELS), _conv(_CHANNELS, _CHANNELS)
        self.ssh8, self.ssh16, self.ssh32 = _Ssh(), _Ssh(), _Ssh()
        self.classes, self.boxes, self.landmarks = (Head(_CHANNELS, width) for width in (2, 4, 10))
        self.register_buffer("mean", torch.tensor(MEAN_BGR).view(1, 3, 1, 1), persistent=False)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run the network."""
        x = self.stage8(pictures.permute(0, 3, 1, 2).float() - self.mean)
        x8, x = self.lateral8(x), self.stage16(x)
        x16, x32 = self.lateral16(x), self.lateral32(self.stage32(x))
        x16 = self.merge16(x16 + functional.interpolate(x32, size=x16.shape[2:], mode="nearest"))
        x8 = self.merge8(x8 + functional.interpolate(x16, size=x8.shape[2:], mode="nearest"))
        maps = [self.ssh8(x8), self.ssh16(x16), self.ssh32(x32)]
        return self.boxes(maps), torch.softmax(self.classes(maps), dim=-1)[..., 1], self.landmarks(maps)


def load_mnv1(onnx: bytes) -> RetinaFaceMnv1:
    """Load the network with the weights of the shipped ONNX file, in eval mode.

    Raises:
        ModelError: the file's convolutions do not match the network.
    """
    network = RetinaFaceMnv1()
    convs = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    stored = list(convolutions(onnx))
    if [tuple(conv.weight.shape) for conv in convs] != [weight.shape for weight, _ in stored]:
        raise ModelError("the shipped detector's file has another network; install featray again")
    with torch.no_grad():
        for conv, (weight, bias) in zip(convs, stored, strict=True):
            assert conv.bias is not None
            conv.weight.copy_(torch.from_numpy(weight))
            conv.bias.copy_(torch.from_numpy(bias))
    return network.eval().requires_grad_(False)


def convolutions(onnx: bytes) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Yield weight and bias of each convolution of an ONNX file, in graph order; shared ones once.

    Supports only the part of the format that the shipped file uses (raw float32 tensors); its sha256 was checked.
    """
    graph = _one(onnx, 7)
    tensors = {_one(tensor, 8): _array(tensor) for tensor in _all(graph, 5)}
    nodes = [(_one(node, 4), _all(node, 1), _all(node, 2)) for node in _all(graph, 1)]
    same = {outputs[0]: inputs[0] for kind, inputs, outputs in nodes if kind == b"Identity"}
    seen = set()
    for kind, inputs, _ in nodes:
        if kind == b"Conv":
            weight, bias = (same.get(name, name) for name in inputs[1:])
            if weight not in seen:
                seen.add(weight)
                yield tensors[weight], tensors[bias]


def _array(tensor: bytes) -> NDArray[np.float32]:
    shape = [int(value) for number, value in _fields(tensor) if number == 1]
    return np.frombuffer(_one(tensor, 9), "<f4").reshape(shape).copy()


def _one(message: bytes, number: int) -> bytes:
    return _all(message, number)[0]


def _all(message: bytes, number: int) -> list[bytes]:
    return [value for found, value in _fields(message) if found == number and isinstance(value, bytes)]


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and value of each field of a message; unused fixed-width fields as bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        size = {0: 0, 1: 8, 5: 4}.get(key & 7)
        if size is None:
            size, at = _varint(message, at)
        if key & 7 == 0:
            value, at = _varint(message, at)
            yield key >> 3, value
        else:
            yield key >> 3, message[at : at + size]
            at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
