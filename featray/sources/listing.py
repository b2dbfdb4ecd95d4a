"""Sources. List the videos of `input.uris` one by one, without keeping the listing in memory.

The order is that of the configured URIs, then of the storage's listing, so the same bucket
always gives the same order. A video named twice is listed once. Links that differ only in
their query are one video, because a query may be a signature; a warning at the end counts them.
"""

from __future__ import annotations

import json
import logging
import posixpath
import re
import stat
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from featray.config import InputConfig, path_field_names
from featray.errors import ConfigError, ErrorCode, StorageError, VideoError, counted
from featray.identity import partition_value, video_id
from featray.redaction import has_query, readable_name, redact_uri
from featray.sources.ahead import REQUESTS, Ahead, in_order
from featray.sources.containers import is_container, read_entries
from featray.sources.entry import MAX_BYTES, VIDEO_SUFFIXES, Entry, content_id, suffix
from featray.sources.expand import expand, is_picture
from featray.sources.keyset import KeySet
from featray.sources.passed import PassedOver
from featray.sources.picture_times import PTS_COLUMN, read_times, times_id
from featray.sources.places import hint, locate_input, refusal
from featray.sources.sequences import Digest, Gathered, Sequence, digest_of, list_stills, still_of
from featray.store.failures import storage_errors, transport_errors, unreadable_code
from featray.store.location import Location, locate

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Video:
    """One media file of the input, or a sequence of pictures.

    Attributes:
        video_id: 16 hex digits, from `uri` (and `member`).
        uri: location without credentials or query; safe to print and store.
        address: the URI to open; may be signed; never printed or stored in a table.
        size_bytes: size of the object.
        content_id: identifies the bytes as far as the listing allows: etag, or modification time, and size.
        member: the name inside a shard file, else None.
        fields: values of `path_fields`; None for each if the path does not fit the pattern.
        place: position of a member's bytes inside the shard file; see `entry.Entry`.
        extra: the other columns of the manifest that named it, as plain JSON data.
        problem: error code and message, if listing already found that it cannot be read.
        takes_options: whether the storage options of the config apply to its place.
        sequence: how it is made of pictures; None for a media file.
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
    sequence: Sequence | None = None

    @property
    def extra_json(self) -> str | None:
        """`extra` as in the table `videos`; None for no column."""
        return json.dumps(self.extra, default=str) if self.extra else None


def list_videos(config: InputConfig, passed: PassedOver | None = None, *, tell: bool = True) -> Iterator[Video]:
    """Yield all videos of the input: files, and the videos that tars, tables and manifests contain or name.

    Args:
        config: the input section of the config.
        passed: counts the files that are skipped.
        tell: whether to warn of entries that are left out.

    Raises:
        ConfigError: a URI names nothing.
        StorageError: a place cannot be listed.
    """
    seen, links, rows = KeySet(), KeySet(), KeySet()  # only keys: the listing itself is not kept
    left_out, example = 0, ""
    twice, again = 0, ""
    misfits, misfit = 0, ""
    passed = passed or PassedOver()
    for uri in config.uris:
        count = 0
        for video in _listed(uri, config, passed):
            count += 1
            if None in video.fields.values():
                misfits, misfit = misfits + 1, misfit or video.uri
            is_other_link = has_query(video.address) and links.add(int(video_id(video.address), 16))
            is_other_row = bool(video.extra) and rows.add(_row_key(video))
            if seen.add(int(video.video_id, 16)):
                yield video
            elif is_other_link:
                left_out, example = left_out + 1, example or video.uri
            elif is_other_row:
                twice, again = twice + 1, again or video.uri
        if count == 0:
            what = "no picture" if config.kind == "sequences" else "nothing"
            place = locate(uri, config.storage_options)
            raise ConfigError(f"input.uris: {what} found at {place.uri}{_why_nothing(place)}")
    if not tell:
        return
    if left_out:
        what = "they differ from links listed before only after the `?`, which is not part of a video's id"
        log.warning("%d links left out of the input, such as one to %s: %s", left_out, example, what)
    if twice:
        log.warning(
            "%s left out of the input, such as one of %s: an earlier entry names the same video with other values",
            counted(twice, "row"), again,
        )  # fmt: skip
    if misfits:
        pattern = config.path_fields
        log.warning(
            "%d videos, such as %s: path does not fit input.path_fields %s; their path fields are null",
            misfits, misfit, pattern,
        )  # fmt: skip


def _why_nothing(place: Location) -> str:
    """Return why nothing was found, if it is that the bucket does not exist: its listing is empty too."""
    try:
        if place.is_s3:
            place.fs.call_s3("head_bucket", Bucket=place.path.partition("/")[0])
    except FileNotFoundError:
        return ": its bucket does not exist"
    except transport_errors():  # such as a policy that allows only listing
        return ""
    return ""


def _row_key(video: Video) -> int:
    """Return a key of a video with the other columns of its row."""
    return int(video_id(video.video_id, json.dumps(video.extra, sort_keys=True, default=str)), 16)


def _listed(uri: str, config: InputConfig, passed: PassedOver) -> Iterator[Video]:
    """Yield the videos that one URI of the input names, then its sequences, if the config takes sequences."""
    pictures = None if config.kind == "videos" else Gathered(passed)
    for video in _ahead(expand(uri, config.storage_options, passed, pictures), config):
        if pictures is not None and video.sequence is None and video.problem is None:
            if config.kind == "sequences":
                passed.file(video.member or video.uri)
                continue
            if video.member is not None or suffix(video.uri) in VIDEO_SUFFIXES:
                pictures.give_up()
        yield video
    if pictures is not None:
        for location, pattern, digest in pictures.sequences():
            yield _of_pictures(location, Sequence("folder", pattern), digest, config)


def _of_pictures(location: Location, sequence: Sequence, digest: Digest, config: InputConfig) -> Video:
    """Return the sequence that a folder's pictures form, as a video."""
    info = {"size": digest.size_bytes, "type": "file"}
    video = replace(_to_video(location, info, config.path_fields), content_id=digest.content_id)
    return _as_sequence(video, sequence, config)


def _as_sequence(video: Video, sequence: Sequence, config: InputConfig) -> Video:
    """Return a folder or tar as a sequence, with times from the config or from the manifest that names it."""
    fps, problem = config.sequence_fps, video.problem
    if (named := video.extra.get(_FPS_COLUMN)) not in (None, ""):
        try:
            fps = InputConfig(uris=["-"], sequence_fps=float(named)).sequence_fps
        except (ValueError, TypeError, OverflowError):
            text = f"{video.uri}: {_FPS_COLUMN} is {str(named)[:40]!r}; it must be a number of pictures per second"
            problem = problem or (ErrorCode.BAD_MANIFEST_ROW, readable_name(text))
    times = None
    try:
        times = read_times(video.extra)
    except ValueError as error:
        problem = problem or (ErrorCode.BAD_MANIFEST_ROW, readable_name(f"{video.uri}: {error}"))
    if fps is None and times is None and config.related:
        text = (
            f"{video.uri}: its pictures have no times; set input.sequence_fps, "
            "or input.related: false if they do not follow each other in time"
        )
        problem = problem or (ErrorCode.UNSUPPORTED_CONTAINER, text)
    own = f"@{times_id(times)}" if times else "" if fps == config.sequence_fps else f"@{fps:g}"
    sequence = replace(sequence, fps=None if times else fps, timed=bool(times), related=config.related)
    return replace(video, sequence=sequence, problem=problem, content_id=video.content_id + own)


_FPS_COLUMN = "sequence_fps"
"""Column of a manifest that names folders and tars of pictures."""


def _listed_again(location: Location, sequence: Sequence, config: InputConfig) -> Video | None:
    """List a folder and return the sequence that its pictures form, as a video; None if it has no pictures.

    Raises:
        StorageError: the folder cannot be listed.
        VideoError: it has too many pictures.
    """
    stills, _ = list_stills(location, sequence)
    return _of_pictures(location, sequence, digest_of(stills), config) if stills else None


def find_video(uri: str, member: str | None, config: InputConfig, extra: dict[str, Any] | None = None) -> Video | None:
    """Find the video that a row of `videos` names, in its current state; None if its shard file has no such member.

    Names are literal, not patterns.

    Args:
        uri: URI from the table, without credentials and query.
        member: the name inside a shard file, else None.
        config: gives storage options, `column` and `path_fields`; its URIs only decide where the options apply.
        extra: `extra` from the table; may contain the times of a sequence's pictures.

    Raises:
        StorageError: the file does not exist or may not be read.
    """
    location, owned = locate_input(uri, config)
    takes_pictures = member is None and config.kind != "videos"
    pattern = uri.rpartition("/")[2]
    if takes_pictures and is_picture(pattern):
        found = _listed_again(location, Sequence("folder", pattern), config)
        return None if found is None else replace(_with_extra(found, extra or {}, config), takes_options=owned)
    if takes_pictures and uri.endswith("/"):
        info: dict[str, Any] = {"type": "directory"}  # web servers and S3 have no entry for a folder
    else:
        with storage_errors(location.uri):
            info = location.fs.info(location.path)
    if takes_pictures and (sequence := _sequence_at(location, info, config, extra or {})) is not None:
        return replace(sequence, takes_options=owned)
    video = replace(_to_video(location, info, config.path_fields), takes_options=owned)
    if member is None or not is_container(location):
        return video
    return next((held for held in _held_videos(location, video, config) if held.member == member), None)


def _sequence_at(location: Location, info: dict[str, Any], config: InputConfig, extra: dict[str, Any]) -> Video | None:
    """Return a folder, tar or picture as a sequence; None for anything else."""
    still = still_of(location, info)
    if still is not None and info["type"] != "directory":
        video = _of_pictures(location, Sequence("folder", still.name), digest_of([still]), config)
        return _with_extra(video, extra, config)
    if info["type"] == "directory":
        found = _listed_again(_as_folder(location), Sequence("folder"), config)
        return None if found is None else _with_extra(found, extra, config)
    if suffix(location.uri) == ".tar":
        video = replace(_to_video(location, info, config.path_fields), extra=extra)
        return _as_sequence(video, Sequence("tar"), config)
    return None


def _with_extra(video: Video, extra: dict[str, Any], config: InputConfig) -> Video:
    if not (extra.get(_FPS_COLUMN) or extra.get(PTS_COLUMN)) or video.sequence is None:
        return replace(video, extra=extra)
    return _as_sequence(replace(video, extra=extra, problem=None), video.sequence, config)


def _as_folder(location: Location) -> Location:
    return replace(location, path=f"{location.path.rstrip('/')}/", uri=f"{location.uri.rstrip('/')}/")


def _ahead(found: Iterator[tuple[Location, dict[str, Any]]], config: InputConfig) -> Iterator[Video]:
    """Yield the videos of the found files, in order, reading the next few containers ahead."""
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
"""A tar is read header by header, with one request per header if its members are large."""


def _held_videos(location: Location, shard: Video, config: InputConfig) -> Iterator[Video]:
    """Yield the videos that a tar, table or manifest contains or names."""

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

    if suffix(location.uri) == ".tar" and config.kind != "videos":
        if config.kind == "sequences" or (yield from _videos_of_tar(location, video_of)):
            yield _as_sequence(shard, Sequence("tar"), config)
        return
    entries = enumerate(read_entries(location, config.column))
    first = next(entries, None)
    if first is None:
        return
    # Named videos need a request each; contained ones were found by reading the file.
    threads = REQUESTS if first[1].uri is not None else 1
    yield from in_order(video_of, chain([first], entries), threads)


def _videos_of_tar(location: Location, video_of: Callable[[tuple[int, Entry]], Video]) -> Generator[Video, None, bool]:
    """Yield the videos of a tar; return whether it is a sequence: it has pictures and no video."""
    pictures, videos, problems = 0, 0, []
    for numbered in enumerate(read_entries(location, None, pictures=True)):
        if numbered[1].is_picture:
            pictures += 1
        elif numbered[1].problem and not videos:
            problems.append(numbered)
        else:
            videos += 1
            yield from map(video_of, [*problems, numbered])
            problems.clear()
    if pictures and not videos:
        return True  # planning reports its problems
    yield from map(video_of, problems)
    return False


def _named_video(entry: Entry, manifest: Video, config: InputConfig) -> Video:
    """Return the video that a row of a manifest names; a video that cannot be found is returned with its problem."""
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
            sequence = None if config.kind == "videos" else _sequence_at(location, info, config, entry.extra)
            if sequence is not None:
                return replace(sequence, takes_options=owned)
            if info["type"] != "directory":
                video = _to_video(location, info, config.path_fields)
                return replace(video, extra=entry.extra, takes_options=owned)
            text = f"{safe}: is a folder; a row names one video, or a folder with pictures"
            problem = ErrorCode.BAD_MANIFEST_ROW, text
        except StorageError as error:
            problem = unreadable_code(error), readable_name(f"{error}{hint(address, config)}")
        except VideoError as error:
            problem = error.code, str(error)
        except ValueError:  # storage libraries raise it for names with half a character or a NUL
            problem = ErrorCode.FETCH_FAILED, f"{safe}: is not a valid name on its storage"
    fields = _path_fields(safe, config.path_fields)
    return Video(
        video_id(safe), safe, readable_name(address), -1, "unknown", fields=fields, extra=entry.extra, problem=problem
    )


def _beside(manifest: str, name: str) -> str:
    """Return the address of a relative name in a manifest: `./a.mp4` and `../x/a.mp4` are relative to its folder."""
    folder = (manifest.partition("?")[0] if has_query(manifest) else manifest).rpartition("/")[0]
    scheme, separator, rest = folder.partition("://")
    if not separator or scheme in ("file", "local") or {".", ".."}.isdisjoint(name.split("/")):
        return f"{folder}/{name}"
    host, _, path = rest.partition("/")
    return f"{scheme}://{host}{posixpath.normpath(f'/{path}/{name}')}"


def _to_video(location: Location, info: dict[str, Any], pattern: str | None) -> Video:
    uri = readable_name(location.uri)
    size = -1 if info.get("size") is None else int(info["size"])
    address = location.uri if location.uri.endswith(location.path) else location.fs.unstrip_protocol(location.path)
    problem = None
    if uri != location.uri:
        text = f"{uri}: its name is not UTF-8, so no table can store it; rename the file"
        problem = ErrorCode.FETCH_FAILED, text
    elif info.get("type") == "other" and not stat.S_ISLNK(info.get("mode", 0)):
        problem = ErrorCode.FETCH_FAILED, f"{uri}: is a pipe, socket or device, not a file"
    return Video(
        video_id=video_id(uri),
        uri=uri,
        address=address if uri == location.uri else uri,
        size_bytes=size if 0 <= size <= MAX_BYTES else -1,
        content_id=content_id(info),
        fields=_path_fields(uri, pattern),
        problem=problem,
    )


def _path_fields(uri: str, pattern: str | None) -> dict[str, str | None]:
    """Return the values of `path_fields` as partition values; None for each if the path does not fit the pattern."""
    if pattern is None:
        return {}
    parts = pattern.strip("/").split("/")
    path = uri.split("://", 1)[-1].rstrip("/").split("/")
    names = [name for name in path_field_names(pattern) if name != "name"]
    values: dict[str, str] = {}
    for part, text in zip(parts, path[-len(parts) :], strict=False):
        expression = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>.+)", re.escape(part))
        match = re.fullmatch(expression, text, re.DOTALL)  # a name may hold a newline
        if match is None or len(path) <= len(parts):
            return dict.fromkeys(names)
        values |= match.groupdict()
    return {name: partition_value(name, values[name]) for name in names}
