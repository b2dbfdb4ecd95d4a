"""The multitask network as a torch module, and loading a checkpoint into it.

What must stay true: in float32 it reproduces py-feat 2.1.5 within 1e-4 (mesh: 1e-3 of a
chip) for every supported config; it traces without data-dependent control flow, so that
other engines can convert it; and a row of the output depends on that row's chip alone.
"""

from __future__ import annotations

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from featray.errors import ModelError
from featray.model.action_units import AuMaps, EdgeGraph, NeighbourGraph, Similarity, fold_au_heads
from featray.model.checkpoint import Checkpoint
from featray.model.config import ModelConfig
from featray.model.gaze import EyeEncoder, Gaze
from featray.model.heads import Emotion, Unified, blendshape_head, mesh_head, pose_head
from featray.model.layout import COUNTER_LEAF
from featray.model.outputs import flat_widths
from featray.model.recipes import Recipe


class MultitaskNet(nn.Module):
    """All heads over one ConvNeXt-V2. Parameter names are the checkpoint's, but for the folded AU heads."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        levels = [-2, -1] if config.gaze_eye_roi else [-1]
        self.backbone = timm.create_model(
            config.backbone_arch, pretrained=False, features_only=True, out_indices=levels
        )
        width, backbone_width = config.afg_channels, config.backbone_shape.channels[-1]
        same = width == backbone_width
        self.proj = nn.Identity() if same else nn.Conv2d(backbone_width, width, 1, bias=False)
        self.afg = AuMaps(config)
        self.fgg = NeighbourGraph(config)
        self.mefl = None if config.drop_mefl else EdgeGraph(config)
        self.sc = Similarity(config)
        self.lmk = mesh_head(config)
        self.pose = pose_head(config)
        self.blendshape = blendshape_head(config) if config.n_blendshape else None
        self.unified = Unified(config)
        self.emotion = Emotion(config)
        self.gaze_eye_enc = EyeEncoder(config) if config.gaze_eye_roi else None
        self.gaze = Gaze(config)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Images `[N, 3, 224, 224]`, normalised, to the outputs of `RawOutputs`, float32, by name."""
        levels = [level.float() for level in self.backbone(images.to(self._compute_dtype()))]
        c5 = levels[-1]
        x = self.proj(c5)
        pooled_c5, pooled_x = c5.mean(dim=(2, 3)), x.mean(dim=(2, 3))
        au = self._action_units(x)
        mesh = self.lmk(pooled_x).unflatten(1, (self.config.n_mesh, 3))
        pose = self.pose(pooled_x)
        unified = self.unified(pooled_c5, mesh)
        emotion, valence_arousal = self.emotion(unified, au)
        eyes = self.gaze_eye_enc(levels[-2], mesh) if self.gaze_eye_enc is not None else ()
        outputs = {
            "au": au,
            "emotion": emotion,
            "valence_arousal": valence_arousal,
            "gaze": self.gaze(unified, eyes, pose),
            "pose": pose,
            "mesh": mesh,
        }
        if self.blendshape is not None:
            outputs["blendshapes"] = self.blendshape(pooled_x, mesh)
        return outputs

    def set_compute_dtype(self, dtype: torch.dtype) -> None:
        """Run the convolutions that cost time (backbone, AU maps) in `dtype`; the rest stays float32."""
        self.backbone.to(dtype)
        self.afg.to(dtype)

    def _compute_dtype(self) -> torch.dtype:
        return self.afg.product.weight.dtype

    def _action_units(self, x: Tensor) -> Tensor:
        """Features `[N, C, 7, 7]` to AU probabilities `[N, n_au]`."""
        maps = self.afg(x).float()
        v = maps.mean(dim=(2, 3)).unflatten(1, (self.config.n_au, -1))
        h = self.fgg(v)
        if self.mefl is not None:
            au_tokens = maps.unflatten(1, (self.config.n_au, -1)).flatten(3).transpose(2, 3)
            h = self.mefl(au_tokens, x.flatten(2).transpose(1, 2), h)
        probabilities: Tensor = self.sc(h)
        return probabilities


class ChipNet(nn.Module):
    """Recipe and network in one: what engines run. Chips in, one flat array out."""

    def __init__(self, recipe: Recipe, network: MultitaskNet) -> None:
        super().__init__()
        self.recipe = recipe
        self.network = network

    def forward(self, chips: Tensor) -> Tensor:
        """Chips `[N, 256, 256, 3]` uint8 to `[N, D]` float32, in the order of `outputs.flat_widths`."""
        outputs = self.network(self.recipe(chips))
        return torch.cat([outputs[name].flatten(1) for name in flat_widths(self.network.config)], dim=1)


def load_network(checkpoint: Checkpoint) -> MultitaskNet:
    """Load a checkpoint's weights into the network: float32, on the CPU, in eval mode.

    Raises:
        ModelError: the file changed since it was checked, or cannot be read.

    """
    try:
        tensors = load_file(checkpoint.path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{checkpoint.path}: cannot be loaded ({str(error)[:200]})") from error
    weight, bias = fold_au_heads(tensors, checkpoint.config)
    state = {"afg.product.weight": weight, "afg.product.bias": bias}
    for name, tensor in tensors.items():
        unused = name.startswith(("log_var_", "afg.heads.")) or name.endswith(COUNTER_LEAF)
        if not unused:
            state[name] = tensor.float()
    network = MultitaskNet(checkpoint.config)
    try:
        network.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        raise ModelError(f"{checkpoint.path}: does not fit the network ({str(error)[:300]})") from error
    return network.eval().requires_grad_(False)
