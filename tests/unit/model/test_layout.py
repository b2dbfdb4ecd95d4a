"""The layout that a config implies, compared with the tables of real models and with torch's modules."""

from __future__ import annotations

import itertools
import json

import pytest
import timm
import torch

from featray.model.config import BACKBONES, CheckpointConfig, config_from_mapping
from featray.model.layout import expected_dtype, expected_layout
from featray.model.network import MultitaskNet
from featray.model.synth import SYNTHETIC_VARIANTS
from tests.fixtures.golden import DATA, VARIANTS

DTYPES = {"F32": "float32", "I64": "int64"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_layout_equals_the_table(variant):
    table = json.loads((DATA / "model" / f"layout_{variant}.json").read_text())
    config = config_from_mapping(table["config"], source=variant)
    assert config == SYNTHETIC_VARIANTS[variant]
    layout = expected_layout(config)
    assert {name: list(shape) for name, shape in layout.items()} == {
        name: tensor["shape"] for name, tensor in table["tensors"].items()
    }
    assert {name: DTYPES[expected_dtype(name)] for name in layout} == {
        name: tensor["dtype"] for name, tensor in table["tensors"].items()
    }


@pytest.mark.parametrize("arch", BACKBONES)
def test_backbone_layout_equals_timm(arch):
    with torch.device("meta"):
        model = timm.create_model(arch, pretrained=False, features_only=True, out_indices=[-1])
    layout = expected_layout(CheckpointConfig(backbone=arch))
    ours = {name.removeprefix("backbone."): shape for name, shape in layout.items() if "backbone" in name}
    assert ours == {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


SMALL = {
    "use_head_v3": True,
    "backbone": "convnextv2_atto",
    "afg_channels": 64,
    "mefl_channels": 64,
    "unified_lmk_dim": 16,
}
GAZES = [
    {},
    {"gaze_hidden": 32},
    {"gaze_bins": 12},
    {"gaze_head_frame": True},
    {"gaze_head_frame": True, "gaze_hidden": 32, "gaze_pose_6d": True},
    {"gaze_eye_roi": True, "gaze_eye_dim": 40, "gaze_eye_roi_size": 3},
    {"gaze_eye_roi": True, "gaze_pose_6d": True, "gaze_hidden": 32, "gaze_bins": 12},
]
HEADS = [
    {"drop_mefl": True},
    {"drop_mefl": False, "mefl_use_layer_scale": False, "gcn_layers": 1},
    {"n_au": 20, "n_emotion": 7, "n_blendshape": 52, "bs_use_mesh": False, "emotion_use_au_prob": True},
    {"afg_channels": 320, "mefl_channels": 320, "n_blendshape": 52, "mesh_normalized": True},
]


@pytest.mark.parametrize(("gaze", "heads"), list(itertools.product(GAZES, HEADS)))
def test_layout_equals_the_modules_for_every_option(gaze, heads):
    """The layout lists exactly the network's parameters, except folded and unused tensors."""
    config = config_from_mapping(SMALL | heads | gaze, source="f")
    with torch.device("meta"):
        state = MultitaskNet(config).state_dict()
    modules = {k: tuple(v.shape) for k, v in state.items() if not k.startswith(("afg.", "pooled_proj."))}
    layout = {k: v for k, v in expected_layout(config).items() if not k.startswith(("afg.", "log_var_"))}
    assert modules == layout
