"""Command line. The arguments of `run` and `plan`: a config, or videos and the place for their tables.

Imported by the command line at every start, so only click is imported here at the top.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from featray.errors import UsageError
from featray.redaction import readable_name

if TYPE_CHECKING:
    from featray.config import Config

_Command = Callable[..., Any]

_CONFIG_SUFFIXES: Final = (".yaml", ".yml")
NO_OUTPUT: Final = "/nonexistent"
"""Output of a plan for which none is given: no folder that may hold tables, such as one below the current folder."""


def input_arguments(command: _Command) -> _Command:
    """Add `INPUT...`, `--out` and `--set`, passed to the command as `inputs`, `out` and `overrides`."""
    command = click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Any key of a config, such as decode.sample='{fps: 5}'; overrides CONFIG.",
    )(command)
    command = click.option("--out", metavar="OUT", help="Without CONFIG: folder or URI for the tables.")(command)
    return click.argument("inputs", nargs=-1, required=True, metavar="CONFIG | INPUT...")(command)


def read_inputs(
    inputs: tuple[str, ...], out: str | None, overrides: tuple[str, ...], *, out_needed: bool = True
) -> Config:
    """Return the config that the arguments name or describe; a file named .yaml or .yml is a config.

    Args:
        inputs: a config, or videos.
        out: folder or URI for the tables of videos.
        overrides: `a.b=value` each.
        out_needed: whether videos require `out`; if false, it defaults to `NO_OUTPUT`.

    Raises:
        UsageError: neither a single config, nor videos with a place for their tables; or the config is invalid.
    """
    from featray.config import build_config, load_config

    configs = [name for name in inputs if "://" not in name and name.lower().endswith(_CONFIG_SUFFIXES)]
    if configs and len(inputs) > 1:
        raise UsageError(
            f"{configs[0]}: a config cannot be combined with other inputs; give only it, or videos and --out OUT"
        )
    if configs and out is not None:
        raise UsageError(f"--out {out}: {configs[0]} already sets the output; override it with --set output.uri={out}")
    if configs:
        return load_config(Path(configs[0]), overrides)
    if out is None and out_needed:
        raise UsageError(
            f"{inputs[0]}: no place for the tables; give --out OUT, a folder or a URI, "
            "or a config, a .yaml or .yml file"
        )
    for name in inputs:
        if readable_name(name) != name:
            raise UsageError(f"{readable_name(name)}: its name is not UTF-8, so no table can store it; rename it")
    places = [_absolute(place) for place in inputs]
    data = {
        "dataset": _dataset_name(places),
        "input": {"uris": places},
        "output": {"uri": NO_OUTPUT if out is None else _absolute(out)},
    }
    return build_config(data, overrides, origin="the command line")


def save_config(config: Config, path: Path) -> None:
    """Write the keys that a config sets to a YAML file.

    Raises:
        UsageError: the file already exists, cannot be written, or would hold a secret.
    """
    import yaml

    said = config.model_dump(mode="json", exclude_unset=True)
    if config.redacted() != config.model_dump(mode="json"):
        raise UsageError(
            f"--save-config {path}: would hold a secret; pass that in the environment instead, for example AWS_PROFILE"
        )
    try:
        with path.open("x", encoding="utf-8") as file:
            yaml.safe_dump(said, file, sort_keys=False, allow_unicode=True)
    except OSError as error:
        raise UsageError(f"--save-config {path}: {error.strerror or error}") from None


def _absolute(place: str) -> str:
    """Return an absolute path; a URI stays unchanged."""
    return place if "://" in place else os.path.abspath(place)


def _dataset_name(places: list[str]) -> str:
    """Return the name of the common folder of all inputs, reduced to the characters of a dataset name."""
    common: list[str] = []
    for parts in zip(*(place.split("://")[-1].split("/") for place in places), strict=False):
        if len(set(parts)) > 1 or re.search(r"[*?\[]", parts[0]):
            break
        common.append(parts[0])
    if len(places) == 1 and common == places[0].split("://")[-1].split("/") and _is_file(places[0]):
        common.pop()
    folder = next((part for part in reversed(common) if part), "")
    return re.sub(r"[^A-Za-z0-9._-]+", "_", folder).strip("._-")[:64] or "videos"


def _is_file(place: str) -> bool:
    return "." in place.rsplit("/", 1)[-1] and not os.path.isdir(place)
