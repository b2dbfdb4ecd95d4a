"""Sources. From `input.uris` to videos, one by one, without holding the listing.

Order is that of the configured URIs, then of the storage's listing, so that the same
bucket gives the same order every time. A video named twice is listed once; links that differ in their query only
are one video, since a query may be a signature, and the listing says so at its end.
"""

from __future__ import annotations

import json
import logging
import posixpath
import re
import stat
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from featray.config import InputConfig, path_field_names
from featray.errors import ConfigError, ErrorCode, StorageError
from featray.identity import partition_value, video_id
from featray.redaction import has_query, readable_name, redact_uri
from featray.sources.ahead import REQUESTS, Ahead, in_order
from featray.sources.containers import is_container, read_entries
from featray.sources.entry import Entry
from featray.sources.expand import expand
from featray.sources.keyset import KeySet
from featray.sources.passed import PassedOver
from featray.sources.places import hint, locate_input, refusal
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
        fields: values of `path_fields`; None for each where the path does not fit the pattern.
        place: where a member's bytes are inside the shard file; see `containers.Entry`.
        extra: the other columns of the manifest that named it, as plain JSON data.
        problem: error code and message, if listing already found that it cannot be read.
        takes_options: whether the storage options of the config are meant for where it is.
    """

    video_id: str
    uri: str
    address: str = field(repr=False)
    size_bytes: int
    content_id: str
    member: str | None = None
    fields: dict[str, str | None] = field(default_factory=dict)
    place: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    problem: tuple[str, str] | None = None
    takes_options: bool = True


def list_videos(config: InputConfig, passed: PassedOver | None = None) -> Iterator[Video]:
    """All videos that the input names: files, and what tars, tables and manifests hold or name.

    Args:
        config: of the input.
        passed: notes what lies there and is not taken.

    Raises:
        ConfigError: a URI names nothing.
        StorageError: a place cannot be listed.
    """
    seen, links = KeySet(), KeySet()  # the listing itself is never held
    left_out, example = 0, ""
    misfits, misfit = 0, ""
    for uri in config.uris:
        count = 0
        for video in _ahead(expand(uri, config.storage_options, passed), config):
            count += 1
            if None in video.fields.values():
                misfits, misfit = misfits + 1, misfit or video.uri
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
    if misfits:
        pattern = config.path_fields
        log.warning("%d videos, such as %s: path does not fit input.path_fields %s; null", misfits, misfit, pattern)


def find_video(uri: str, member: str | None, config: InputConfig) -> Video | None:
    """The one video that a row of `videos` names, as it is now; None if its shard file has no such member.

    A name is a name here and no pattern.

    Args:
        uri: as the tables give it: without credentials and query.
        member: the name inside a shard file, else None.
        config: for storage options, `column` and `path_fields`; its URIs say only what the storage options are for.

    Raises:
        StorageError: the file is not there, or may not be read.
    """
    location, owned = locate_input(uri, config)
    with storage_errors(location.uri):
        info = location.fs.info(location.path)
    video = replace(_to_video(location, info, config.path_fields), takes_options=owned)
    if member is None or not is_container(location):
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
        address = _beside(manifest.address, address)
    safe = readable_name(redact_uri(address))
    refused = refusal(entry.uri, manifest.uri, config)
    if refused:
        problem = ErrorCode.BAD_MANIFEST_ROW, f"{safe}: {readable_name(refused)}"
    else:
        try:
            location, owned = locate_input(address, config)
            with storage_errors(location.uri):
                info = location.fs.info(location.path)
            if info["type"] != "directory":
                video = _to_video(location, info, config.path_fields)
                return replace(video, extra=entry.extra, takes_options=owned)
            problem = ErrorCode.BAD_MANIFEST_ROW, f"{safe}: is a folder; a row names one video"
        except StorageError as error:
            problem = unreadable_code(error), readable_name(f"{error}{hint(address, config)}")
        except ValueError:  # what a storage's library has no other word for: half a character, a NUL
            problem = ErrorCode.FETCH_FAILED, f"{safe}: is no name that its storage takes"
    fields = _path_fields(safe, config.path_fields)
    return Video(
        video_id(safe), safe, readable_name(address), -1, "unknown", fields=fields, extra=entry.extra, problem=problem
    )


def _beside(manifest: str, name: str) -> str:
    """The address of what a manifest names without saying where: `./a.mp4` and `../x/a.mp4` are files near it."""
    folder = (manifest.partition("?")[0] if has_query(manifest) else manifest).rpartition("/")[0]
    scheme, separator, rest = folder.partition("://")
    if not separator or scheme in ("file", "local") or {".", ".."}.isdisjoint(name.split("/")):
        return f"{folder}/{name}"
    host, _, path = rest.partition("/")
    return f"{scheme}://{host}{posixpath.normpath(f'/{path}/{name}')}"


def _to_video(location: Location, info: dict[str, Any], pattern: str | None) -> Video:
    uri = readable_name(location.uri)
    address = location.uri if location.uri.endswith(location.path) else location.fs.unstrip_protocol(location.path)
    problem = None
    if uri != location.uri:
        text = f"{uri}: its name is not UTF-8, and no table can hold it; rename the file"
        problem = ErrorCode.FETCH_FAILED, text
    elif info.get("type") == "other" and not stat.S_ISLNK(info.get("mode", 0)):
        problem = ErrorCode.FETCH_FAILED, f"{uri}: is no file but a pipe, socket or device"
    return Video(
        video_id=video_id(uri),
        uri=uri,
        address=address if uri == location.uri else uri,
        size_bytes=int(info["size"]) if info.get("size") is not None else -1,
        content_id=_content_id(info),
        fields=_path_fields(uri, pattern),
        problem=problem,
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


def _path_fields(uri: str, pattern: str | None) -> dict[str, str | None]:
    """The values of the last parts of a path, as its partition has them; None for each if they do not fit."""
    if pattern is None:
        return {}
    parts = pattern.strip("/").split("/")
    path = uri.split("://", 1)[-1].split("/")
    names = [name for name in path_field_names(pattern) if name != "name"]
    values: dict[str, str] = {}
    for part, text in zip(parts, path[-len(parts) :], strict=False):
        expression = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>.+)", re.escape(part))
        match = re.fullmatch(expression, text, re.DOTALL)  # a name may hold a newline
        if match is None or len(path) <= len(parts):
            return dict.fromkeys(names)
        values |= match.groupdict()
    return {name: partition_value(name, values[name]) for name in names}
