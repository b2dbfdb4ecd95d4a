"""The package retina-face compared with `retina-face`: the same faces, to the last bit.

The network is the package's own, of full size, with weights from a seed, exported to ONNX as its authors do.
"""

from __future__ import annotations

import logging
import warnings
from functools import partial

import av
import numpy as np
import pytest
import torch

from featray.config import DetectConfig
from featray.faces.detector import DetectorFiles
from featray.faces.detectors import open_detector
from featray.video.frame import Frame

pytestmark = pytest.mark.parity

LANDMARKS = ("right_eye", "left_eye", "nose", "mouth_right", "mouth_left")


@pytest.fixture(scope="module")
def package():
    """Return its main module, on onnxruntime; importing it silences all warnings, which is undone here."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEPFACE_BACKEND_ENGINE", "onnx")
        from retinaface import RetinaFace
    return RetinaFace


def spread(head, given, output, *, is_score):
    """Rescale a head so that its outputs are as large as a trained one's: boxes of some px, few faces."""
    scale = (2.0 if is_score else 0.2) / output.std(dim=(0, 2, 3))
    centre = output.mean(dim=(0, 2, 3))
    head.weight.data *= scale[:, None, None, None]
    head.bias.data = (head.bias.data - centre) * scale
    if is_score:
        head.bias.data[2:] -= 5


@pytest.fixture(scope="module")
def weights(pictures, tmp_path_factory):
    """Return its ONNX file, with synthetic weights."""
    from retinaface.model.retinaface_pth_model import RetinaFace

    torch.manual_seed(31)
    network = RetinaFace().eval()
    network.bn_data.running_var[:] = 64.0**2  # the input is in grey levels
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
        if name.startswith("face_rpn") and isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(partial(spread, is_score=name.endswith("_score")))
    with torch.inference_mode():
        network(torch.from_numpy(pictures["still"].frame.astype(np.float32))[None])
    for module in network.modules():
        module._forward_hooks.clear()
    path = tmp_path_factory.mktemp("retina") / "retinaface.onnx"
    outputs = [f"{kind}_{stride}" for stride in (32, 16, 8) for kind in ("score", "box", "landmark")]
    axes = {0: "images", 1: "height", 2: "width"}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(1, 128, 160, 3),),
            path,
            input_names=["image"],
            output_names=outputs,
            dynamic_axes=dict.fromkeys(["image", *outputs], axes),
            dynamo=False,
        )
    return path


@pytest.fixture(scope="module")
def images(pictures):
    """Return RGB images; the last is longer than the package's limit, so the package shrinks it."""
    still, noise = pictures["still"].frame, pictures["noise"].frame
    return {"still": still, "noise": noise, "long": np.ascontiguousarray(np.tile(still, (1, 4, 1))[100:190, :2100])}


def frame_of(rgb):
    return Frame.of(av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24"), index=0, pts_us=0)


def side_px(box):
    return min(box[2] - box[0], box[3] - box[1])


def settings_of(weights, min_score):
    return DetectConfig(
        detector="retina-face", weights=str(weights), min_score=min_score, min_size_px=1, max_faces=1000
    )


@pytest.mark.parametrize("min_score", [pytest.param(0.9, marks=pytest.mark.long), 0.5])
def test_same_faces(package, weights, images, min_score, report):
    from retinaface.model.retinaface_onnx_model import RetinaFace

    detector = open_detector(settings_of(weights, min_score), DetectorFiles())
    network = RetinaFace(detector._session)
    counts = {}
    all_found = detector([frame_of(rgb) for rgb in images.values()])
    for (name, rgb), found in zip(images.items(), all_found, strict=True):
        bgr = np.ascontiguousarray(rgb[..., ::-1])
        faces = list(package.detect_faces(bgr, threshold=min_score, model=network, allow_upscaling=False).values())
        # Clipped at the frame's border, a box may have no width or height left; min_size_px drops those.
        faces = [face for face in faces if side_px(face["facial_area"]) >= 1]
        counts[name] = len(faces)
        assert len(found) == len(faces)
        # featray sorts by score, then x; the package sorts by score alone.
        faces.sort(key=lambda face: (-face["score"], face["facial_area"][0]))
        assert found.box_xyxy.tolist() == [[float(value) for value in face["facial_area"]] for face in faces]
        assert found.score.tolist() == [float(face["score"]) for face in faces]
        expected = [[[float(value) for value in face["landmarks"][point]] for point in LANDMARKS] for face in faces]
        assert found.landmarks5.tolist() == expected
    report(f"retina-face, score {min_score}: {counts} faces, equal to the package's")
    assert all(counts.values())
