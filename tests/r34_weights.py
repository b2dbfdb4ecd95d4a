"""Weights for RetinaFace-R34 that follow from a seed: the published ones cannot be had without the hub."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from featray.faces.retinaface_r34 import tensor_shapes


def write_r34_weights(path: Path, *, seed: int = 0, face_bias: float = -2.0) -> Path:
    """Activations stay of order 1; the larger `face_bias`, the more faces are found."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in tensor_shapes().items():
        if len(shape) == 4:
            values = rng.normal(0, math.sqrt(2 / math.prod(shape[1:])), shape)
        elif name.endswith(("running_var", ".weight")):
            values = rng.uniform(0.8, 1.2, shape)
        else:
            values = rng.normal(0, 0.1, shape)
        tensors[name] = values.astype(np.float32)
    tensors["body.conv1.weight"] /= 64  # grey levels
    for name in [name for name in tensors if ".bn2.weight" in name]:
        tensors[name] *= 0.3  # of what a residual block adds
    for head in ("ClassHead", "BboxHead", "LandmarkHead"):
        for level in range(3):
            tensors[f"{head}._convs.{level}.weight"] *= 0.2
    for level in range(3):
        tensors[f"ClassHead._convs.{level}.bias"] = np.tile(np.float32([0, face_bias]), 2)
    tensors |= {
        name.replace("running_mean", "num_batches_tracked"): np.asarray(1, np.int64)
        for name in tensors
        if name.endswith("running_mean")
    }
    save_file(tensors, path)
    return path
