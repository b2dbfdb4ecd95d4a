"""From `input.uris` to videos, one by one, without holding the listing.

Order is that of the configured URIs, then of the storage's listing, so that the same
bucket gives the same order every time. A video named twice is listed once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from fsspec.utils import glob_translate

from featray.config import InputConfig, path_field_names
from featray.errors import ConfigError, StorageError
from featray.identity import video_id
from featray.sources.storage import Location, explain, locate, storage_errors, transport_errors

VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .mkv .webm .avi .ts .mts .m2ts .mpg .mpeg .vob .ogv .ogg .flv .wmv .asf .3gp .3g2".split()
)
"""What is taken from a prefix. A glob or a plain name is taken as written, whatever its suffix."""


@dataclass(frozen=True)
class Video:
    """One media file of the input.

    Attributes:
        video_id: 16 hex digits, from `uri` (and `member`).
        uri: where it is, without credentials or query; safe to print and store.
        address: what to open; may be signed; never printed or stored in a table.
        size_bytes: of the object.
        content_id: names the bytes as far as the listing tells: etag, or modification time, and size.
        member: the name inside a shard file, else None.
        fields: values of `path_fields`.
    """

    video_id: str
    uri: str
    address: str = field(repr=False)
    size_bytes: int
    content_id: str
    member: str | None = None
    fields: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """As JSON text, for travelling in a row; it may hold a signed address, so it is never stored."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Video:
        """The inverse of `to_json`."""
        return cls(**json.loads(text))


def list_videos(config: InputConfig) -> Iterator[Video]:
    """All videos that the input names.

    Raises:
        ConfigError: a URI names nothing, or a path does not fit `path_fields`.
        StorageError: a place cannot be listed.
    """
    seen: set[bytes] = set()
    for uri in config.uris:
        count = 0
        for location, info in _expand(uri, config.storage_options):
            count += 1
            identity = video_id(location.uri)
            key = bytes.fromhex(identity)  # 8 bytes a video: the listing itself is never held
            if key not in seen:
                seen.add(key)
                yield _to_video(identity, location, info, config.path_fields)
        if count == 0:
            raise ConfigError(f"input.uris: nothing found at {locate(uri, config.storage_options).uri}")


def _expand(uri: str, options: dict[str, Any]) -> Iterator[tuple[Location, dict[str, Any]]]:
    here = locate(uri, options)
    if _has_magic(here.path):
        root = re.split(r"[*?\[]", here.path, maxsplit=1)[0].rpartition("/")[0]
        matches = re.compile(glob_translate(here.path)).match
        yield from ((loc, info) for loc, info in _below(here, root) if matches(loc.path.rstrip("/")))
        return
    try:
        info = here.fs.info(here.path)
    except FileNotFoundError:
        return
    except transport_errors() as error:
        raise StorageError(f"{here.uri}: {explain(error)}") from None
    if info["type"] != "directory":
        yield here, info
        return
    for location, found in _below(here, here.path.rstrip("/")):
        if location.path[location.path.rfind(".") :].lower() in VIDEO_SUFFIXES:
            yield location, found


def _below(here: Location, folder: str) -> Iterator[tuple[Location, dict[str, Any]]]:
    """All files below a folder, depth first, in the order of their names; a folder at a time is held."""
    with storage_errors(here.uri):
        try:
            entries = here.fs.ls(folder, detail=True)
        except FileNotFoundError:
            return
    for info in sorted(entries, key=lambda entry: str(entry["name"])):
        path = info["name"]
        if info["type"] != "directory":
            yield Location(here.fs, path, here.fs.unstrip_protocol(path)), info
        elif path.rstrip("/") != folder.rstrip("/"):
            yield from _below(here, path)


def _to_video(identity: str, location: Location, info: dict[str, Any], pattern: str | None) -> Video:
    return Video(
        video_id=identity,
        uri=location.uri,
        address=location.uri if location.uri.endswith(location.path) else location.fs.unstrip_protocol(location.path),
        size_bytes=int(info["size"]) if info.get("size") is not None else -1,
        content_id=_content_id(info),
        fields=_path_fields(location.uri, pattern),
    )


def _content_id(info: dict[str, Any]) -> str:
    size = info.get("size")
    for key in ("ETag", "etag", "md5", "content_md5"):
        if info.get(key):
            return f"etag:{str(info[key]).strip(chr(34))}:{size}"
    for key in ("mtime", "LastModified", "last_modified", "updated"):
        if info.get(key) is not None:
            return f"mtime:{info[key]}:{size}"
    return f"size:{size}"


def _path_fields(uri: str, pattern: str | None) -> dict[str, str]:
    if pattern is None:
        return {}
    parts = pattern.strip("/").split("/")
    path = uri.split("://", 1)[-1].split("/")
    if len(path) <= len(parts):
        raise ConfigError(f"input.path_fields: {pattern} has more parts than {uri}")
    values: dict[str, str] = {}
    for part, text in zip(parts, path[-len(parts) :], strict=True):
        expression = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>.+)", re.escape(part))
        match = re.fullmatch(expression, text)
        if match is None:
            raise ConfigError(f"input.path_fields: {uri} does not fit {pattern}: {text!r} is not {part}")
        values |= match.groupdict()
    return {name: values[name] for name in path_field_names(pattern) if name != "name"}


def _has_magic(path: str) -> bool:
    return any(char in path for char in "*?[")
