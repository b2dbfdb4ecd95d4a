"""Model. Heads on pooled features: mesh, pose, blendshapes, the shared vector, emotion.

Module and parameter names are the checkpoint's. All are float32: they are cheap compared
with the backbone, and angles and coordinates would lose digits in bfloat16.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from featray.model.config import IMAGE_SIDE_PX, CheckpointConfig
from featray.model.layout import BLENDSHAPE_HIDDEN, BLENDSHAPE_LANDMARK_DIM, LANDMARK_HIDDEN, POSE_HIDDEN


class MlpHead(nn.Module):
    """Three linear layers with GELU between them (`lmk` and `pose`)."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(inputs, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, outputs),
        )

    def forward(self, pooled: Tensor) -> Tensor:
        """Map `[N, inputs]` to `[N, outputs]`."""
        out: Tensor = self.mlp(pooled)
        return out


def mesh_head(config: CheckpointConfig) -> MlpHead:
    """Make `lmk`, which maps pooled features to 478 * 3 coordinates."""
    return MlpHead(config.afg_channels, LANDMARK_HIDDEN, 3 * config.n_mesh)


def pose_head(config: CheckpointConfig) -> MlpHead:
    """Make `pose`, which maps pooled features to six pose numbers; the first three are a rotation vector."""
    return MlpHead(config.afg_channels, POSE_HIDDEN, 6)


class MeshFusion(nn.Module):
    """Concatenates pooled features and the mesh's x, y, each normalised by its own LayerNorm."""

    def __init__(self, pooled_dim: int, landmark_dim: int, config: CheckpointConfig) -> None:
        super().__init__()
        self.mesh_scale = 1.0 if config.mesh_normalized else 1.0 / IMAGE_SIDE_PX
        self.proj_lmk = nn.Linear(2 * config.n_mesh, landmark_dim)
        self.norm_bb = nn.LayerNorm(pooled_dim)
        self.norm_lmk = nn.LayerNorm(landmark_dim)

    def fuse(self, pooled: Tensor, mesh: Tensor) -> Tensor:
        """Fuse pooled `[N, C]` and the network's raw mesh `[N, 478, 3]` into `[N, C + landmark_dim]`."""
        mesh_xy = mesh[..., :2].flatten(1) * self.mesh_scale
        return torch.cat((self.norm_bb(pooled), self.norm_lmk(self.proj_lmk(mesh_xy))), dim=1)


class Unified(MeshFusion):
    """The vector that the emotion and gaze heads share."""

    def __init__(self, config: CheckpointConfig) -> None:
        super().__init__(config.backbone_shape.channels[-1], config.unified_lmk_dim, config)

    def forward(self, pooled: Tensor, mesh: Tensor) -> Tensor:
        """See `MeshFusion.fuse`; `pooled` comes from the backbone, before `proj`."""
        return self.fuse(pooled, mesh)


class MeshBlendshapes(MeshFusion):
    """Blendshapes from pooled features and the mesh."""

    def __init__(self, config: CheckpointConfig) -> None:
        super().__init__(config.afg_channels, BLENDSHAPE_LANDMARK_DIM, config)
        self.mlp = _blendshape_mlp(config.afg_channels + BLENDSHAPE_LANDMARK_DIM, config)

    def forward(self, pooled: Tensor, mesh: Tensor) -> Tensor:
        """Map pooled `[N, C]` and mesh `[N, 478, 3]` to 52 values in [0, 1]."""
        return torch.sigmoid(self.mlp(self.fuse(pooled, mesh)))


class PlainBlendshapes(nn.Module):
    """Blendshapes from pooled features alone (`bs_use_mesh: false`)."""

    def __init__(self, config: CheckpointConfig) -> None:
        super().__init__()
        self.mlp = _blendshape_mlp(config.afg_channels, config)

    def forward(self, pooled: Tensor, mesh: Tensor) -> Tensor:
        """Map pooled `[N, C]` to 52 values in [0, 1]; the mesh is not used."""
        return torch.sigmoid(self.mlp(pooled))


def blendshape_head(config: CheckpointConfig) -> nn.Module:
    """Make the blendshape head that the config asks for."""
    return MeshBlendshapes(config) if config.bs_use_mesh else PlainBlendshapes(config)


def _blendshape_mlp(inputs: int, config: CheckpointConfig) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, BLENDSHAPE_HIDDEN), nn.GELU(), nn.Linear(BLENDSHAPE_HIDDEN, config.n_blendshape)
    )


class Emotion(nn.Module):
    """Emotion classes, valence and arousal."""

    def __init__(self, config: CheckpointConfig) -> None:
        super().__init__()
        self.reads_au = config.emotion_use_au_prob
        inputs = config.unified_dim + (config.n_au if self.reads_au else 0)
        self.cls_head = nn.Linear(inputs, config.n_emotion)
        self.va_head = nn.Linear(inputs, 2)

    def forward(self, unified: Tensor, au: Tensor) -> tuple[Tensor, Tensor]:
        """Map unified `[N, D]` and AUs `[N, n_au]` to softmax `[N, n_emotion]` and `[N, 2]` in [-1, 1]."""
        inputs = torch.cat((unified, au), dim=1) if self.reads_au else unified
        return self.cls_head(inputs).softmax(dim=-1), torch.tanh(self.va_head(inputs))
