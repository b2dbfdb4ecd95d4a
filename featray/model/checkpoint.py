"""Model. Read a checkpoint: a `.safetensors` file whose metadata holds the model config.

A checkpoint is untrusted input. Only the safetensors format is read (a JSON header, then
raw numbers; never a pickle), and the header is checked against the layout that its config
implies before any weight is used. Importable and usable without torch.
"""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from safetensors import SafetensorError, safe_open

from featray.errors import ModelError, one_line
from featray.model.config import CheckpointConfig, config_from_json
from featray.model.layout import Shape, expected_dtype, expected_layout
from featray.weights.hub import DEFAULT_LICENSE

_ITEM_DTYPES: Final = frozenset({"F32", "F16", "BF16", "I64"})
_HALF_DTYPES: Final = frozenset({"F16", "BF16"})
_LENGTH_BYTES: Final = 8
_MAX_HEADER_BYTES: Final = 100_000_000
"""The limit of the safetensors library."""
_PICKLES: Final = (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05")


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


def read_checkpoint(path: Path) -> Checkpoint:
    """Check the file at `path` and describe it. The file is read once, so the checked bytes are the hashed bytes.

    Load its weights with `read_hashed` and the returned digest.

    Raises:
        ModelError: the file cannot be read, is not a safetensors file, is truncated, has no
            config or a bad one, or has missing, unexpected or misshapen tensors. The message
            is one line and names the file and the key or tensor.
    """
    try:
        with path.open("rb") as file:
            if file.read(2) in _PICKLES:
                raise ModelError(f"{path}: is a pickle, which can run code when loaded; use a .safetensors file")
            file.seek(0)
            with tempfile.NamedTemporaryFile(suffix=".safetensors") as header:
                os.fchmod(header.fileno(), 0o600)  # it is opened again by its name, whatever the umask
                sha256 = _hash(file, header)
                tensors, metadata = _read_header(Path(header.name), path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error
    if "config" not in metadata:
        raise ModelError(f"{path}: has no 'config' in its metadata; it is not a multitask checkpoint")
    config = config_from_json(metadata["config"], source=str(path))
    _check_layout(tensors, config, path)
    return Checkpoint(
        path=path,
        config=config,
        sha256=sha256,
        name=path.stem,
        license=metadata.get("license", DEFAULT_LICENSE),
        weights_trained=metadata.get("weights_trained", "true").strip().lower() != "false",
        num_parameters=sum(math.prod(t.shape) for t in tensors.values() if t.dtype != "I64"),
    )


def _hash(file: IO[bytes], header: IO[bytes]) -> str:
    """Hash a file, and write a copy of the hashed bytes to `header` with a hole in place of the tensors."""
    start = file.read(_LENGTH_BYTES)
    start += file.read(min(int.from_bytes(start, "little"), _MAX_HEADER_BYTES))
    digest, size_bytes = hashlib.sha256(start), len(start)
    while block := file.read(1 << 20):
        digest.update(block)
        size_bytes += len(block)
    header.write(start)
    header.truncate(size_bytes)
    header.flush()
    return digest.hexdigest()


def _read_header(header: Path, path: Path) -> tuple[dict[str, _Tensor], dict[str, str]]:
    """Read the tensors' types and shapes, and the metadata; safetensors checks that the tensors cover the file."""
    try:
        with safe_open(header, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}
            tensors = {name: _Tensor(one.get_dtype(), tuple(one.get_shape())) for name, one in slices.items()}
            metadata = file.metadata() or {}
    except SafetensorError as error:
        reason = one_line(error, 200).removeprefix("Error while deserializing header: ")
        raise ModelError(f"{path}: is not a complete safetensors file ({reason}); download it again") from None
    for name, tensor in tensors.items():
        if tensor.dtype not in _ITEM_DTYPES:
            raise ModelError(f"{path}: tensor {name[:200]!r} has the unsupported dtype {tensor.dtype}", tensor=name)
    return tensors, metadata


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
        # Half precision is accepted: it only means that the same weights were published in a smaller file.
        if tensor.dtype != dtype and not (dtype == "F32" and tensor.dtype in _HALF_DTYPES):
            raise ModelError(f"{path}: tensor {name!r} has dtype {tensor.dtype}, not {dtype}", tensor=name)


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name[:100]) for name in names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"tensor{'s' if len(names) > 1 else ''} {shown}{more}"
