"""Sources. From `input.uris` to videos, one by one, without holding the listing.

Order is that of the configured URIs, then of the storage's listing, so that the same
bucket gives the same order every time. A video named twice is listed once; links that differ in their query only
are one video, since a query may be a signature, and the listing says so at its end.
"""

from __future__ import annotations

import json
import logging
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from featray.config import InputConfig, path_field_names
from featray.errors import ConfigError, ErrorCode, StorageError
from featray.identity import video_id
from featray.redaction import has_query, readable_name, redact_uri
from featray.sources.ahead import REQUESTS, Ahead, in_order
from featray.sources.containers import Entry, is_container, read_entries
from featray.sources.expand import expand
from featray.sources.keyset import KeySet
from featray.store.storage import Location, locate, storage_errors, unreadable_code

log = logging.getLogger(__name__)


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
        extra: the other columns of the manifest that named it, as plain JSON data.
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


def list_videos(config: InputConfig) -> Iterator[Video]:
    """All videos that the input names: files, and what tars, tables and manifests hold or name.

    Raises:
        ConfigError: a URI names nothing, or a path does not fit `path_fields`.
        StorageError: a place cannot be listed.
    """
    seen, links = KeySet(), KeySet()  # the listing itself is never held
    left_out, example = 0, ""
    for uri in config.uris:
        count = 0
        for video in _ahead(expand(uri, config.storage_options), config):
            count += 1
            is_other_link = has_query(video.address) and links.add(int(video_id(video.address), 16))
            if seen.add(int(video.video_id, 16)):
                yield video
            elif is_other_link:
                left_out, example = left_out + 1, example or video.uri
        if count == 0:
            raise ConfigError(f"input.uris: nothing found at {locate(uri, config.storage_options).uri}")
    if left_out:
        what = "only what follows the `?` tells them from links listed before, and that is no part of a video's id"
        log.warning("%d left out of the input, such as one to %s: %s", left_out, example, what)


def find_video(uri: str, member: str | None, config: InputConfig) -> Video | None:
    """The one video that a row of `videos` names, as it is now; None if its shard file has no such member.

    Args:
        uri: as the tables give it: without credentials and query.
        member: the name inside a shard file, else None.
        config: for storage options, `column` and `path_fields`; its URIs are not looked at.

    Raises:
        StorageError: the file is not there, or may not be read.
    """
    location = locate(uri, config.storage_options)
    with storage_errors(location.uri):
        info = location.fs.info(location.path)
    video = _to_video(location, info, config.path_fields)
    if member is None:
        return video
    return next((held for held in _held_videos(location, video, config) if held.member == member), None)


def _ahead(found: Iterator[tuple[Location, dict[str, Any]]], config: InputConfig) -> Iterator[Video]:
    """The videos of the files found, in order; the next few containers are read while one is taken."""
    waiting: deque[Ahead[Video] | tuple[Video]] = deque()
    try:
        for location, info in found:
            video = _to_video(location, info, config.path_fields)
            is_one = video.problem is not None or not is_container(location)
            waiting.append((video,) if is_one else Ahead(_held_videos(location, video, config)))
            if len(waiting) > _CONTAINERS_AHEAD:
                yield from waiting.popleft()
        while waiting:
            yield from waiting.popleft()
    finally:
        for stream in waiting:
            if isinstance(stream, Ahead):
                stream.close()


_CONTAINERS_AHEAD = 8
"""A tar is read header by header, one request each where its members are large."""


def _held_videos(location: Location, shard: Video, config: InputConfig) -> Iterator[Video]:
    """The videos that a tar, table or manifest holds or names."""

    def video_of(numbered: tuple[int, Entry]) -> Video:
        number, entry = numbered
        if entry.uri is not None:
            return _named_video(entry, shard, config)
        member = entry.member or f"entry {number}"
        return replace(
            shard,
            video_id=video_id(shard.uri, member),
            member=member,
            content_id=f"{shard.content_id}#{json.dumps(entry.place, sort_keys=True)}",
            size_bytes=entry.size_bytes,
            place=entry.place,
            extra=entry.extra,
            problem=entry.problem,
        )

    entries = enumerate(read_entries(location, config.column))
    first = next(entries, None)
    if first is None:
        return
    # Only what is named has to be asked for; what is held was found by reading the file.
    threads = REQUESTS if first[1].uri is not None else 1
    yield from in_order(video_of, chain([first], entries), threads)


def _named_video(entry: Entry, manifest: Video, config: InputConfig) -> Video:
    """The video that a row of a manifest names; one that cannot be found is kept with its problem."""
    assert entry.uri is not None
    address = entry.uri
    if "://" not in address and not address.startswith("/"):
        address = f"{manifest.address.rpartition('/')[0]}/{address}"
    safe = readable_name(redact_uri(address))
    try:
        location = locate(address, config.storage_options)
        with storage_errors(location.uri):
            return replace(_to_video(location, location.fs.info(location.path), config.path_fields), extra=entry.extra)
    except StorageError as error:
        problem = unreadable_code(error), readable_name(str(error))
    except ValueError:  # what a storage's library has no other word for: half a character, a NUL
        problem = ErrorCode.FETCH_FAILED, f"{safe}: is no name that its storage takes"
    fields = _path_fields(safe, config.path_fields)
    return Video(
        video_id(safe), safe, readable_name(address), -1, "unknown", fields=fields, extra=entry.extra, problem=problem
    )


def _to_video(location: Location, info: dict[str, Any], pattern: str | None) -> Video:
    uri = readable_name(location.uri)
    address = location.uri if location.uri.endswith(location.path) else location.fs.unstrip_protocol(location.path)
    unnamed = (ErrorCode.FETCH_FAILED, f"{uri}: its name is not UTF-8, and no table can hold it; rename the file")
    return Video(
        video_id=video_id(uri),
        uri=uri,
        address=address if uri == location.uri else uri,
        size_bytes=int(info["size"]) if info.get("size") is not None else -1,
        content_id=_content_id(info),
        fields=_path_fields(uri, pattern),
        problem=None if uri == location.uri else unnamed,
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
