"""Model. Names and shapes of all tensors that a checkpoint with a given config must have.

They are computed from the config alone, so a checkpoint can be checked from its header,
before any weights are read and without importing torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from featray.model.config import CheckpointConfig

Shape = tuple[int, ...]
_Entry = tuple[str, Shape]

LANDMARK_HIDDEN: Final = 1024
POSE_HIDDEN: Final = 256
BLENDSHAPE_HIDDEN: Final = 512
BLENDSHAPE_LANDMARK_DIM: Final = 256
EYE_CHANNELS: Final = 256
COUNTER_LEAF: Final = "num_batches_tracked"
"""The only int64 tensors of a checkpoint: BatchNorm's step counters, which inference does not use."""


def expected_layout(config: CheckpointConfig) -> dict[str, Shape]:
    """Return the shape of every tensor of a checkpoint with this config, by name."""
    entries: dict[str, Shape] = {}
    for part in (_log_variances, _backbone, _au_heads, _mefl, _face_heads, _gaze):
        entries.update(part(config))
    return entries


def expected_dtype(name: str) -> str:
    """Return the safetensors dtype that training writes for a tensor: "F32" or, for counters, "I64"."""
    return "I64" if name.endswith("." + COUNTER_LEAF) else "F32"


def gaze_input_dim(config: CheckpointConfig) -> int:
    """Return the length of the input vector of each side of the gaze head."""
    eye = config.gaze_eye_dim if config.gaze_eye_roi else 0
    return config.unified_dim + eye + (6 if config.gaze_pose_6d else 0)


def gaze_output_dim(config: CheckpointConfig) -> int:
    """Return the number of outputs of each side of the gaze head; 0 if four scalar heads are used instead."""
    if config.gaze_bins:
        return 2 * config.gaze_bins
    if config.gaze_head_frame:
        return 3
    return 2 if config.gaze_hidden else 0


def _linear(name: str, outputs: int, inputs: int) -> Iterator[_Entry]:
    yield f"{name}.weight", (outputs, inputs)
    yield f"{name}.bias", (outputs,)


def _affine(name: str, channels: int) -> Iterator[_Entry]:
    yield f"{name}.weight", (channels,)
    yield f"{name}.bias", (channels,)


def _log_variances(config: CheckpointConfig) -> Iterator[_Entry]:
    """Yield the loss weights of the training run, which are in the file but unused."""
    yield "log_var_au", (config.n_au,)
    tasks = ["mesh", "pose", "emotion", "va", "gaze"] + (["blendshape"] if config.n_blendshape else [])
    for task in tasks:
        yield f"log_var_{task}", ()


def _backbone(config: CheckpointConfig) -> Iterator[_Entry]:
    depths, channels, conv_mlp = config.backbone_shape
    yield "backbone.stem_0.weight", (channels[0], 3, 4, 4)
    yield "backbone.stem_0.bias", (channels[0],)
    yield from _affine("backbone.stem_1", channels[0])
    for stage, (depth, width) in enumerate(zip(depths, channels, strict=True)):
        prefix = f"backbone.stages_{stage}"
        if stage:
            before = channels[stage - 1]
            yield from _affine(f"{prefix}.downsample.0", before)
            yield f"{prefix}.downsample.1.weight", (width, before, 2, 2)
            yield f"{prefix}.downsample.1.bias", (width,)
        for index in range(depth):
            yield from _block(f"{prefix}.blocks.{index}", width, (1, 1) if conv_mlp else ())


def _block(name: str, width: int, kernel: Shape) -> Iterator[_Entry]:
    yield f"{name}.conv_dw.weight", (width, 1, 7, 7)
    yield f"{name}.conv_dw.bias", (width,)
    yield from _affine(f"{name}.norm", width)
    yield f"{name}.mlp.fc1.weight", (4 * width, width, *kernel)
    yield f"{name}.mlp.fc1.bias", (4 * width,)
    yield from _affine(f"{name}.mlp.grn", 4 * width)
    yield f"{name}.mlp.fc2.weight", (width, 4 * width, *kernel)
    yield f"{name}.mlp.fc2.bias", (width,)


def _au_heads(config: CheckpointConfig) -> Iterator[_Entry]:
    width = config.afg_channels
    if config.backbone_shape.channels[-1] != width:
        yield "proj.weight", (width, config.backbone_shape.channels[-1], 1, 1)
    for index in range(config.n_au):
        head = f"afg.heads.{index}"
        yield f"{head}.0.weight", (width, width, 1, 1)
        yield from _affine(f"{head}.1", width)
        yield f"{head}.1.running_mean", (width,)
        yield f"{head}.1.running_var", (width,)
        yield f"{head}.1.{COUNTER_LEAF}", ()
    yield "fgg.W.weight", (width, width)
    yield "fgg.W_self.weight", (width, width)
    yield "sc.s", (config.n_au, width)


def _mefl(config: CheckpointConfig) -> Iterator[_Entry]:
    if config.drop_mefl:
        return
    width = config.mefl_channels
    for attention in ("fam", "arm"):
        if config.mefl_use_layer_scale:
            yield f"mefl.alpha_{attention}", ()
        for product in ("q", "k", "v", "proj"):
            yield f"mefl.{attention}.{product}.weight", (width, width, 1, 1)
    for layer in range(config.gcn_layers):
        for product in ("U", "V", "A", "B", "C"):
            yield from _linear(f"mefl.gcn.{layer}.{product}", width, width)
        yield from _affine(f"mefl.gcn.{layer}.ln_h", width)
        yield from _affine(f"mefl.gcn.{layer}.ln_e", width)


def _face_heads(config: CheckpointConfig) -> Iterator[_Entry]:
    width, backbone_width = config.afg_channels, config.backbone_shape.channels[-1]
    mesh_xy, unified = 2 * config.n_mesh, config.unified_dim
    yield from _linear("lmk.mlp.0", LANDMARK_HIDDEN, width)
    yield from _linear("lmk.mlp.2", LANDMARK_HIDDEN, LANDMARK_HIDDEN)
    yield from _linear("lmk.mlp.4", 3 * config.n_mesh, LANDMARK_HIDDEN)
    yield from _linear("pose.mlp.0", POSE_HIDDEN, width)
    yield from _linear("pose.mlp.2", POSE_HIDDEN, POSE_HIDDEN)
    yield from _linear("pose.mlp.4", 6, POSE_HIDDEN)
    if config.n_blendshape:
        inputs = width
        if config.bs_use_mesh:
            yield from _linear("blendshape.proj_lmk", BLENDSHAPE_LANDMARK_DIM, mesh_xy)
            yield from _affine("blendshape.norm_bb", width)
            yield from _affine("blendshape.norm_lmk", BLENDSHAPE_LANDMARK_DIM)
            inputs += BLENDSHAPE_LANDMARK_DIM
        yield from _linear("blendshape.mlp.0", BLENDSHAPE_HIDDEN, inputs)
        yield from _linear("blendshape.mlp.2", config.n_blendshape, BLENDSHAPE_HIDDEN)
    yield from _linear("unified.proj_lmk", config.unified_lmk_dim, mesh_xy)
    yield from _affine("unified.norm_bb", backbone_width)
    yield from _affine("unified.norm_lmk", config.unified_lmk_dim)
    emotion_inputs = unified + (config.n_au if config.emotion_use_au_prob else 0)
    yield from _linear("emotion.cls_head", config.n_emotion, emotion_inputs)
    yield from _linear("emotion.va_head", 2, emotion_inputs)


def _gaze(config: CheckpointConfig) -> Iterator[_Entry]:
    if config.gaze_eye_roi:
        encoder, cells = "gaze_eye_enc", config.gaze_eye_roi_size**2
        yield f"{encoder}.enc.0.weight", (EYE_CHANNELS, config.backbone_shape.channels[-2], 3, 3)
        yield from _affine(f"{encoder}.enc.1", EYE_CHANNELS)
        yield f"{encoder}.enc.3.weight", (EYE_CHANNELS, EYE_CHANNELS, 3, 3)
        yield from _affine(f"{encoder}.enc.4", EYE_CHANNELS)
        yield from _linear(f"{encoder}.proj", config.gaze_eye_dim, EYE_CHANNELS * cells)
        yield from _affine(f"{encoder}.norm", config.gaze_eye_dim)
    inputs, outputs = gaze_input_dim(config), gaze_output_dim(config)
    for side in ("left", "right"):
        if outputs == 0:
            yield from _linear(f"gaze.{side}_yaw", 1, inputs)
            yield from _linear(f"gaze.{side}_pitch", 1, inputs)
        elif config.gaze_hidden:
            yield from _linear(f"gaze.{side}.0", config.gaze_hidden, inputs)
            yield from _linear(f"gaze.{side}.2", outputs, config.gaze_hidden)
        else:
            yield from _linear(f"gaze.{side}", outputs, inputs)
