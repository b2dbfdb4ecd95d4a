"""Model. The model config in a checkpoint: the structure of the network.

The file is untrusted, so every number is bounded before anything is allocated, and an
unsupported value is an error that names the key. Importable without torch.
"""

from __future__ import annotations

import json
import logging
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from featray.errors import ModelError

_log = logging.getLogger(__name__)

IMAGE_SIDE_PX: Final = 224
"""Side of the network's input image, in pixels."""

_TRAINING_ONLY_KEYS: Final = frozenset(
    {
        "pretrained",
        "drop_path_rate",
        "emotion_head_dropout",
        "emotion_au_prob_detach",
        "gaze_pose_detach",
        "mefl_identity_init",
        "use_dual_eye_gcn",
        "use_head_v2",
    }
)


class BackboneShape(NamedTuple):
    """Blocks and channels per stage of a ConvNeXt-V2, and whether its MLPs are stored as 1x1 convolutions."""

    depths: tuple[int, int, int, int]
    channels: tuple[int, int, int, int]
    conv_mlp: bool


BACKBONES: Final[dict[str, BackboneShape]] = {
    "convnextv2_atto": BackboneShape((2, 2, 6, 2), (40, 80, 160, 320), True),
    "convnextv2_femto": BackboneShape((2, 2, 6, 2), (48, 96, 192, 384), True),
    "convnextv2_pico": BackboneShape((2, 2, 6, 2), (64, 128, 256, 512), True),
    "convnextv2_nano": BackboneShape((2, 2, 8, 2), (80, 160, 320, 640), True),
    "convnextv2_tiny": BackboneShape((3, 3, 9, 3), (96, 192, 384, 768), False),
    "convnextv2_small": BackboneShape((3, 3, 27, 3), (96, 192, 384, 768), False),
    "convnextv2_base": BackboneShape((3, 3, 27, 3), (128, 256, 512, 1024), False),
    "convnextv2_large": BackboneShape((3, 3, 27, 3), (192, 384, 768, 1536), False),
    "convnextv2_huge": BackboneShape((3, 3, 27, 3), (352, 704, 1408, 2816), False),
}
"""Every ConvNeXt-V2 that timm defines; a test compares this table with timm's own models."""

Channels = Annotated[int, Field(ge=8, le=2048, multiple_of=8)]
Degrees = Annotated[float, Field(ge=-360.0, le=360.0)]


class CheckpointConfig(BaseModel):
    """The `config` metadata of a checkpoint; the defaults are those of the training code.

    `n_au`, `n_emotion`, `n_blendshape` and `n_mesh` accept only values whose outputs
    have names (`featray.names`). Angles are in degrees, sizes in pixels of the
    224-pixel image; `gaze_eye_box_frac` is a share of its side.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)

    backbone: str = Field("convnextv2_tiny.fcmae_ft_in22k_in1k", max_length=100)
    image_size: Literal[224] = IMAGE_SIDE_PX
    n_au: Literal[20, 24] = 24
    n_mesh: Literal[478] = 478
    n_emotion: Literal[7, 8] = 8
    n_blendshape: Literal[0, 52] = 0
    mesh_normalized: bool = False
    bs_use_mesh: bool = True
    knn_k: int = Field(4, ge=1, le=16)
    afg_channels: Channels = 512
    mefl_channels: Channels = 512
    gcn_layers: int = Field(2, ge=0, le=8)
    unified_lmk_dim: int = Field(256, ge=1, le=4096)
    use_head_v3: bool = False
    drop_mefl: bool = False
    mefl_use_layer_scale: bool = True
    emotion_use_au_prob: bool = False
    gaze_eye_roi: bool = False
    gaze_eye_dim: int = Field(256, ge=1, le=2048)
    gaze_eye_roi_size: int = Field(4, ge=1, le=14)
    gaze_eye_box_frac: float = Field(0.18, ge=0.01, le=1.0)
    gaze_pose_6d: bool = False
    gaze_head_frame: bool = False
    gaze_hidden: int = Field(0, ge=0, le=4096)
    gaze_bins: int = Field(0, ge=0, le=720)
    gaze_bin_lo_deg: Degrees = -180.0
    gaze_bin_hi_deg: Degrees = 180.0

    @property
    def backbone_arch(self) -> str:
        """Return the architecture: timm's name without the tag for its training."""
        return self.backbone.split(".", 1)[0]

    @property
    def backbone_shape(self) -> BackboneShape:
        """Return depths and channels of the backbone; KeyError for a backbone that `config_from_json` refuses."""
        return BACKBONES[self.backbone_arch]

    @property
    def unified_dim(self) -> int:
        """Return the length of the feature vector that the emotion and gaze heads share."""
        return self.backbone_shape.channels[-1] + self.unified_lmk_dim


def config_from_mapping(values: dict[str, Any], *, source: str) -> CheckpointConfig:
    """Check a config and return it. `source` names the file in messages.

    Unknown keys are ignored, with one warning in the log.

    Raises:
        ModelError: a value is malformed, out of bounds or not supported; the message names the key.

    """
    unknown = sorted(set(values) - set(CheckpointConfig.model_fields) - _TRAINING_ONLY_KEYS)
    if unknown:
        _log.warning("%s: unknown model config keys are ignored: %s", source, ", ".join(unknown)[:500])
    try:
        config = CheckpointConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        given = repr(first["input"])[:60]
        raise ModelError(f"{source}: model config key {key!r}: {first['msg']} (found {given})", key=key) from None
    _check_supported(config, source)
    return config


def config_from_json(text: str, *, source: str) -> CheckpointConfig:
    """Parse the JSON of a checkpoint's `config` metadata; raise ModelError like `config_from_mapping`."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{source}: its config metadata is not JSON ({str(error)[:100]})") from None
    if not isinstance(values, dict):
        raise ModelError(f"{source}: its config metadata is JSON but not an object")
    return config_from_mapping(values, source=source)


def _check_supported(config: CheckpointConfig, source: str) -> None:
    def refuse(key: str, reason: str) -> ModelError:
        return ModelError(f"{source}: model config key {key!r}: {reason}", key=key)

    if not config.use_head_v3:
        raise refuse("use_head_v3", "must be true; the head families before v2.3 are not supported")
    if config.backbone_arch not in BACKBONES:
        known = ", ".join(BACKBONES)
        raise refuse("backbone", f"{config.backbone!r} is not one of timm's ConvNeXt-V2 models ({known})")
    if config.gaze_bins and config.gaze_head_frame:
        raise refuse("gaze_bins", "cannot be combined with gaze_head_frame")
    if config.gaze_bin_lo_deg >= config.gaze_bin_hi_deg:
        raise refuse("gaze_bin_lo_deg", "must be below gaze_bin_hi_deg")
    if not config.drop_mefl and config.mefl_channels != config.afg_channels:
        raise refuse("mefl_channels", "must equal afg_channels")
