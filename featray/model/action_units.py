"""Model. The action unit branch: a feature map per AU, a graph over AUs, and a similarity score per AU.

After ME-GraphAU (Luo et al., IJCAI 2022) as py-feat 2.1.5 trains it: AFG makes one map per
AU, FGG relates AUs by similarity, MEFL (optional) relates them by cross-attention.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from featray.model.config import CheckpointConfig

_ATTENTION_HEADS = 4
_BATCH_NORM_EPS = 1e-5


def fold_au_heads(tensors: dict[str, Tensor], config: CheckpointConfig) -> tuple[Tensor, Tensor]:
    """Fold the per-AU heads into one product: weight `[n_au * C, C, 1, 1]` and bias `[n_au * C]`.

    Each head is a 1x1 convolution and a BatchNorm with fixed statistics; together they are
    affine. Folding uses float64, because BatchNorm divides by small variances.
    """
    weights, biases = [], []
    for index in range(config.n_au):
        head = f"afg.heads.{index}"
        norm = {leaf: tensors[f"{head}.1.{leaf}"].double() for leaf in ("weight", "bias")}
        mean, variance = (tensors[f"{head}.1.running_{leaf}"].double() for leaf in ("mean", "var"))
        gain = norm["weight"] / torch.sqrt(variance + _BATCH_NORM_EPS)
        weights.append(tensors[f"{head}.0.weight"].double() * gain.view(-1, 1, 1, 1))
        biases.append(norm["bias"] - mean * gain)
    return torch.cat(weights).float(), torch.cat(biases).float()


class AuMaps(nn.Module):
    """AFG: computes the maps of all AUs with one 1x1 convolution."""

    def __init__(self, config: CheckpointConfig) -> None:
        super().__init__()
        self.n_au, self.channels = config.n_au, config.afg_channels
        self.product = nn.Conv2d(self.channels, self.n_au * self.channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map features `[N, C, H, W]` to maps `[N, n_au * C, H, W]`, in the dtype of the weights."""
        return functional.relu(self.product(x.to(self.product.weight.dtype)))


class NeighbourGraph(nn.Module):
    """FGG: mixes each AU with its k most similar AUs of the same face."""

    others: Tensor
    indices: Tensor

    def __init__(self, config: CheckpointConfig) -> None:
        super().__init__()
        width = config.afg_channels
        self.num_candidates = min(config.knn_k + 1, config.n_au)
        self.W = nn.Linear(width, width, bias=False)
        self.W_self = nn.Linear(width, width, bias=False)
        self.register_buffer("others", 1.0 - torch.eye(config.n_au), persistent=False)
        self.register_buffer("indices", torch.arange(config.n_au), persistent=False)

    def forward(self, v: Tensor) -> Tensor:
        """Map AU vectors `[N, n_au, C]` to `[N, n_au, C]`."""
        unit = functional.normalize(v, dim=-1)
        similarity = torch.matmul(unit, unit.transpose(1, 2))
        nearest = similarity.topk(self.num_candidates, dim=-1).indices
        # Summing one-hot rows is a scatter that every backend can convert.
        edges = (nearest.unsqueeze(-1) == self.indices).to(v.dtype).sum(dim=2) * self.others
        weights = edges / edges.sum(dim=-1, keepdim=True).clamp(min=1.0)
        mixed: Tensor = functional.relu(self.W_self(v) + torch.matmul(weights, self.W(v)))
        return mixed


class CrossAttention(nn.Module):
    """Attention between positions of two maps; its products are stored as 1x1 convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = (width // _ATTENTION_HEADS) ** -0.5
        self.q = nn.Conv2d(width, width, 1, bias=False)
        self.k = nn.Conv2d(width, width, 1, bias=False)
        self.v = nn.Conv2d(width, width, 1, bias=False)
        self.proj = nn.Conv2d(width, width, 1, bias=False)

    def split(self, product: nn.Conv2d, tokens: Tensor) -> Tensor:
        """Apply a product to tokens `[..., P, C]` and return heads `[..., heads, P, C / heads]`."""
        out = functional.linear(tokens, product.weight.flatten(1))
        return torch.unflatten(out, -1, (_ATTENTION_HEADS, -1)).transpose(-2, -3)

    def merge(self, heads: Tensor) -> Tensor:
        """Apply the output product to heads `[..., heads, P, C / heads]` and return `[..., P, C]`."""
        return functional.linear(heads.transpose(-2, -3).flatten(-2), self.proj.weight.flatten(1))


class GatedLayer(nn.Module):
    """One gated graph layer over AU nodes and all directed edges between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.U = nn.Linear(width, width)
        self.V = nn.Linear(width, width)
        self.A = nn.Linear(width, width)
        self.B = nn.Linear(width, width)
        self.C = nn.Linear(width, width)
        self.ln_h = nn.LayerNorm(width)
        self.ln_e = nn.LayerNorm(width)

    def forward(self, h: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        """Update nodes `[N, A, C]` and edges `[N, A, A, C]` (from i to j in `e[:, i, j]`)."""
        update = self.A(h).unsqueeze(2) + self.B(h).unsqueeze(1) + self.C(e)
        e = e + functional.relu(self.ln_e(update))
        messages = (torch.sigmoid(e) * self.V(h).unsqueeze(1)).sum(dim=2)
        h = h + functional.relu(self.ln_h(self.U(h) + messages))
        return h, e


class EdgeGraph(nn.Module):
    """MEFL: edges between AUs from cross-attention, then gated graph layers."""

    def __init__(self, config: CheckpointConfig) -> None:
        super().__init__()
        width = config.mefl_channels
        self.fam = CrossAttention(width)
        self.arm = CrossAttention(width)
        self.gcn = nn.ModuleList(GatedLayer(width) for _ in range(config.gcn_layers))
        self.alpha_fam: nn.Parameter | float = 1.0
        self.alpha_arm: nn.Parameter | float = 1.0
        if config.mefl_use_layer_scale:
            self.alpha_fam = nn.Parameter(torch.ones(()))
            self.alpha_arm = nn.Parameter(torch.ones(()))

    def forward(self, maps: Tensor, x: Tensor, h: Tensor) -> Tensor:
        """Map AU maps `[N, A, P, C]`, features `[N, P, C]` and nodes `[N, A, C]` to nodes `[N, A, C]`."""
        e = self._edges(self._attend_face(maps, x))
        for layer in self.gcn:
            h, e = layer(h, e)
        return h

    def _attend_face(self, maps: Tensor, x: Tensor) -> Tensor:
        """FAM: every AU's map attends to the whole face; returns `[N, A, P, C]`."""
        fam = self.fam
        face = x.unsqueeze(1)  # keys and values once per face, not once per AU
        logits = torch.matmul(fam.split(fam.q, maps), fam.split(fam.k, face).transpose(-1, -2)) * fam.scale
        return self.alpha_fam * fam.merge(torch.matmul(logits.softmax(dim=-1), fam.split(fam.v, face)))

    def _edges(self, attended: Tensor) -> Tensor:
        """ARM: AU j's map attends to AU i's, for all pairs; returns `[N, A, A, C]`, i first.

        Only the mean over query positions is needed, and everything after the softmax is
        linear, so the attention weights are averaged first and no per-pair map is made.
        """
        arm = self.arm
        queries = arm.split(arm.q, attended).unsqueeze(1)
        keys, values = arm.split(arm.k, attended).unsqueeze(2), arm.split(arm.v, attended).unsqueeze(2)
        logits = torch.matmul(queries, keys.transpose(-1, -2)) * arm.scale
        weights = logits.softmax(dim=-1).mean(dim=-2, keepdim=True)
        return self.alpha_arm * arm.merge(torch.matmul(weights, values)).squeeze(-2)


class Similarity(nn.Module):
    """AU probability: the cosine between a node and a learnt prototype, both rectified."""

    def __init__(self, config: CheckpointConfig) -> None:
        super().__init__()
        self.s = nn.Parameter(torch.zeros(config.n_au, config.afg_channels))

    def forward(self, h: Tensor) -> Tensor:
        """Map nodes `[N, n_au, C]` to probabilities `[N, n_au]`."""
        prototype = functional.normalize(functional.relu(self.s), dim=-1)
        node = functional.normalize(functional.relu(h), dim=-1)
        return (node * prototype).sum(dim=-1).clamp(0.0, 1.0)
