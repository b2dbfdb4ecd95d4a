"""Configs come from files of unknown origin: every bad value gives a one-line error that names the key."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest
from pydantic import ValidationError

from featray.errors import ModelError
from featray.model.config import BACKBONES, CheckpointConfig, config_from_json, config_from_mapping

V3 = {"use_head_v3": True}


def test_defaults_are_those_of_the_training_code():
    config = config_from_mapping(V3, source="f")
    assert config.backbone == "convnextv2_tiny.fcmae_ft_in22k_in1k"
    assert (config.n_au, config.n_emotion, config.n_blendshape) == (24, 8, 0)
    assert config.gaze_bin_lo_deg == -180.0
    assert config.backbone_arch == "convnextv2_tiny"
    assert config.unified_dim == 768 + 256


def test_integers_are_read_where_numbers_are_meant():
    assert config_from_mapping(V3 | {"gaze_bin_hi_deg": 90}, source="f").gaze_bin_hi_deg == 90.0


def test_config_is_frozen():
    with pytest.raises(ValidationError):
        CheckpointConfig().n_au = 20


def test_training_only_keys_pass_in_silence(caplog):
    training = {"pretrained": True, "drop_path_rate": 0.1, "gaze_pose_detach": True, "mefl_identity_init": False}
    config_from_mapping(V3 | training, source="f")
    assert not caplog.records


def test_unknown_keys_give_one_warning(caplog):
    with caplog.at_level(logging.WARNING):
        config_from_mapping(V3 | {"n_horns": 2, "tail": True}, source="odd.safetensors")
    (record,) = caplog.records
    assert "odd.safetensors" in record.getMessage()
    assert "n_horns, tail" in record.getMessage()


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({}, "use_head_v3"),
        ({"use_head_v3": False}, "use_head_v3"),
        (V3 | {"gaze_bins": 90, "gaze_head_frame": True}, "gaze_bins"),
        (V3 | {"backbone": "resnet50.a1_in1k"}, "backbone"),
        (V3 | {"backbone": "convnextv2_enormous"}, "backbone"),
        (V3 | {"backbone": "x" * 1000}, "backbone"),
        (V3 | {"n_au": 21}, "n_au"),
        (V3 | {"n_au": "20"}, "n_au"),
        (V3 | {"n_mesh": 468}, "n_mesh"),
        (V3 | {"image_size": 512}, "image_size"),
        (V3 | {"n_blendshape": 51}, "n_blendshape"),
        (V3 | {"knn_k": 0}, "knn_k"),
        (V3 | {"afg_channels": 10**9}, "afg_channels"),
        (V3 | {"afg_channels": 12}, "afg_channels"),
        (V3 | {"mefl_channels": 256}, "mefl_channels"),
        (V3 | {"gcn_layers": 10**6}, "gcn_layers"),
        (V3 | {"unified_lmk_dim": -1}, "unified_lmk_dim"),
        (V3 | {"gaze_eye_roi_size": 1000}, "gaze_eye_roi_size"),
        (V3 | {"gaze_eye_dim": 10**8}, "gaze_eye_dim"),
        (V3 | {"gaze_eye_box_frac": float("nan")}, "gaze_eye_box_frac"),
        (V3 | {"gaze_bins": 10**7}, "gaze_bins"),
        (V3 | {"gaze_hidden": True}, "gaze_hidden"),
        (V3 | {"gaze_bin_lo_deg": float("inf")}, "gaze_bin_lo_deg"),
        (V3 | {"gaze_bin_lo_deg": 90, "gaze_bin_hi_deg": -90}, "gaze_bin_lo_deg"),
        ({"use_head_v3": "yes"}, "use_head_v3"),
    ],
)
def test_bad_values_name_the_key(values, key):
    with pytest.raises(ModelError) as caught:
        config_from_json(json.dumps(values), source="bad.safetensors")
    message = str(caught.value)
    assert message.startswith("bad.safetensors: ")
    assert f"'{key}'" in message
    assert caught.value.details["key"] == key
    assert "\n" not in message
    assert len(message) < 400


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "[" * 100_000])
def test_config_must_be_a_json_object(text):
    with pytest.raises(ModelError, match="JSON"):
        config_from_json(text, source="f")


def test_every_convnextv2_of_timm_is_known():
    import timm

    assert set(BACKBONES) == set(timm.list_models("convnextv2*"))


def test_checkpoint_path_needs_no_torch():
    code = (
        "import sys, featray.model.config, featray.model.checkpoint, featray.model.synth, "
        "featray.model.source, featray.model.outputs, featray.model.engines; "
        "assert not {'torch', 'timm', 'openvino', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
