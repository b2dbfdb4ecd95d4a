"""Reading a checkpoint: one `.safetensors` file whose metadata holds the model config.

A checkpoint is untrusted input. Only the safetensors format is read (a header of JSON,
then raw numbers; never a pickle), and the header is checked against the layout that its
config implies before any weight is used. Importable and usable without torch.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from featray.errors import ModelError
from featray.model.config import CheckpointConfig, config_from_json
from featray.model.layout import Shape, expected_dtype, expected_layout

DEFAULT_LICENSE: Final = "research-noncommercial"
"""What a checkpoint is licensed under when its metadata says nothing: py-feat's terms."""

_MAX_HEADER_BYTES: Final = 16 * 1024 * 1024
_ITEM_BYTES: Final = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8}
_HALF_DTYPES: Final = frozenset({"F16", "BF16"})


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file that has been checked and can be loaded.

    `sha256` is the hex digest of the whole file; `name` its stem; `license` the licence of
    the weights; `weights_trained` is false for synthetic weights, whose outputs carry no
    meaning; `num_parameters` counts the floating-point numbers in the file; `revision` is the
    hub's commit for files that were pulled from it.
    """

    path: Path
    config: CheckpointConfig
    sha256: str
    name: str
    license: str
    weights_trained: bool
    num_parameters: int
    revision: str | None = None


@dataclass(frozen=True)
class _Tensor:
    dtype: str
    shape: Shape
    begin: int
    end: int

    @property
    def num_elements(self) -> int:
        return math.prod(self.shape)


def read_checkpoint(path: Path) -> Checkpoint:
    """Check the file at `path` and describe it; reads the header, then hashes the file.

    Raises:
        ModelError: the file cannot be read, is no safetensors file, is truncated, has no or
            a bad config, or has missing, unexpected or misshapen tensors. One line, naming
            the file and the key or tensor.

    """
    try:
        with path.open("rb") as file:
            header, data_bytes = _read_header(file, path)
            tensors, metadata = _parse_header(header, data_bytes, path)
            if "config" not in metadata:
                raise ModelError(f"{path}: no 'config' in its metadata; not a multitask checkpoint")
            config = config_from_json(metadata["config"], source=str(path))
            _check_layout(tensors, config, path)
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error
    return Checkpoint(
        path=path,
        config=config,
        sha256=sha256,
        name=path.stem,
        license=metadata.get("license", DEFAULT_LICENSE),
        weights_trained=metadata.get("weights_trained", "true").strip().lower() != "false",
        num_parameters=sum(t.num_elements for t in tensors.values() if t.dtype != "I64"),
    )


def _read_header(file: BinaryIO, path: Path) -> tuple[bytes, int]:
    """Read the JSON header; also gives the number of data bytes behind it."""
    file_bytes = file.seek(0, 2)
    file.seek(0)
    start = file.read(9)
    if start[:2] in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05"):
        raise ModelError(f"{path}: is a pickle, which can run code when loaded; only .safetensors is read")
    if len(start) < 9 or start[8:] != b"{":
        raise ModelError(f"{path}: is not a safetensors file")
    (header_bytes,) = struct.unpack("<Q", start[:8])
    if header_bytes > _MAX_HEADER_BYTES:
        raise ModelError(f"{path}: is not a safetensors file (claims a header of {header_bytes} bytes)")
    if 8 + header_bytes > file_bytes:
        raise ModelError(f"{path}: is truncated inside its header ({file_bytes} bytes); fetch it again")
    return start[8:] + file.read(header_bytes - 1), file_bytes - 8 - header_bytes


def _parse_header(header: bytes, data_bytes: int, path: Path) -> tuple[dict[str, _Tensor], dict[str, str]]:
    try:
        entries = json.loads(header)
    except (ValueError, RecursionError):
        raise ModelError(f"{path}: its safetensors header is not JSON") from None
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ModelError(f"{path}: its safetensors metadata is not a map of strings")
    tensors = {name: _parse_tensor(name, entry, path) for name, entry in entries.items()}
    position = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin != position:
            raise ModelError(f"{path}: tensor {name!r} does not follow the one before it", tensor=name)
        position = tensor.end
    if position > data_bytes:
        raise ModelError(f"{path}: is truncated: {data_bytes} of {position} data bytes; fetch it again")
    if position < data_bytes:
        raise ModelError(f"{path}: {data_bytes - position} bytes follow the last tensor")
    return tensors, metadata


def _parse_tensor(name: str, entry: object, path: Path) -> _Tensor:
    malformed = ModelError(f"{path}: malformed header entry for tensor {name[:200]!r}", tensor=name)
    if not isinstance(entry, dict):
        raise malformed
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(shape, list) or not isinstance(offsets, list) or len(offsets) != 2:
        raise malformed
    if not all(type(number) is int and number >= 0 for number in (*shape, *offsets)):
        raise malformed
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise ModelError(f"{path}: tensor {name[:200]!r} has the unsupported dtype {dtype!r}", tensor=name)
    tensor = _Tensor(dtype, tuple(shape), offsets[0], offsets[1])
    if tensor.end - tensor.begin != tensor.num_elements * _ITEM_BYTES[dtype]:
        raise malformed
    return tensor


def _check_layout(tensors: dict[str, _Tensor], config: CheckpointConfig, path: Path) -> None:
    layout = expected_layout(config)
    if missing := [name for name in layout if name not in tensors]:
        raise ModelError(f"{path}: missing {_listed(missing)}", tensors=missing)
    if unexpected := sorted(name for name in tensors if name not in layout):
        raise ModelError(f"{path}: unexpected {_listed(unexpected)}", tensors=unexpected)
    for name, shape in layout.items():
        tensor, dtype = tensors[name], expected_dtype(name)
        if tensor.shape != shape:
            found = list(tensor.shape)
            raise ModelError(f"{path}: tensor {name!r} has shape {found}, not {list(shape)}", tensor=name)
        # Half precision is read too: weights that were published smaller are the same weights.
        if tensor.dtype != dtype and not (dtype == "F32" and tensor.dtype in _HALF_DTYPES):
            raise ModelError(f"{path}: tensor {name!r} has dtype {tensor.dtype}, not {dtype}", tensor=name)


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name[:100]) for name in names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"tensor{'s' if len(names) > 1 else ''} {shown}{more}"
