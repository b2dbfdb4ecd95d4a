"""Weights of detectors come from one download or a local file; otherwise there is an error before the run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

from featray.cli import main
from featray.config import DecodeConfig, DetectConfig, parse_config
from featray.errors import ConfigError, ModelError, WeightsMissing
from featray.extract.child import ChildSettings
from featray.extract.isolation import IsolatedDecoder
from featray.faces.detector import DetectorFiles
from featray.faces.detectors import detector_sha256, open_detector
from featray.faces.retinaface_r34 import open_torch, prepare
from featray.faces.weights import DETECTOR_WEIGHTS, find_weights, pull_weights
from featray.graph.stages import DecodeDetect
from featray.run.runner import describe
from featray.weights.cache import sha256_of_file
from tests.fixtures.hub_server import COMMIT, point_client_to, serving
from tests.fixtures.r34_weights import write_r34_weights

pytestmark = pytest.mark.slow

R34 = "retinaface-r34"
HUB_NAME = "py-feat/retinaface_r34/model.safetensors"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return write_r34_weights(tmp_path_factory.mktemp("r34") / "model.safetensors")


@pytest.fixture
def hub(published, monkeypatch, tmp_path):
    """Yield a local hub that serves the weights."""
    with serving() as hub:
        hub.files[HUB_NAME] = published.read_bytes()
        point_client_to(hub.url, monkeypatch)
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
        yield hub


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATRAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def pull(cache, **options):
    return pull_weights(R34, **{"revision": None, "sha256": None, "cache_dir": cache, **options})


def refused(call, kind, *parts):
    with pytest.raises(kind) as caught:
        call()
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def test_a_run_fetches_nothing_and_names_the_command(hub, cache):
    for name in DETECTOR_WEIGHTS:
        if name == R34:
            refused(lambda: detector_sha256(DetectConfig(detector=R34)), WeightsMissing, f"`featray models pull {R34}`")
    config = parse_config(
        {"dataset": "d", "input": {"uris": ["a"]}, "output": {"uri": "o"}, "detect": {"detector": R34}}
    )
    config = config.model_copy(update={"model": config.model.model_copy(update={"checkpoint": "synthetic:atto"})})
    refused(lambda: describe(config), WeightsMissing, f"`featray models pull {R34}`")
    assert hub.requests == []


def test_what_was_pulled_is_found_without_the_network(hub, cache, published):
    pulled = pull(cache)
    assert (pulled.sha256, pulled.revision) == (sha256_of_file(published), COMMIT)
    hub.requests.clear()
    assert find_weights(DetectConfig(detector=R34), cache) == pulled
    assert pull(cache) == pulled
    assert detector_sha256(DetectConfig(detector=R34), DetectorFiles(cache)) == pulled.sha256
    assert hub.requests == []


def test_a_revision_is_pulled_and_found_as_such(hub, cache):
    pull(cache, revision=COMMIT)
    assert find_weights(DetectConfig(detector=R34, revision=COMMIT), cache).revision == COMMIT
    refused(lambda: find_weights(DetectConfig(detector=R34), cache), WeightsMissing, "not pulled at 'main'")
    other = DetectConfig(detector=R34, revision="v2")
    refused(lambda: find_weights(other, cache), WeightsMissing, f"featray models pull {R34} --revision v2")


def test_a_pull_is_checked(hub, cache, published):
    refused(lambda: pull(cache, sha256="0" * 64), ModelError, "0" * 64)
    hub.corrupt = True
    refused(lambda: pull(cache), ModelError, "corrupt")
    hub.corrupt = False
    hub.files[HUB_NAME] = b"PK\x03\x04 a pickle in disguise"
    refused(lambda: pull(cache), ModelError, "hf://py-feat/retinaface_r34/model.safetensors", "not a safetensors file")
    assert not list(cache.rglob("*.safetensors"))


def test_no_hub(hub, cache, monkeypatch):
    point_client_to("http://127.0.0.1:9", monkeypatch)
    refused(lambda: pull(cache), WeightsMissing, f"featray models pull {R34}", "detect.weights")


def test_a_pulled_file_that_changed_is_refused(hub, cache):
    path = pull(cache).path
    with path.open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"oops")
    refused(lambda: find_weights(DetectConfig(detector=R34), cache), ModelError, "not the file that was pulled")


def test_a_local_file(published, cache):
    settings = DetectConfig(detector=R34, weights=str(published))
    found = find_weights(settings, cache)
    assert (found.path, found.sha256, found.revision) == (published, sha256_of_file(published), None)
    missing = DetectConfig(detector=R34, weights="/nowhere/model.safetensors")
    refused(lambda: find_weights(missing, cache), ModelError, "detect.weights: /nowhere/model.safetensors")


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda tensors: tensors.pop("fpn.merge1.0.weight"), ["'fpn.merge1.0.weight' is missing"]),
        (lambda tensors: tensors.update(extra=np.zeros(1, np.float32)), ["'extra' is [1], not missing"]),
        (
            lambda tensors: tensors.update({"body.conv1.weight": np.zeros((64, 3, 3, 3), np.float32)}),
            ["'body.conv1.weight' is [64, 3, 3, 3], not [64, 3, 7, 7]"],
        ),
    ],
)
def test_other_tensors_are_refused(published, tmp_path, cache, change, parts):
    tensors = load_file(published)
    change(tensors)
    save_file(tensors, tmp_path / "other.safetensors")
    settings = DetectConfig(detector=R34, weights=str(tmp_path / "other.safetensors"))
    refused(lambda: detector_sha256(settings, DetectorFiles(cache)), ModelError, "RetinaFace-R34", *parts)


def test_retina_face_says_what_is_missing(tmp_path, cache):
    code = (
        "import sys; sys.modules['cv2'] = None; from featray.config import DetectConfig; "
        "from featray.faces.detectors import detector_sha256; detector_sha256(DetectConfig(detector='retina-face'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "ConfigError: detect.detector: retina-face needs packages" in done.stderr
    assert "pip install 'featray[retina-face]'" in done.stderr


def test_a_file_that_is_no_onnx_is_refused(published):
    from featray.faces.retina_face import open_network
    from featray.faces.retinaface_mnv1 import WEIGHTS

    refused(lambda: open_network(published, published.read_bytes()), ModelError, "is not a usable ONNX file")
    refused(
        lambda: open_network(WEIGHTS, WEIGHTS.read_bytes()), ModelError, "not the network of the package retina-face"
    )


def field(number, value):
    """Return a field of a protocol buffer: a number, or bytes with their length."""
    if isinstance(value, int):
        return bytes([number << 3, value])
    return bytes([number << 3 | 2, len(value)]) + value


def test_an_onnx_file_with_tensors_in_another_file_is_refused(tmp_path, monkeypatch):
    """External tensors would not be part of the hash."""
    from featray.faces.retina_face import open_network

    (tmp_path / "beside").write_bytes(np.ones(1, np.float32).tobytes())
    monkeypatch.chdir(tmp_path)
    outside = field(13, field(1, b"location") + field(2, b"beside"))
    tensor = field(1, 1) + field(2, 1) + field(8, b"w") + outside + field(14, 1)
    value = field(2, field(1, field(1, 1) + field(2, field(1, field(1, 1)))))
    node = field(1, b"w") + field(2, b"y") + field(4, b"Identity")
    graph = field(1, node) + field(2, b"g") + field(5, tensor) + field(12, field(1, b"y") + value)
    model = field(1, 8) + field(8, field(2, 13)) + field(7, graph)
    (tmp_path / "model.onnx").write_bytes(model)
    refused(
        lambda: open_network(tmp_path / "model.onnx", model), ModelError, "is not a usable ONNX file", "External data"
    )


def test_weights_that_change_after_they_were_hashed_are_not_loaded(published, tmp_path, cache):
    """Otherwise detections of one file would carry the digest of another, and so would its converted network."""
    path = tmp_path / "model.safetensors"
    shutil.copy(published, path)
    settings = DetectConfig(detector=R34, weights=str(path))
    found = find_weights(settings, cache)
    tensors = load_file(published)
    tensors["body.conv1.weight"] = tensors["body.conv1.weight"] * 2
    save_file(tensors, path)
    for load in (lambda: open_torch(found), lambda: prepare(found, cache)):
        refused(load, ModelError, "changed since it was checked")
    assert not list(cache.glob("openvino/*/"))
    planned = DetectorFiles(cache, sha256=found.sha256)
    refused(lambda: open_detector(settings, planned), ModelError, "changed since the run began")


def test_list_and_pull_on_the_command_line(hub, cache, published):
    def models(*arguments):
        return CliRunner().invoke(main, ["models", *arguments])

    before = models("list").stdout
    assert "RetinaFace, ResNet-34); 89 MB; license MIT; not pulled" in before
    assert "retina-face" in before and "118 MB" in before
    done = models("pull", R34)
    assert done.exit_code == 0, done.output
    assert sha256_of_file(published) in done.stdout and COMMIT in done.stdout
    after = models("list").stdout
    assert "RetinaFace, ResNet-34); 89 MB; license MIT; pulled" in after
    assert f"sha256 {sha256_of_file(published)}; license MIT" in after
    assert models("pull", R34, "--sha256", "abc").exit_code == 2


def test_boxes_is_no_network():
    with pytest.raises(ConfigError):
        open_detector(DetectConfig(detector="boxes", boxes="b.csv"))


def test_a_worker_refuses_other_files_than_the_run_was_planned_with(tmp_path, cache):
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("video,frame_index,x1,y1,x2,y2\na.mp4,3,10,20,60,90\n")
    detect = DetectConfig(detector="boxes", boxes=str(boxes))
    child = ChildSettings(DecodeConfig(), detect, {}, cache, detector_sha256(detect))
    DecodeDetect(IsolatedDecoder(child))
    boxes.write_text("video,frame_index,x1,y1,x2,y2\n")
    refused(
        lambda: DecodeDetect(IsolatedDecoder(child)),
        ModelError,
        "boxes: its files differ from those this run was planned with",
    )


@pytest.mark.long  # half a minute of conversion
def test_small_and_odd_frames_and_a_process_without_torch(published, cache):
    """The converted network has no fixed size, and once it exists, running it never needs torch."""
    settings = DetectConfig(detector=R34, weights=str(published))
    weights = find_weights(settings, cache)
    prepare(weights, cache)
    code = (
        "import sys; import numpy as np; from pathlib import Path; from featray.config import DetectConfig; "
        "from featray.faces.retinaface_r34 import open_openvino; "
        "from featray.faces.weights import find_weights; "
        "cache = Path(sys.argv[2]); network = open_openvino(find_weights("
        "DetectConfig(detector='retinaface-r34', weights=sys.argv[1]), cache), cache); "
        "image = np.random.default_rng(1).integers(0, 256, (90, 120, 3), np.uint8); "
        "np.savez(cache / 'out.npz', *[part for h, w in ((17, 40), (33, 33), (90, 119)) "
        "for part in network(np.ascontiguousarray(image[:h, :w]))]); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(published), str(cache)], check=True, timeout=120)
    image, network = np.random.default_rng(1).integers(0, 256, (90, 120, 3), np.uint8), open_torch(weights)
    with np.load(cache / "out.npz") as file:
        found = [file[name] for name in file.files]
    sizes = ((17, 40), (33, 33), (90, 119))
    expected = [part for h, w in sizes for part in network(np.ascontiguousarray(image[:h, :w]))]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4)
