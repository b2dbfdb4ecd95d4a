"""Command line. Options for access to storage; secrets are not stored in the tables.

Imported by the command line at every start, so only click is imported here at the top.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from featray.errors import UsageError

if TYPE_CHECKING:
    from featray.sources.places import SourceOptions
    from featray.tables.layout import Output

_Command = Callable[..., Any]

_TEXT: Final = re.compile(r"(^|_)(key|secret|token|password|passphrase|id|name|user|username|project)$", re.IGNORECASE)
"""Options whose value is always text: a key such as 0123 or 12e4 must not be parsed as a number."""


def storage_option_flag(command: _Command) -> _Command:
    """Add `--storage-option`, passed to the command as `options`."""
    return click.option(
        "--storage-option",
        "options",
        multiple=True,
        metavar="KEY=VALUE",
        help="Option for fsspec, such as endpoint_url=http://minio:9000; applies to OUT and videos. JSON (true, 30, "
        "{...}) is parsed, all else is text; keys, secrets, ids and names are always text.",
    )(command)


def storage_flags(command: _Command) -> _Command:
    """Add `--config` and `--storage-option`, passed to the command as `config` and `options`."""
    command = storage_option_flag(command)
    return click.option(
        "--config",
        "config",
        type=click.Path(path_type=Path),
        help="A run's config, for its storage_options: those of its input for videos, of its output for OUT.",
    )(command)


def read_storage_flags(config: Path | None, options: tuple[str, ...]) -> tuple[SourceOptions, dict[str, Any]]:
    """Return storage options of the inputs and of the output; the command line overrides the config.

    Raises:
        UsageError: an option or the config is malformed.
    """
    from featray.sources.places import SourceOptions

    given = parse_storage_options(options)
    if config is None:
        return SourceOptions(given), dict(given)
    from featray.config import load_config

    loaded = load_config(config)
    places = (*loaded.input.uris, *loaded.input.manifest_places)
    return SourceOptions({**loaded.input.storage_options, **given}, places), {**loaded.output.storage_options, **given}


def open_told(out: str, config: Path | None, options: tuple[str, ...]) -> Output:
    """Return the output of a command that reads no videos, opened with these options.

    Raises:
        UsageError: as `read_storage_flags`.
        FeatrayError: as `open_output`.
    """
    from featray.tables.layout import open_output

    return open_output(out, read_storage_flags(config, options)[1])


def parse_storage_options(pairs: tuple[str, ...]) -> dict[str, Any]:
    """Return options for fsspec from KEY=VALUE pairs.

    JSON values are parsed, all else is text. A value that may be a secret or a name is text
    unless it is a JSON object (gcsfs accepts a token as one) or quoted as in JSON.

    Raises:
        UsageError: not KEY=VALUE, or incomplete JSON; values are never shown, since they may be secrets.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not key or not equals:
            raise UsageError("--storage-option: write it as KEY=VALUE, such as anon=true")
        is_text = _TEXT.search(key) is not None
        try:
            value = json.loads(text, parse_constant=str)  # NaN and Infinity are not JSON
        except (ValueError, RecursionError):
            if text[:1] in ("{", "[") and not is_text:
                raise UsageError(
                    f"--storage-option {key}: begins like JSON but is not valid; check its quotes and brackets"
                ) from None
            value = text
        found[key] = text if is_text and not isinstance(value, dict | str) else value
    return found
