"""Face detection: py-feat's own RetinaFace and `retinaface-r34`, with the same weights, on the same frames."""

from __future__ import annotations

import av
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from featray.config import DetectConfig
from featray.faces.detector import DetectorFiles
from featray.faces.detectors import open_detector
from featray.faces.retinaface_r34 import RetinaFaceResNet34, open_torch
from featray.faces.weights import find_weights
from featray.video.frame import Frame
from tests.fixtures.r34_weights import write_r34_weights

pytestmark = pytest.mark.parity

FACE_BIASES = {"few": -2.5, "hundreds": -0.5}
PICTURES = ("still", "noise")
ENGINES = ("openvino", pytest.param("torch", marks=pytest.mark.long))
PYFEAT_KEEPS = 750


@pytest.fixture(scope="module", params=FACE_BIASES)
def weights(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("r34") / "model.safetensors"
    return write_r34_weights(path, seed=21, face_bias=FACE_BIASES[request.param])


@pytest.fixture(scope="module")
def pyfeat(weights):
    from feat.face_detectors.Retinaface.Retinaface_test import Retinaface

    detector = Retinaface(device="cpu", pretrained="none")
    detector.net.load_state_dict(load_file(weights), strict=True)
    return detector


@pytest.fixture(scope="module", params=ENGINES)
def ours(request, weights, tmp_path_factory):
    settings = DetectConfig(detector="retinaface-r34", weights=str(weights), min_size_px=1, max_faces=PYFEAT_KEEPS)
    cache = tmp_path_factory.mktemp("cache")
    detector = open_detector(settings, DetectorFiles(cache))
    assert isinstance(detector, RetinaFaceResNet34)
    if request.param == "torch":
        detector._network = open_torch(find_weights(settings, cache))
    return detector


def frame_of(rgb):
    return Frame.of(av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24"), index=0, pts_us=0)


def pyfeat_faces(detector, rgb):
    """Return its faces, `[n, 5]`, and their landmarks, which it computes and drops, `[n, 5, 2]`."""
    from feat.face_detectors.Retinaface import Retinaface_test as module

    frames, seen = torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None], {}
    with pytest.MonkeyPatch.context() as patch:
        for name in ("decode_boxes", "decode_landmarks"):
            decode = getattr(module, name)
            patch.setattr(
                module, name, lambda *given, _name=name, _decode=decode: seen.setdefault(_name, _decode(*given))
            )
        (faces,) = detector(frames)
    faces = np.asarray(faces, np.float64).reshape(-1, 5)
    size = np.asarray([rgb.shape[1], rgb.shape[0]])
    boxes = seen["decode_boxes"][0].numpy() * np.tile(size, 2)
    index = [int(np.abs(boxes - face[:4]).max(axis=1).argmin()) for face in faces]
    return faces, seen["decode_landmarks"][0].numpy()[index].reshape(-1, 5, 2) * size


def test_same_faces(pyfeat, ours, pictures, report):
    counts, worst_px, worst_score = [], 0.0, 0.0
    for name in PICTURES:
        rgb = pictures[name].frame
        expected, landmarks = pyfeat_faces(pyfeat, rgb)
        (found,) = ours([frame_of(rgb)])
        assert len(found) == len(expected)
        counts.append(len(found))
        if not len(found):
            continue
        # Faces whose scores differ in the last digit may swap places, so each is compared with the nearest other one.
        distance = np.abs(found.box_xyxy[:, None].astype(np.float64) - expected[None, :, :4]).max(axis=2)
        nearest = distance.argmin(axis=1)
        assert len(set(nearest.tolist())) == len(expected)
        worst_px = max(worst_px, distance.min(axis=1).max(), np.abs(found.landmarks5 - landmarks[nearest]).max())
        worst_score = max(worst_score, np.abs(found.score - expected[nearest, 4]).max())
        assert (np.diff(found.score) <= 0).all()
    report(f"retinaface-r34: {counts} faces, places {worst_px:.0e} px, scores {worst_score:.0e} from py-feat's")
    assert sum(counts) > 0
    assert worst_px < 1e-3
    assert worst_score < 1e-5
