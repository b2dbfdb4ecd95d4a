"""Faces. The shipped embedder: the 128-number face recognition ResNet of face-api, through OpenVINO in fp32.

The weights (MIT, from the npm package @vladmandic/face-api 1.7.15) are in the assets folder, as bytes with a scale and
a minimum per tensor; `infra/assets/extract_face_recognition.py` extracted them from the package. They derive from
face-api.js and from dlib's face recognition model, a ResNet with 29 convolutions (after He et al., CVPR 2016). This
module builds the graph from the tensors, so neither torch nor a converted file is needed.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from featray.config_identify import EMBEDDING_WIDTHS
from featray.errors import ModelError, one_line
from featray.faces.embedder import in_batches, unit
from featray.weights.openvino_cpu import compile_model, import_openvino

WEIGHTS = Path(__file__).parent / "assets" / "face_recognition_resnet.safetensors"
WEIGHTS_SHA256: Final = "74431a4a1114dbeae3773a5df76282bfc16fd1c05f1b855c75bf9aa1dff12289"

SIZE_PX: Final = 150
WIDTH: Final = EMBEDDING_WIDTHS["face-api"]
FACES_PER_INFERENCE: Final = 4
"""Fixed batch size; the last batch is padded, so that an embedding does not depend on the number of faces."""

_MEAN_RGB: Final = (122.782, 117.001, 104.298)
_LAYERS: Final = (
    "conv32_1", "conv32_2", "conv32_3",
    "conv64_down", "conv64_1", "conv64_2", "conv64_3",
    "conv128_down", "conv128_1", "conv128_2",
    "conv256_down", "conv256_1", "conv256_2", "conv256_down_out",
)  # fmt: skip

_PADDING: Final = 0.25
"""Margin around the mean face in dlib's aligned faces, as a share of the mean face's side."""

_MEAN_FACE: Final = ((0.2255, 0.2160), (0.7548, 0.2160), (0.4901, 0.5156), (0.2541, 0.7802), (0.7261, 0.7802))
"""Positions of eyes, nose tip and mouth corners in the mean face that dlib aligns to, as shares of its side."""


class FaceApiEmbedder:
    """`Embedder`; one thread, batches of a fixed size.

    Raises:
        ModelError: its weights are damaged, or OpenVINO cannot compile it.
    """

    name = "face-api"
    sha256 = WEIGHTS_SHA256
    width = WIDTH
    size_px = SIZE_PX
    template = (np.array(_MEAN_FACE) + _PADDING) / (1 + 2 * _PADDING) * SIZE_PX - 0.5

    def __init__(self) -> None:
        ov = import_openvino()
        try:
            self._request = compile_model(ov.Core(), _graph(ov, read_weights())).create_infer_request()
        except RuntimeError as error:
            raise ModelError(f"{WEIGHTS.name}: OpenVINO cannot compile it ({one_line(error)})") from error

    def __call__(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute embeddings; see `Embedder`.

        Raises:
            ModelError: OpenVINO fails.
        """
        return unit(self.descriptors(faces))

    def descriptors(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the network's raw output, `[n, 128]`, which does not have length 1."""
        return in_batches(self._infer, faces, FACES_PER_INFERENCE, WIDTH)

    def _infer(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        try:
            result: NDArray[np.float32] = self._request.infer([batch], share_inputs=True)[0]
        except RuntimeError as error:
            raise ModelError(f"OpenVINO failed on a batch ({one_line(error)})") from error
        return result


def read_weights() -> dict[str, NDArray[np.float32]]:
    """Return the tensors by name, in the package's layout: kernels `[height, width, in, out]`.

    Raises:
        ModelError: the file is damaged.
    """
    from safetensors import safe_open
    from safetensors.numpy import load

    data = WEIGHTS.read_bytes()
    if hashlib.sha256(data).hexdigest() != WEIGHTS_SHA256:
        raise ModelError(f"{WEIGHTS.name}: damaged (sha256 differs); install featray again")
    with safe_open(WEIGHTS, "numpy") as file:
        ranges = json.loads(file.metadata()["ranges"])
    tensors = {}
    for name, values in load(data).items():
        scale, least = ranges.get(name, (1.0, 0.0))
        tensors[name] = (values * np.float32(scale) + np.float32(least)).astype(np.float32)
    return tensors


def _graph(ov: Any, tensors: dict[str, NDArray[np.float32]]) -> Any:
    """Return the network for aligned faces, uint8 `[4, 150, 150, 3]` RGB."""
    ops = ov.opset13
    faces = ops.parameter([FACES_PER_INFERENCE, SIZE_PX, SIZE_PX, 3], ov.Type.u8)
    centred = ops.subtract(ops.convert(faces, ov.Type.f32), np.array(_MEAN_RGB, np.float32))
    x = ops.transpose(ops.divide(centred, np.float32(255)), [0, 3, 1, 2])
    x = ops.relu(_convolution(ops, x, tensors, "conv32_down", stride=2, pad=0))
    x = ops.max_pool(x, [2, 2], [1, 1], [0, 0], [0, 0], [3, 3], "floor", "explicit").output(0)
    for layer in _LAYERS:
        x = _residual(ops, x, tensors, layer)
    means = ops.reduce_mean(x, [2, 3], keep_dims=False)
    return ov.Model([ops.matmul(means, tensors["fc"], False, False)], [faces])


def _residual(ops: Any, x: Any, tensors: dict[str, NDArray[np.float32]], layer: str) -> Any:
    """Add two convolutions with a shortcut; a `down` layer halves the picture and pads with zeros."""
    down = "_down" in layer
    out = ops.relu(_convolution(ops, x, tensors, f"{layer}/conv1", stride=2 if down else 1, pad=0 if down else 1))
    out = _convolution(ops, out, tensors, f"{layer}/conv2", stride=1, pad=1)
    if down:
        x = ops.avg_pool(x, [2, 2], [0, 0], [0, 0], [2, 2], True, "floor", "explicit")
        wanted, there = _shape(x), _shape(out)
        out = _filled(ops, out, [0, 0, wanted[2] - there[2], wanted[3] - there[3]])
        x = _filled(ops, x, [0, there[1] - wanted[1], 0, 0])
    return ops.relu(ops.add(x, out))


def _shape(x: Any) -> list[int]:
    return list(x.output(0).shape if hasattr(x, "output") else x.shape)


def _filled(ops: Any, x: Any, more: list[int]) -> Any:
    """Append `more` zeros along each axis."""
    return ops.pad(x, [0, 0, 0, 0], more, "constant", np.float32(0)) if any(more) else x


def _convolution(ops: Any, x: Any, tensors: dict[str, NDArray[np.float32]], name: str, *, stride: int, pad: int) -> Any:
    """Add a convolution with its bias; the scale layer that follows is folded into both."""
    scale, shift = tensors[f"{name}/scale/weights"], tensors[f"{name}/scale/biases"]
    kernel = np.ascontiguousarray((tensors[f"{name}/conv/filters"] * scale).transpose(3, 2, 0, 1))
    bias = (tensors[f"{name}/conv/bias"] * scale + shift).reshape(1, -1, 1, 1)
    return ops.add(ops.convolution(x, kernel, [stride, stride], [pad, pad], [pad, pad], [1, 1]), bias)
