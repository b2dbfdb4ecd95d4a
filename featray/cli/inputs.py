"""Command line. What `run` and `plan` are given: a config, or videos and where their tables go.

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

if TYPE_CHECKING:
    from featray.config import Config

_Command = Callable[..., Any]

_CONFIG_SUFFIXES: Final = (".yaml", ".yml")


def input_arguments(command: _Command) -> _Command:
    """`INPUT...`, `--out` and `--set`, given to the command as `inputs`, `out` and `overrides`."""
    command = click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Any setting of configs/s3.yaml, such as decode.sample='{fps: 5}'; goes before CONFIG.",
    )(command)
    command = click.option("--out", metavar="OUT", help="Without CONFIG: where the tables go, a folder or a URI.")(
        command
    )
    return click.argument("inputs", nargs=-1, required=True, metavar="CONFIG | INPUT...")(command)


def read_inputs(
    inputs: tuple[str, ...], out: str | None, overrides: tuple[str, ...], *, out_needed: bool = True
) -> Config:
    """Return the config that the arguments name or describe; one file with a name in .yaml or .yml is a config.

    Args:
        inputs: a config, or videos.
        out: where the tables of videos go.
        overrides: `a.b=value` each.
        out_needed: whether videos need `out`; without it, their tables would go to `OUT`.

    Raises:
        UsageError: neither a config alone, nor videos with a place for their tables; or the config is wrong.
    """
    from featray.config import build_config, load_config

    configs = [name for name in inputs if "://" not in name and name.lower().endswith(_CONFIG_SUFFIXES)]
    if configs and len(inputs) > 1:
        raise UsageError(f"{configs[0]}: a config stands alone; name it, or videos and --out OUT")
    if configs and out is not None:
        raise UsageError(f"--out {out}: {configs[0]} says where its tables go; change that with --set output.uri={out}")
    if configs:
        return load_config(Path(configs[0]), overrides)
    if out is None and out_needed:
        raise UsageError(
            f"{inputs[0]}: say where the tables go with --out OUT, a folder or a URI; "
            "or name a config, a file in .yaml or .yml"
        )
    places = [_absolute(place) for place in inputs]
    data = {
        "dataset": _dataset_name(places),
        "input": {"uris": places},
        "output": {"uri": "OUT" if out is None else _absolute(out)},
    }
    return build_config(data, overrides, origin="the command line")


def save_config(config: Config, path: Path) -> None:
    """Write what a config sets as a YAML file.

    Raises:
        UsageError: the file is there already, cannot be written, or would hold a secret.
    """
    import yaml

    said = config.model_dump(mode="json", exclude_unset=True)
    if config.redacted() != config.model_dump(mode="json"):
        raise UsageError(
            f"--save-config {path}: would hold a secret; leave that to the environment, as AWS_PROFILE does"
        )
    try:
        with path.open("x", encoding="utf-8") as file:
            yaml.safe_dump(said, file, sort_keys=False, allow_unicode=True)
    except OSError as error:
        raise UsageError(f"--save-config {path}: {error.strerror or error}") from None


def _absolute(place: str) -> str:
    """A path that means the same from any folder; a URI stays as it is."""
    return place if "://" in place else os.path.abspath(place)


def _dataset_name(places: list[str]) -> str:
    """The name of the folder that all inputs lie in, as far as a dataset may be called so."""
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
