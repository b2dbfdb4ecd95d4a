"""Ground. The names by which finished work is recognised.

* `video_id` identifies a video by its location.
* `content_id` identifies its bytes, as far as the storage can tell without reading them.
* `work_key` identifies the work: bytes + weights + detector + settings that change results.
* `partition_folder` is the folder of a path field's value.
* `release` is the partition that keeps outputs of different models or settings apart.

All are pure functions of their arguments, so every process computes the same names at
any time. Changing worker counts, batch sizes or the length of units must not change them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

from featray.config import Config

RESULTS_EPOCH = 2
"""Raise this when a code change alters results for the same settings, so that work is done again.

2: tracks follow a face's movement and end at cuts; `frames` records the cuts.

Not raised for tone mapping and square pixels, which affect few videos and are recorded in `videos`: all other work
would be redone for nothing. Older rows of the affected videos stay, with a null `transfer`.
"""


def video_id(uri: str, member: str | None = None) -> str:
    """Return the first 16 hex digits of the sha256 of a URI without credentials or query (and its member)."""
    name = uri if member is None else f"{uri}#{member}"
    return hashlib.sha256(name.encode()).hexdigest()[:16]


NULL_FOLDER: Final = "__HIVE_DEFAULT_PARTITION__"
"""The folder name that Hive, Spark and DuckDB read as null."""

_FOLDER_BYTES: Final = 200
"""Maximum length of an escaped `name=value`; file systems allow 255."""

_SHORTENED: Final = re.compile("~[0-9a-f]{16}$")


def partition_folder(name: str, value: str | None) -> str:
    """Return the folder of a path field's value. Only ASCII is escaped, since Spark unescapes bytes, not UTF-8."""
    if value is None:
        return f"{name}={NULL_FOLDER}"
    return f"{name}={''.join(quote(one, safe=' ') if one.isascii() else one for one in value)}"


def partition_value(name: str, value: str) -> str:
    """Return a path field's value as used in tables and folders; a long one is cut and ends in a hash of the whole.

    Distinct values stay distinct: a value that already looks shortened, or equals the name for null, also gets a hash.

    >>> partition_value("site", "zurich")
    'zurich'
    """
    is_short = len(partition_folder(name, value).encode()) <= _FOLDER_BYTES
    if is_short and value != NULL_FOLDER and not _SHORTENED.search(value):
        return value
    ending = f"~{hashlib.sha256(value.encode()).hexdigest()[:16]}"
    while value and len(partition_folder(name, value + ending).encode()) > _FOLDER_BYTES:
        value = value[:-1]
    return value + ending


def result_settings(
    config: Config,
    *,
    weights_sha256: str,
    detector_sha256: str,
    precision: str,
    embedder_sha256: str | None,
    conventions: str | None = None,
) -> dict[str, Any]:
    """Return every setting that changes the contents of the tables, as plain JSON data.

    Args:
        config: the run's configuration.
        weights_sha256: of the multitask checkpoint.
        detector_sha256: of the detector's weights, or of its file of boxes.
        precision: `fp32` or `bf16`, after `auto` was resolved.
        embedder_sha256: of the embedder's weights; None without embeddings, which then adds nothing.
        conventions: `Conventions.setting`, the signs of angles; None for the conventions that all outputs had before
            this setting existed, so that their releases keep their names.
    """
    return {
        "epoch": RESULTS_EPOCH,
        "weights": weights_sha256,
        "detector": detector_sha256,
        "recipe": config.model.recipe,
        "precision": precision,
        **({} if conventions is None else {"conventions": conventions}),
        "decode": config.decode.result_settings(),
        "detect": config.detect.result_settings(),
        # Not results, but one release has one set of tables and one layout of folders.
        "tables": sorted(config.output.tables),
        "path_fields": config.input.path_fields,
        **config.input.result_settings(),
        **({} if embedder_sha256 is None else {"identify": config.identify.result_settings(embedder_sha256)}),
    }


def settings_hash(settings: dict[str, Any]) -> str:
    """Return the sha256 (hex) of settings in canonical JSON."""
    return hashlib.sha256(_canonical(settings)).hexdigest()


def release_name(model_name: str, settings: dict[str, Any]) -> str:
    """Return `<model name>-<8 hex of the settings hash>`, the value of the `release` partition."""
    return f"{model_name}-{settings_hash(settings)[:8]}"


def work_key(content_id: str, settings: dict[str, Any]) -> str:
    """Return the sha256 (hex) over a video's content id and the settings that change results."""
    return work_keys(settings)(content_id)


def work_keys(settings: dict[str, Any]) -> Callable[[str], str]:
    """Return `work_key` as a function of the content id, for many videos: the settings are serialised once."""
    rest = _canonical({"settings": settings})[1:]

    def key(content_id: str) -> str:
        return hashlib.sha256(b'{"content":%b,%b' % (json.dumps(content_id).encode(), rest)).hexdigest()

    return key


def _canonical(data: dict[str, Any]) -> bytes:
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
