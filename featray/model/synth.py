"""Model. Synthetic checkpoints: every weight is computed from its name and a seed.

The published weights may not be redistributed, so demos, tests and parity checks use
synthetic ones. They have the size and structure of the published weights; their outputs
have no meaning, and the file records that (`weights_trained: "false"`). The file is the
same byte for byte on every machine, because its sha256 is part of the release. Needs no
torch.
"""

from __future__ import annotations

import json
import math
import os
import struct
import tempfile
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from featray.errors import ModelError
from featray.model.config import CheckpointConfig
from featray.model.layout import Shape, expected_dtype, expected_layout

SYNTHETIC_LICENSE: Final = "MIT"

_V25: Final[dict[str, Any]] = {
    "use_head_v3": True,
    "n_au": 20,
    "n_emotion": 7,
    "n_blendshape": 52,
    "mesh_normalized": True,
    "drop_mefl": True,
    "emotion_use_au_prob": True,
}
_EYE_ROI: Final[dict[str, Any]] = {**_V25, "gaze_eye_roi": True}

SYNTHETIC_VARIANTS: Final[dict[str, CheckpointConfig]] = {
    name: CheckpointConfig(**values)
    for name, values in {
        "v25": _V25,
        "v28": {**_EYE_ROI, "gaze_pose_6d": True, "gaze_hidden": 256, "gaze_bins": 90},
        "v24": {**_V25, "n_blendshape": 0, "mesh_normalized": False},
        "v26headframe": {**_EYE_ROI, "gaze_head_frame": True},
        "v23mefl": {"use_head_v3": True},
        "atto": {
            **_V25,
            "backbone": "convnextv2_atto.fcmae_ft_in1k",
            "afg_channels": 64,
            "mefl_channels": 64,
            "unified_lmk_dim": 32,
        },
    }.items()
}
"""Configs of the published head versions, and `atto`: a small one for tests."""

DEFAULT_VARIANT: Final = "v25"
"""The variant of plain `synthetic`: the head of the model card's file."""


def synthetic_tensor(name: str, shape: Shape, *, seed: int) -> NDArray[Any]:
    """Compute the weights of a tensor from its name: float32, or int64 zeros for BatchNorm's counters.

    They are normal random numbers from a generator seeded with the CRC-32 of "<seed>:<name>",
    scaled so that activations keep their size through the network.
    """
    if expected_dtype(name) == "I64":
        return np.zeros(shape, np.int64)
    leaf = name.rsplit(".", 1)[-1]
    if name.startswith("log_var"):
        return np.zeros(shape, np.float32)
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(f"{seed}:{name}".encode())))
    x: NDArray[Any] = np.asarray(rng.standard_normal(shape), np.float32)
    is_response_norm = ".grn." in name
    if leaf == "running_var":
        x = 1.0 + 0.2 * np.abs(x)
    elif leaf == "running_mean":
        x = 0.1 * x
    elif leaf == "s":
        pass
    elif len(shape) >= 2 and not is_response_norm:
        x = x * math.sqrt(1.6 / math.prod(shape[1:]))
    elif leaf == "weight" and not is_response_norm:
        x = 1.0 + 0.1 * x
    else:
        x = 0.1 * x
    return np.asarray(x, np.float32)


def write_synthetic(path: Path, *, config: CheckpointConfig | None = None, seed: int = 0) -> None:
    """Write a synthetic checkpoint of `config` (default: the published v2.5 head) to `path`, atomically.

    Raises:
        ModelError: `path` cannot be written.

    """
    config = config or SYNTHETIC_VARIANTS[DEFAULT_VARIANT]
    # Widest items first, as in safetensors' own writer, so that every tensor is aligned.
    names = sorted(expected_layout(config).items(), key=lambda item: (expected_dtype(item[0]) != "I64", item[0]))
    header = _header(names, config)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(struct.pack("<Q", len(header)) + header)
                for name, shape in names:
                    file.write(synthetic_tensor(name, shape, seed=seed).tobytes())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ModelError(f"{path}: cannot be written ({error.strerror or error})") from error


def _header(names: list[tuple[str, Shape]], config: CheckpointConfig) -> bytes:
    """Build the safetensors header, padded to 8 bytes.

    safetensors' own writer orders metadata by a randomly seeded hash, so the same weights would
    get another sha256 in every process.
    """
    entries: dict[str, Any] = {
        "__metadata__": {
            "config": json.dumps(config.model_dump()),
            "license": SYNTHETIC_LICENSE,
            "weights_trained": "false",
        }
    }
    position = 0
    for name, shape in names:
        dtype = expected_dtype(name)
        end = position + math.prod(shape) * (8 if dtype == "I64" else 4)
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, end]}
        position = end
    header = json.dumps(entries, separators=(",", ":")).encode()
    return header + b" " * (-len(header) % 8)
