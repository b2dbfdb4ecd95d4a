"""Model. Resolve checkpoints: from a local file, from the hub, or synthetic."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Final

from featray.errors import ConfigError, LicenseError, ModelError, WeightsMissing
from featray.model.checkpoint import Checkpoint, read_checkpoint
from featray.model.known import KNOWN_CHECKPOINTS, NON_COMMERCIAL, full_spec, known_by_spec
from featray.model.synth import DEFAULT_VARIANT, SYNTHETIC_VARIANTS, write_synthetic
from featray.weights.cache import locked
from featray.weights.hub import DEFAULT_LICENSE, HUB_PREFIX, HubFile, fetch, open_pulled, parse_hub_spec

SYNTHETIC: Final = "synthetic"
_SEED: Final = 0


def resolve_checkpoint(
    spec: str,
    *,
    revision: str | None,
    sha256: str | None,
    accept_license: str | None,
    cache_dir: Path,
) -> Checkpoint:
    """Find, download or create the checkpoint that `spec` names, and check it.

    Args:
        spec: `synthetic` or `synthetic:<variant>`; the name of a known checkpoint, such as `v2.8`;
            `hf://owner/repo/file.safetensors`; or a path.
        revision: branch, tag or commit on the hub; unused for other kinds.
        sha256: hex digest that the file must have, or None.
        accept_license: the licence that the user has agreed to, or None.
        cache_dir: folder of pulled and synthetic checkpoints.

    Raises:
        ConfigError: `spec`, `revision` or `sha256` is malformed.
        LicenseError: `accept_license` does not name the licence of the weights.
        WeightsMissing: the checkpoint was never pulled and the hub cannot be reached.
        ModelError: the file does not exist, is not a checkpoint or has another sha256.
    """
    sha256 = checked_sha256(sha256)
    if spec == SYNTHETIC or spec.startswith(f"{SYNTHETIC}:"):
        checkpoint = _synthetic(spec, cache_dir)
    elif is_on_hub(spec):
        hub_file, pinned_sha256 = find_hub_file(spec, revision)
        _check_license(hub_file, accept_license)
        sha256 = sha256 or pinned_sha256
        found, commit = fetch(hub_file, cache_dir, read_checkpoint, sha256=sha256)
        checkpoint = replace(found, revision=commit)
    else:
        checkpoint = _local(spec)
    if sha256 is not None and checkpoint.sha256 != sha256:
        raise ModelError(f"{spec}: its sha256 is {checkpoint.sha256}, not {sha256} as in model.sha256")
    return checkpoint


def open_pulled_checkpoint(spec: str, revision: str | None, cache_dir: Path) -> Checkpoint:
    """Open a pulled checkpoint; never uses the network and does not check the licence again.

    Raises:
        ConfigError: `spec` or `revision` is malformed.
        WeightsMissing: it was never pulled.
        ModelError: the copy is damaged.
    """
    found, commit = open_pulled(find_hub_file(spec, revision)[0], cache_dir, read_checkpoint)
    return replace(found, revision=commit)


def find_stand_in(spec: str, revision: str | None, accept_license: str | None, cache_dir: Path) -> str | None:
    """Return the synthetic checkpoint with the shape of weights that a run would download; None if it would not.

    Raises:
        ConfigError: `spec` or `revision` is malformed.
        LicenseError: the licence of the weights is not accepted, so a run would end.
        ModelError: the pulled copy is damaged.
    """
    if not is_on_hub(spec):
        return None
    _check_license(find_hub_file(spec, revision)[0], accept_license)
    try:
        open_pulled_checkpoint(spec, revision, cache_dir)
    except WeightsMissing:
        known = known_by_spec(spec)
        return SYNTHETIC if known is None else f"{SYNTHETIC}:{known.shape}"
    return None


def is_on_hub(spec: str) -> bool:
    """Return whether a spec names a file on the hub, by address or by the short name of a known checkpoint."""
    return full_spec(spec).startswith(HUB_PREFIX)


def checked_sha256(sha256: str | None) -> str | None:
    """Return a digest in lower case; ConfigError if it is malformed."""
    if sha256 is None:
        return None
    if not re.fullmatch(r"[0-9a-f]{64}", sha256.lower()):
        raise ConfigError(f"model.sha256: {sha256[:80]!r} is not 64 hex digits")
    return sha256.lower()


def find_hub_file(spec: str, revision: str | None) -> tuple[HubFile, str | None]:
    """Return the hub file for `hf://...` or a short name, and its pinned sha256 or None.

    Raises:
        ConfigError: `spec` or `revision` is malformed.
    """
    known = known_by_spec(spec)
    if known is None:
        return parse_hub_spec(spec, revision), None
    is_pinned = revision in (None, known.revision)
    hub_file = parse_hub_spec(known.spec, known.revision if is_pinned else revision)
    return replace(hub_file, short_name=known.name), known.sha256 if is_pinned else None


def _synthetic(spec: str, cache_dir: Path) -> Checkpoint:
    variant = spec.partition(":")[2] or DEFAULT_VARIANT
    if variant not in SYNTHETIC_VARIANTS:
        known = ", ".join(SYNTHETIC_VARIANTS)
        raise ConfigError(f"model.checkpoint: there is no synthetic variant {variant!r}; use one of {known}")
    path = cache_dir / SYNTHETIC / f"{SYNTHETIC}-{variant}-seed{_SEED}.safetensors"
    try:
        with locked(path.with_suffix(".lock")):
            if not path.exists():
                for stale in path.parent.glob(f".{path.name}.*"):  # left by a process that was killed
                    stale.unlink()
                write_synthetic(path, config=SYNTHETIC_VARIANTS[variant], seed=_SEED)
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be written ({error.strerror or error}); set FEATRAY_CACHE to another folder"
        ) from error
    return read_checkpoint(path)


def _local(spec: str) -> Checkpoint:
    if "://" in spec:
        scheme = spec.partition("://")[0]
        raise ConfigError(f"model.checkpoint: {scheme}:// is not supported; use synthetic, hf:// or a local path")
    path = Path(spec).expanduser()
    if not path.is_file():
        names = ", ".join(known.name for known in KNOWN_CHECKPOINTS)
        raise ModelError(f"{spec}: no such checkpoint file; give {names}, hf://..., a path or 'synthetic'")
    return read_checkpoint(path)


def _check_license(hub_file: HubFile, accept_license: str | None) -> None:
    if hub_file.restricted and accept_license != DEFAULT_LICENSE:
        raise LicenseError(
            f"{hub_file.spec}: py-feat releases these weights for research, non-commercial use only: {NON_COMMERCIAL}; "
            f"if that is your use, set model.accept_license: {DEFAULT_LICENSE} "
            f"(with `featray models pull`: --accept-license {DEFAULT_LICENSE})",
            license=DEFAULT_LICENSE,
        )
