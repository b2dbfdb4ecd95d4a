"""Tables. Provenance of results (versions, machine, weights) for the `runs` table and for file footers.

`read_config` parses `runs.config`, which is untrusted.
"""

from __future__ import annotations

import json
import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict

from featray.config import Config, Table
from featray.config_text import MOST_CHARS, NOT_READ, check_plain, check_yaml
from featray.errors import ConfigError
from featray.identity import settings_hash
from featray.schema import FACES
from featray.version import __version__

SYNTHETIC_WEIGHTS: Final = (
    "The weights are synthetic: the detector's boxes and five landmarks, times and counts are real, "
    "facial numbers carry no meaning."
)
"""The warning of every command that gives facial numbers of such weights."""

_LIBRARIES = ("ray", "torch", "timm", "pyarrow", "numpy", "scipy", "openvino", "av", "safetensors")
_OF_DETECTOR = {"retina-face": ("retina-face", "onnxruntime", "opencv-contrib-python-headless")}


@dataclass(frozen=True)
class WeightsFacts:
    """Facts about the checkpoint of a run."""

    model_name: str
    model_file: str
    weights_sha256: str
    hub_revision: str | None
    license: str
    weights_trained: bool
    conventions: str
    unusable: str


def run_row(
    config: Config,
    *,
    run_id: str,
    release: str,
    weights: WeightsFacts,
    engine: str,
    precision: str,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Return a run's row of the `runs` table at its start; GPUs, counts and end are added when they are known.

    `settings` are the settings that change results, from `identity.result_settings`.

    Raises:
        ConfigError: the config is longer than what is read back of it.
    """
    text = yaml.safe_dump(config.redacted(), sort_keys=False)
    if len(text) > MOST_CHARS:
        raise ConfigError(
            f"the config has {len(text):,} characters, and is stored with each run up to {MOST_CHARS:,}; list the "
            "videos in a manifest, such as a CSV file, and name that in input.uris"
        )
    return {
        "run_id": run_id,
        "started_at": datetime.now(UTC),
        "status": "running",
        "dataset": config.dataset,
        "release": release,
        "config": text,
        "config_hash": settings_hash(settings),
        "featray_version": __version__,
        "featray_commit": _git_commit(),
        **vars(weights),
        "recipe": config.model.recipe,
        "engine": engine,
        "precision": precision,
        "detector": config.detect.detector,
        "detector_sha256": settings["detector"],
        "decoder": _decoder(config.decode.backend),
        "ffmpeg": _ffmpeg_versions(),
        "versions": json.dumps({"python": platform.python_version(), **_versions(config.detect.detector)}),
        "cpu": _cpu_model(),
        "gpu": None,
    }


class _Section(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class _Input(_Section):
    uris: list[str]
    manifest_places: list[str] = []
    path_fields: str | None = None
    column: str | None = None
    kind: Literal["auto", "videos", "sequences"] = "auto"
    sequence_fps: float | None = None
    related: bool = True


class _Output(_Section):
    tables: list[Table]


class _Identify(_Section):
    embedder: str | None = None


class _Stored(_Section):
    input: _Input
    output: _Output = _Output(tables=[])
    identify: _Identify = _Identify()


@dataclass(frozen=True)
class StoredConfig:
    """The part of `runs.config` that later commands use.

    Attributes:
        places: the entries of `input.uris` and `input.manifest_places`.
        sequences: `kind`, `sequence_fps` and `related` of the input.
        embedder: `identify.embedder`; None in a config of an older version.
        data: the whole config, as plain data.
    """

    uris: list[str]
    places: tuple[str, ...]
    path_fields: str | None
    column: str | None
    tables: tuple[str, ...]
    data: dict[str, Any]
    sequences: dict[str, Any]
    embedder: str | None


def read_config(text: str | None) -> StoredConfig:
    """Parse the YAML of `runs.config`.

    Raises:
        ValueError: it is not a config.
    """
    text = text or ""
    if len(text) > MOST_CHARS:
        raise ValueError("is not a config: it is too long")
    try:
        check_yaml(text, aliases=False)  # featray writes none, and a few lines of them can exceed the memory
        data = yaml.safe_load(text)
        check_plain(data)
    except NOT_READ as error:
        raise ValueError("is not a config") from error
    found = _Stored.model_validate(data)
    places = (*found.input.uris, *found.input.manifest_places)
    return StoredConfig(
        found.input.uris,
        places,
        found.input.path_fields,
        found.input.column,
        tuple(found.output.tables),
        data,
        found.input.model_dump(include={"kind", "sequence_fps", "related"}),
        found.identify.embedder,
    )


_FACE_COLUMNS = frozenset(column.name for column in FACES)


def read_unusable(text: str | None) -> tuple[str, ...]:
    """Parse `runs.unusable`: columns of `faces` that the checkpoint is known not to estimate."""
    return tuple(name for name in (text or "").split(",") if name in _FACE_COLUMNS)


def footer(row: dict[str, Any]) -> dict[str, str]:
    """Return the facts about a run for every file's footer, so that a copied file still shows its origin."""
    names = (
        "dataset release featray_version featray_commit model_name model_file weights_sha256 hub_revision license "
        "weights_trained conventions unusable recipe engine precision detector detector_sha256 decoder ffmpeg "
        "config_hash"
    ).split()
    return {name: str(row[name]).lower() if isinstance(row[name], bool) else str(row[name] or "") for name in names}


def _decoder(backend: str) -> str:
    """Return the decoding backend with the name and version of the distribution that provides it."""
    names = ("av",) if backend == "pyav" else ("decord2", "decord")
    return " ".join([backend, *(f"{name} {_version(name)}" for name in names if _version(name))])


@cache
def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _versions(detector: str) -> dict[str, str]:
    return {name: version for name in (*_LIBRARIES, *_OF_DETECTOR.get(detector, ())) if (version := _version(name))}


def _ffmpeg_versions() -> str:
    import av

    return " ".join(f"{name} {'.'.join(map(str, av.library_versions[name]))}" for name in sorted(av.library_versions))


@cache
def _git_commit() -> str | None:
    """Return the git commit of the checkout that this package is imported from, with `+` if there are changes.

    It is determined once per process.
    """
    folder = Path(__file__).parents[1]
    if not (folder.parent / ".git").exists():
        return None
    try:
        commit = _git(folder, "rev-parse", "--short=12", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".")
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if changed else "")


def _git(folder: Path, *command: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *command], capture_output=True, text=True, check=True, timeout=10
    ).stdout.strip()


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
