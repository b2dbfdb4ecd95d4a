import pytest

from featray.config import parse_config
from featray.identity import release_name, result_settings, video_id, work_key

BASE = {"dataset": "d", "input": {"uris": ["a"]}, "output": {"uri": "o"}}
WEIGHTS = {"weights_sha256": "w", "detector_sha256": "d", "precision": "fp32", "embedder_sha256": None}


def key(**sections):
    return work_key("etag:1:2", result_settings(parse_config({**BASE, **sections}), **WEIGHTS))


def test_video_id_is_a_fixed_function_of_the_uri():
    # sha256("s3://bucket/a.mp4"), first 16 hex digits, by sha256sum
    assert video_id("s3://bucket/a.mp4") == "fd373ff61094d28c"
    assert video_id("s3://bucket/a.tar", "m.mp4") != video_id("s3://bucket/a.tar", "n.mp4")


def test_the_release_of_the_default_settings_stays():
    """Published rows are found by this name: another one means that all work is done again."""
    for sections in ({}, {"detect": {"device": "cpu"}}, {"decode": {"hwaccel": "none"}}):
        settings = result_settings(parse_config({**BASE, **sections}), **WEIGHTS)
        assert release_name("m", settings) == "m-811445b4"


@pytest.mark.parametrize(
    "same",
    [
        {"cluster": {"decode_workers": 7, "infer_workers": 3, "decode_gpus": 0.2}},
        {"model": {"batch_size": 8}},
        {"model": {"engine": "torch"}},
        {"decode": {"unit_frames": 64, "timeout_seconds": 5}},
        {"run": {"max_attempts": 1}},
        {"detect": {"input_px": 640}},
        {"decode": {"tone_map": "auto", "square_pixels": "auto"}},
    ],
)
def test_settings_that_do_not_change_results_keep_the_work_key(same):
    assert key(**same) == key()


@pytest.mark.parametrize(
    "other",
    [
        {"decode": {"sample": {"every": 2}}},
        {"decode": {"sample": {"fps": 5}}},
        {"decode": {"tone_map": "off"}},
        {"decode": {"square_pixels": "off"}},
        {"detect": {"min_score": 0.6}},
        {"detect": {"input_px": 320}},
        {"detect": {"every": 5}},
        {"detect": {"device": "gpu"}},
        {"decode": {"hwaccel": "cuda"}},
        {"model": {"recipe": "card-center-crop"}},
        {"output": {"uri": "o", "tables": ["faces"]}},
    ],
)
def test_settings_that_change_results_change_the_work_key(other):
    assert key(**other) != key()


def test_what_a_detector_ignores_or_where_its_files_are_changes_no_work_key():
    boxes = {"detector": "boxes", "boxes": "a.csv"}
    assert key(detect=boxes) == key(detect={**boxes, "boxes": "b.csv", "nms_iou": 0.5, "input_px": 320})
    assert key(detect=boxes) != key(detect={**boxes, "min_score": 0.6})
    package = {"detector": "retina-face"}
    assert key(detect=package) == key(detect={**package, "weights": "w.onnx", "nms_iou": 0.5})
    assert key(detect=package) != key(detect={**package, "input_px": 320})
    r34 = {"detector": "retinaface-r34"}
    assert key(detect=r34) == key(detect={**r34, "weights": "w.safetensors", "revision": "v2"})
    assert len({key(detect=other) for other in (boxes, package, r34, {}, {**r34, "nms_iou": 0.5})}) == 5


def test_bytes_weights_detector_and_precision_change_the_work_key():
    config = parse_config(BASE)
    settings = result_settings(config, **WEIGHTS)
    assert work_key("etag:1:2", settings) != work_key("etag:2:2", settings)
    for name in WEIGHTS:
        assert work_key("x", result_settings(config, **{**WEIGHTS, name: "other"})) != work_key("x", settings)


def test_release_carries_model_name_and_settings():
    settings = result_settings(parse_config(BASE), **WEIGHTS)
    name, _, digest = release_name("my-model", settings).rpartition("-")
    assert name == "my-model"
    assert len(digest) == 8
