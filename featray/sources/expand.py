"""Sources. Expand a URI of the input into files, one by one: a file, a glob, or everything below a prefix.

If a file or folder with the exact name exists, the URI means that; otherwise `*`, `?` and `[` make it a pattern.
Files come in the order of the storage's listing, by name. No complete listing is kept in memory: at most a page of a
thousand keys on S3, and one folder on other storages.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

from fsspec.utils import glob_translate

from featray.config import InputConfig
from featray.errors import AccessDenied, NotFound
from featray.sources.ahead import in_order
from featray.sources.entry import PICTURE_SUFFIXES, VIDEO_SUFFIXES, is_apple_double, suffix
from featray.sources.passed import PassedOver
from featray.store.failures import storage_errors
from featray.store.location import Location, locate

log = logging.getLogger(__name__)

_Found = tuple[Location, dict[str, Any]]
_LISTED_SUFFIXES: Final = VIDEO_SUFFIXES | {".tar"}


_GLOBBED: Final = VIDEO_SUFFIXES | PICTURE_SUFFIXES


class Pictures(Protocol):
    """Collects the pictures that a listing finds."""

    def add(self, picture: Location, info: dict[str, Any], pattern: str | None) -> None:
        """Add a picture; `pattern` is the last part of the glob or name that matched it, None below a prefix."""
        ...


def expand(
    uri: str, options: dict[str, Any], passed: PassedOver | None = None, pictures: Pictures | None = None
) -> Iterator[_Found]:
    """Yield the files that a URI names, with the storage's listing entry of each; nothing if there is none.

    Args:
        uri: an entry of `input.uris`.
        options: storage options.
        passed: counts the files that are skipped.
        pictures: collects pictures, which are then not yielded; None treats pictures like other files.

    Raises:
        StorageError: the place cannot be listed.
    """
    here, passed = locate(uri, options), passed or PassedOver()
    here.fs.invalidate_cache()  # entries of an earlier listing in this process
    for location, info in _files(here, passed, pictures is not None):
        if pictures is None or not is_picture(location.path):
            yield location, info
        else:
            pictures.add(location, info, _pattern(here, location))


def _pattern(here: Location, picture: Location) -> str | None:
    """Return the last part of the glob or name that matched a picture; None for a prefix or a match of all files."""
    path = here.path.partition("?")[0] if here.is_web else here.path
    last = path.rpartition("/")[2]
    if path.rstrip("/") == picture.path.partition("?")[0] or (_has_magic(path) and last not in ("", "*", "**")):
        return last
    return None


def _files(here: Location, passed: PassedOver, with_pictures: bool) -> Iterator[_Found]:
    if here.is_web:
        yield from _web_files(here, passed, with_pictures)
        return
    info = _literal(here)
    if info is None and not _has_magic(here.path):
        return
    if info is None:
        root = re.split(r"[*?\[]", here.path, maxsplit=1)[0].rpartition("/")[0]
        takes = glob_test(here.path)
        for location, found in _below(here, root, passed):
            if takes(location.path.rstrip("/")):
                yield location, found
    elif info["type"] != "directory":
        yield here, info
    else:
        links = _Links(Path(here.path).resolve()) if here.is_local else None
        for location, found in _below(here, here.path.rstrip("/"), passed, links):
            if _is_listed(location.path) or (with_pictures and is_picture(location.path)):
                yield location, found
            else:
                passed.file(location.path)


def _literal(here: Location) -> dict[str, Any] | None:
    """Return the storage's entry for a literal name; None if there is no such file or folder."""
    try:
        with storage_errors(here.uri):
            info: dict[str, Any] = here.fs.info(here.path)
    except NotFound:
        return None
    except AccessDenied:
        if _has_magic(here.path):  # S3's answer for a missing key if listing is not allowed
            return None
        raise
    return info


def glob_test(pattern: str) -> Callable[[str], bool]:
    """Return a function that tests paths against a glob.

    The case of a video's suffix is ignored, because cameras write `.MP4` and people write `*.mp4`. The `._` files of
    macOS match only a pattern that begins with `._` too.
    """
    matches = re.compile(glob_translate(pattern)).match
    ending, wants_doubles = suffix(pattern), is_apple_double(pattern)
    written = pattern[len(pattern) - len(ending) :]

    def takes(path: str) -> bool:
        if is_apple_double(path) and not wants_doubles:
            return False
        if ending in _GLOBBED and suffix(path) == ending:
            path = path[: -len(ending)] + written
        return matches(path) is not None

    return takes


def covers(config: InputConfig) -> Callable[[str], bool]:
    """Return a function that tests whether `list_videos` would list a file or shard file with this URI if it existed.

    True for files that match a glob or lie below a prefix. False for files named by a manifest, and for web links,
    because a server's index pages are not a complete inventory.
    """
    tests: list[Callable[[str], bool]] = []
    for uri in config.uris:
        here = locate(uri, config.storage_options)
        if here.is_web:
            continue
        tests.append(_covers_prefix(here.uri.rstrip("/"), folders=config.kind != "videos"))
        if _has_magic(here.path):
            tests.append(_covers_glob(here))
    return lambda uri: any(test(uri) for test in tests)


def _covers_glob(here: Location) -> Callable[[str], bool]:
    takes, scheme = glob_test(here.path), here.uri.partition("://")[0]
    return lambda uri: uri.partition("://")[0] == scheme and takes(here.fs._strip_protocol(uri))


def _covers_prefix(prefix: str, *, folders: bool) -> Callable[[str], bool]:
    def test(uri: str) -> bool:
        is_folder = folders and uri.endswith("/")  # a sequence
        return uri == prefix or (uri.startswith(f"{prefix}/") and (is_folder or _is_listed(uri)))

    return test


def _is_listed(path: str) -> bool:
    """Return whether a prefix includes this file: a video or a tar, by its suffix."""
    return suffix(path) in _LISTED_SUFFIXES and not is_apple_double(path)


def is_picture(path: str) -> bool:
    """Return whether a file is a picture, by its suffix."""
    return suffix(path.partition("?")[0]) in PICTURE_SUFFIXES and not is_apple_double(path)


def files_in(here: Location, folder: str) -> Iterator[_Found]:
    """Yield the files directly in a folder, with the storage's listing entry of each.

    Raises:
        StorageError: the folder cannot be listed.
    """
    if here.is_s3:
        yield from _s3_keys(here, folder, Delimiter="/")
        return
    with storage_errors(here.uri):
        entries = here.fs.ls(f"{folder}/" if here.is_web else folder, detail=True)
    if here.is_web:
        yield from ((place, info) for place, info in in_order(_asked, (here.at(e["name"]) for e in entries)) if info)
        return
    for info in entries:
        path = info["name"]
        if info.get("islink"):
            with contextlib.suppress(OSError):
                info = here.fs.info(path)
        if info["type"] != "directory":
            yield here.at(path), info


def _below(here: Location, folder: str, passed: PassedOver, links: _Links | None = None) -> Iterator[_Found]:
    """Yield all files below a folder, depth first, in the order of their names; on a disk, links are followed.

    A subfolder without read permission is skipped with a warning. Memory holds a page of a thousand keys on S3, and one
    folder on other storages.
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
        path, below = info["name"], links
        if info.get("islink"):
            with contextlib.suppress(OSError):  # a broken link is listed and fails when it is read
                info = here.fs.info(path)  # the entry of the target, for the date of its bytes
            below = (links or _Links()).followed(path)
            if below is None and info["type"] == "directory":
                continue
        if info["type"] != "directory":
            yield here.at(path), info
        elif path.rstrip("/") != folder.rstrip("/"):
            yield from _unless_denied(here.at(path).uri, passed, _below(here, path, passed, below))


def _unless_denied(uri: str, passed: PassedOver, found: Iterator[_Found]) -> Iterator[_Found]:
    """Yield the files of a folder; warn and yield nothing if it may not be listed."""
    try:
        first = next(found, None)
    except AccessDenied:
        log.warning("%s: passed over, access denied", uri)
        passed.folder(uri)
        return
    if first is not None:
        yield first
        yield from found


@dataclass(frozen=True)
class _Links:
    """Decides which links to folders to follow.

    Attributes:
        root: real path of the folder whose files are all listed anyway; None if only some of them are.
        left: real paths of the folders that were left by following a link.
    """

    root: Path | None = None
    left: tuple[Path, ...] = ()

    def followed(self, path: str) -> _Links | None:
        """Return the state below this link; None if it leads in circles or to files that are listed anyway."""
        folder, target = Path(path).parent.resolve(), Path(path).resolve()
        left = (*self.left, folder)
        if self.root is not None and target.is_relative_to(self.root):
            return None
        if any(place.is_relative_to(target) for place in left):
            log.warning("file://%s: link not followed, it leads back to a folder that contains it", path)
            return None
        return replace(self, left=left)


def _web_files(here: Location, passed: PassedOver, with_pictures: bool) -> Iterator[_Found]:
    """Yield the file of a link; for a link that ends in `/` or is a glob, the files that index pages link to."""
    path, _, query = here.path.partition("?")
    is_name = not (_has_magic(path) or path.endswith("/"))
    if query or is_name or ("*" not in path and not path.endswith("/") and _asked(here)[1] is not None):
        found: Iterator[Location] = iter([here])  # `?` starts a query, not a pattern: many links are signed
    else:
        folder = path if path.endswith("/") and not _has_magic(path) else re.split(r"[*\[]", path, maxsplit=1)[0]
        takes = glob_test(path) if _has_magic(path) else _is_listed_or_picture if with_pictures else _is_listed
        below = (place for place, _ in _below(here, folder.rpartition("/")[0] + "/", passed))
        found = (place for place in below if takes(place.path))
    for place, info in in_order(_asked, found):  # index pages have neither sizes nor etags
        if info is not None:
            yield place, info


def _is_listed_or_picture(path: str) -> bool:
    return _is_listed(path) or is_picture(path)


def _asked(place: Location) -> tuple[Location, dict[str, Any] | None]:
    try:
        with storage_errors(place.uri):
            return place, place.fs.info(place.path)
    except NotFound:
        return place, None


def _s3_keys(here: Location, folder: str, **more: str) -> Iterator[_Found]:
    """Yield all keys below a prefix, page by page; `ls` would return a folder's keys in one list, however many."""
    bucket, _, prefix = folder.partition("/")
    request = {"Bucket": bucket, "Prefix": f"{prefix.rstrip('/')}/" if prefix else "", **more}
    while True:
        with storage_errors(here.uri):
            try:
                page = here.fs.call_s3("list_objects_v2", **request)
            except FileNotFoundError:
                return
        for entry in page.get("Contents", []):
            path = f"{bucket}/{entry['Key']}"
            if not path.endswith("/"):  # placeholder of web consoles for an empty folder
                info = {"name": path, "size": entry["Size"], "ETag": entry["ETag"]}
                yield here.at(path), info
        if not page.get("IsTruncated"):
            return
        request["ContinuationToken"] = page["NextContinuationToken"]


def _has_magic(path: str) -> bool:
    return any(char in path for char in "*?[")
