"""Command line. How commands are told to reach a storage; secrets do not stand in the tables.

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
    from featray.tables.layout import Output

_Command = Callable[..., Any]

_TEXT: Final = re.compile(r"(^|_)(key|secret|token|password|passphrase|id|name|user|username|project)$", re.IGNORECASE)
"""Options whose value is text even if it is made of digits: a key 0123 or 12e4 must arrive as it was given."""


def storage_option_flag(command: _Command) -> _Command:
    """`--storage-option`, given to the command as `options`."""
    return click.option(
        "--storage-option",
        "options",
        multiple=True,
        metavar="KEY=VALUE",
        help="For fsspec, such as endpoint_url=http://minio:9000; goes for OUT and videos. JSON (true, 30, {...}) "
        "is taken as such, all else as text; keys, secrets, ids and names are always text.",
    )(command)


def storage_flags(command: _Command) -> _Command:
    """`--config` and `--storage-option`, given to the command as `config` and `options`."""
    command = storage_option_flag(command)
    return click.option(
        "--config",
        "config",
        type=click.Path(path_type=Path),
        help="A run's config: its storage_options are used, those of its input for videos, of its output for OUT.",
    )(command)


def read_storage_flags(config: Path | None, options: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Storage options of the inputs and of the output; what the command line says goes before the config.

    Raises:
        UsageError: an option is malformed, or the config is.
    """
    given = parse_storage_options(options)
    if config is None:
        return given, dict(given)
    from featray.config import load_config

    loaded = load_config(config)
    return {**loaded.input.storage_options, **given}, {**loaded.output.storage_options, **given}


def open_told(out: str, config: Path | None, options: tuple[str, ...]) -> Output:
    """The output of a command that reads no videos, reached as these flags say.

    Raises:
        UsageError: as `read_storage_flags`.
        FeatrayError: as `open_output`.
    """
    from featray.tables.layout import open_output

    return open_output(out, read_storage_flags(config, options)[1])


def parse_storage_options(pairs: tuple[str, ...]) -> dict[str, Any]:
    """Options from KEY=VALUE, for fsspec.

    JSON is taken as such, all else is text. Where a value may be a secret or a name it is text
    unless it is a JSON object (gcsfs takes its token as one) or in JSON's quotes.

    Raises:
        UsageError: no KEY=VALUE, or JSON that breaks off; values are never shown, since they may be secrets.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not key or not equals:
            raise UsageError("--storage-option: write it as KEY=VALUE, such as anon=true")
        is_text = _TEXT.search(key) is not None
        try:
            value = json.loads(text, parse_constant=str)  # NaN and Infinity are no JSON
        except ValueError:
            if text[:1] in ("{", "[") and not is_text:
                raise UsageError(f"--storage-option {key}: begins like JSON and is none") from None
            value = text
        found[key] = text if is_text and not isinstance(value, dict | str) else value
    return found
