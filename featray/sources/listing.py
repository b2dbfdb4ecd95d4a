"""From `input.uris` to videos, one by one, without holding the listing.

Order is that of the configured URIs, then of the storage's listing, so that the same
bucket gives the same order every time. A video named twice is listed once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Final

from fsspec.utils import glob_translate

from featray.config import InputConfig, path_field_names
from featray.errors import ConfigError, StorageError
from featray.identity import video_id
from featray.sources.containers import VIDEO_SUFFIXES, Entry, is_container, read_entries
from featray.sources.keyset import KeySet
from featray.sources.storage import Location, locate, redact_uri, storage_errors, unreadable_code

_LISTED_SUFFIXES: Final = VIDEO_SUFFIXES | {".tar"}


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
        place: where a member's bytes are inside the shard file; see `containers.Entry`.
        extra: the other columns of the manifest that named it.
        problem: error code and message, if listing already found that it cannot be read.
    """

    video_id: str
    uri: str
    address: str = field(repr=False)
    size_bytes: int
    content_id: str
    member: str | None = None
    fields: dict[str, str] = field(default_factory=dict)
    place: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    problem: tuple[str, str] | None = None

    def to_json(self) -> str:
        """As JSON text, for travelling in a row; it may hold a signed address, so it is never stored."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Video:
        """The inverse of `to_json`."""
        return cls.from_dict(json.loads(text))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Video:
        """From what `dataclasses.asdict` made of one."""
        problem = data.pop("problem")
        return cls(**data, problem=tuple(problem) if problem else None)


def list_videos(config: InputConfig) -> Iterator[Video]:
    """All videos that the input names: files, and what tars, tables and manifests hold or name.

    Raises:
        ConfigError: a URI names nothing, or a path does not fit `path_fields`.
        StorageError: a place cannot be listed.
    """
    seen = KeySet()  # the listing itself is never held
    for uri in config.uris:
        count = 0
        for location, info in _expand(uri, config.storage_options):
            count += 1
            for video in _videos_of(location, info, config):
                if seen.add(int(video.video_id, 16)):
                    yield video
        if count == 0:
            raise ConfigError(f"input.uris: nothing found at {locate(uri, config.storage_options).uri}")


def covers(config: InputConfig) -> Callable[[str], bool]:
    """A test of URIs: would `list_videos` have come by this file, or the shard file, if it were there?

    That holds for what matches a glob or lies below a prefix, not for what a manifest names.
    """
    tests: list[Callable[[str], bool]] = []
    for uri in config.uris:
        here = locate(uri, config.storage_options)
        if _has_magic(here.path):
            tests.append(partial(_glob_covers, here, re.compile(glob_translate(here.path)).match))
        else:
            tests.append(partial(_prefix_covers, here.uri.rstrip("/")))
    return lambda uri: any(test(uri) for test in tests)


def _glob_covers(here: Location, matches: Callable[[str], Any], uri: str) -> bool:
    same_store = uri.partition("://")[0] == here.uri.partition("://")[0]
    return same_store and matches(here.fs._strip_protocol(uri)) is not None


def _prefix_covers(prefix: str, uri: str) -> bool:
    return uri == prefix or (uri.startswith(f"{prefix}/") and _is_listed(uri))


def _expand(uri: str, options: dict[str, Any]) -> Iterator[tuple[Location, dict[str, Any]]]:
    here = locate(uri, options)
    if _has_magic(here.path):
        root = re.split(r"[*?\[]", here.path, maxsplit=1)[0].rpartition("/")[0]
        matches = re.compile(glob_translate(here.path)).match
        yield from ((loc, info) for loc, info in _below(here, root) if matches(loc.path.rstrip("/")))
        return
    with storage_errors(here.uri):
        try:
            info = here.fs.info(here.path)
        except FileNotFoundError:
            return
    if info["type"] != "directory":
        yield here, info
        return
    for location, found in _below(here, here.path.rstrip("/")):
        if _is_listed(location.path):
            yield location, found


def _is_listed(path: str) -> bool:
    """Whether a prefix means this file too: a video or a tar by its name."""
    return path[path.rfind(".") :].lower() in _LISTED_SUFFIXES


def _videos_of(location: Location, info: dict[str, Any], config: InputConfig) -> Iterator[Video]:
    """The video that a file is, or the videos that it holds or names."""
    if not is_container(location.path):
        yield _to_video(location, info, config.path_fields)
        return
    shard = _to_video(location, info, config.path_fields)
    for number, entry in enumerate(read_entries(location, config.column)):
        if entry.uri is not None:
            yield _named_video(entry, shard, config)
            continue
        member = entry.member or f"entry {number}"
        yield replace(
            shard,
            video_id=video_id(shard.uri, member),
            member=member,
            content_id=f"{shard.content_id}#{json.dumps(entry.place, sort_keys=True)}",
            size_bytes=entry.size_bytes,
            place=entry.place,
            extra=entry.extra,
            problem=entry.problem,
        )


def _named_video(entry: Entry, manifest: Video, config: InputConfig) -> Video:
    """The video that a row of a manifest names; one that cannot be found is kept with its problem."""
    assert entry.uri is not None
    address = entry.uri
    if "://" not in address and not address.startswith("/"):
        address = f"{manifest.address.rpartition('/')[0]}/{address}"
    try:
        location = locate(address, config.storage_options)
        with storage_errors(location.uri):
            video = _to_video(location, location.fs.info(location.path), config.path_fields)
    except StorageError as error:
        safe = redact_uri(address)
        code = unreadable_code(error.__cause__)
        fields = _path_fields(safe, config.path_fields)
        video = Video(video_id(safe), safe, address, -1, "unknown", fields=fields, problem=(code, str(error)))
    return replace(video, extra=entry.extra)


def _below(here: Location, folder: str) -> Iterator[tuple[Location, dict[str, Any]]]:
    """All files below a folder, depth first, in the order of their names.

    Of S3 a page of a thousand keys is held at a time, of other storages a folder.
    """
    if here.is_s3:
        yield from _s3_keys(here, folder)
        return
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


def _s3_keys(here: Location, folder: str) -> Iterator[tuple[Location, dict[str, Any]]]:
    """All keys below a prefix, page by page: `ls` would give those of a folder in one list, however many."""
    bucket, _, prefix = folder.partition("/")
    request = {"Bucket": bucket, "Prefix": f"{prefix.rstrip('/')}/" if prefix else ""}
    while True:
        with storage_errors(here.uri):
            try:
                page = here.fs.call_s3("list_objects_v2", **request)
            except FileNotFoundError:
                return
        for entry in page.get("Contents", []):
            path = f"{bucket}/{entry['Key']}"
            if not path.endswith("/"):  # what consoles put there to show an empty folder
                info = {"name": path, "size": entry["Size"], "ETag": entry["ETag"]}
                yield Location(here.fs, path, here.fs.unstrip_protocol(path)), info
        if not page.get("IsTruncated"):
            return
        request["ContinuationToken"] = page["NextContinuationToken"]


def _to_video(location: Location, info: dict[str, Any], pattern: str | None) -> Video:
    return Video(
        video_id=video_id(location.uri),
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
