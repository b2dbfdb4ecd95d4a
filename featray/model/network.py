"""Model. The multitask network as a torch module, and loading a checkpoint into it.

What must stay true: in float32 it reproduces py-feat 2.1.5 within 1e-4 (mesh: 1e-3 of a
chip) for every supported config; it traces without data-dependent control flow, so that
other engines can convert it; each row of the output depends only on that row's chip.
"""

from __future__ import annotations

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from featray.errors import ModelError
from featray.model.action_units import AuMaps, EdgeGraph, NeighbourGraph, Similarity, fold_au_heads
from featray.model.backbone import as_pointwise_convs, make_backbone
from featray.model.checkpoint import Checkpoint
from featray.model.config import CheckpointConfig
from featray.model.gaze import EyeEncoder, Gaze
from featray.model.heads import Emotion, Unified, blendshape_head, mesh_head, pose_head
from featray.model.layout import COUNTER_LEAF
from featray.model.outputs import flat_widths
from featray.model.recipes import Recipe
from featray.weights.cache import read_hashed


class MultitaskNet(nn.Module):
    """All heads over one ConvNeXt-V2. Parameter names are the checkpoint's, except for the folded AU heads.

    The backbone has no weights, not even random ones, until a state dict is assigned: use `load_network`.
    """

    def __init__(self, config: CheckpointConfig, *, pointwise_convs: bool = False) -> None:
        super().__init__()
        self.config = config
        self.backbone = make_backbone(config, pointwise_convs=pointwise_convs)
        width, backbone_width = config.afg_channels, config.backbone_shape.channels[-1]
        same = width == backbone_width
        self.proj = nn.Identity() if same else nn.Conv2d(backbone_width, width, 1, bias=False)
        self.pooled_proj = nn.Identity() if same else nn.Linear(backbone_width, width, bias=False)
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
        """Compute the outputs of `RawOutputs` by name, float32, from normalised images `[N, 3, 224, 224]`."""
        return self.heads(*self.trunk(images))

    def trunk(self, images: Tensor) -> tuple[Tensor, ...]:
        """Run the expensive part, which may run in bfloat16, and return float32 features for `heads`.

        In order: the backbone's last map, averaged, `[N, C5]`; the AU vectors `[N, n_au, C]`;
        with MEFL, the AU maps `[N, n_au, 49, C]` and the features `[N, 49, C]`; with
        `gaze_eye_roi`, the backbone's stride-16 map `[N, C4, 14, 14]`.
        """
        dtype = self.afg.product.weight.dtype
        levels = self.backbone(images.to(dtype))
        x = self.proj(levels[-1])
        maps = self.afg(x).float()
        features = [levels[-1].float().mean(dim=(2, 3))]
        features.append(torch.unflatten(maps.mean(dim=(2, 3)), 1, (self.config.n_au, -1)))
        if self.mefl is not None:
            features.append(torch.unflatten(maps, 1, (self.config.n_au, -1)).flatten(3).transpose(2, 3))
            features.append(x.float().flatten(2).transpose(1, 2))
        if self.gaze_eye_enc is not None:
            features.append(levels[-2].float())
        return tuple(features)

    def heads(self, *features: Tensor) -> dict[str, Tensor]:
        """Run everything after `trunk`: it is cheap, and float32 whatever the precision of the trunk.

        In bfloat16 angles and coordinates would lose digits, and the AU graph might pick other neighbours.
        """
        pooled_c5, au_vectors, *maps = features
        h = self.fgg(au_vectors)
        if self.mefl is not None:
            h = self.mefl(maps[0], maps[1], h)
        au = self.sc(h)
        # The mean of a projection is the projection of the mean.
        pooled_x = self.pooled_proj(pooled_c5)
        mesh = torch.unflatten(self.lmk(pooled_x), 1, (self.config.n_mesh, 3))
        pose = self.pose(pooled_x)
        unified = self.unified(pooled_c5, mesh)
        emotion, valence_arousal = self.emotion(unified, au)
        eyes = self.gaze_eye_enc(maps[-1], mesh) if self.gaze_eye_enc is not None else ()
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
        """Run `trunk` in `dtype`."""
        for module in (self.backbone, self.proj, self.afg):
            module.to(dtype)


class ChipTrunk(nn.Module):
    """A recipe followed by `MultitaskNet.trunk`."""

    def __init__(self, recipe: Recipe, network: MultitaskNet) -> None:
        super().__init__()
        self.recipe = recipe
        self.network = network

    def forward(self, chips: Tensor) -> tuple[Tensor, ...]:
        """Compute the features of `MultitaskNet.trunk` from chips `[N, 256, 256, 3]` uint8."""
        return self.network.trunk(self.recipe(chips))


class FlatHeads(nn.Module):
    """`MultitaskNet.heads` with all outputs in one array, so that the device needs only one copy."""

    def __init__(self, network: MultitaskNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, *features: Tensor) -> Tensor:
        """Compute `[N, D]` float32 from features, in the order of `outputs.flat_widths`."""
        outputs = self.network.heads(*features)
        return torch.cat([outputs[name].flatten(1) for name in flat_widths(self.network.config)], dim=1)


def load_network(checkpoint: Checkpoint, *, pointwise_convs: bool = False) -> MultitaskNet:
    """Load a checkpoint's weights into the network: float32, on the CPU, in eval mode.

    `pointwise_convs` chooses the backbone's form; see `featray.model.backbone`.

    Raises:
        ModelError: the file changed since it was checked, or cannot be read.

    """
    try:
        tensors = load(read_hashed(checkpoint.path, checkpoint.sha256))
    except SafetensorError as error:
        raise ModelError(f"{checkpoint.path}: cannot be loaded ({str(error)[:200]})") from error
    weight, bias = fold_au_heads(tensors, checkpoint.config)
    state = {"afg.product.weight": weight, "afg.product.bias": bias}
    for name, tensor in tensors.items():
        unused = name.startswith(("log_var_", "afg.heads.")) or name.endswith(COUNTER_LEAF)
        if not unused:
            state[name] = tensor.float()
    if "proj.weight" in state:
        state["pooled_proj.weight"] = state["proj.weight"].flatten(1).clone()
    if pointwise_convs:
        state = as_pointwise_convs(state)
    network = MultitaskNet(checkpoint.config, pointwise_convs=pointwise_convs)
    try:
        network.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        raise ModelError(f"{checkpoint.path}: does not fit the network ({str(error)[:300]})") from error
    return network.eval().requires_grad_(False)
