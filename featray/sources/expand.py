"""Sources. From a URI of the input to the files it names, one by one: a file, a glob, or all below a prefix.

Order is that of the storage's listing, by name, and no listing is held: of S3 a page of a
thousand keys, of other storages a folder.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from fsspec.utils import glob_translate

from featray.config import InputConfig
from featray.errors import NotFound
from featray.sources.ahead import in_order
from featray.sources.containers import VIDEO_SUFFIXES
from featray.store.storage import Location, locate, storage_errors

log = logging.getLogger(__name__)

_LISTED_SUFFIXES: Final = VIDEO_SUFFIXES | {".tar"}


def expand(uri: str, options: dict[str, Any]) -> Iterator[tuple[Location, dict[str, Any]]]:
    """The files that a URI names, with what the storage's listing says of each; none if there is nothing.

    Raises:
        StorageError: the place cannot be listed.
    """
    here = locate(uri, options)
    if here.is_web:
        yield from _web_files(here)
        return
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
    links = _Links(Path(here.path).resolve()) if here.is_local else None
    for location, found in _below(here, here.path.rstrip("/"), links):
        if _is_listed(location.path):
            yield location, found


def covers(config: InputConfig) -> Callable[[str], bool]:
    """A test of URIs: would `list_videos` have come by this file, or the shard file, if it were there?

    That holds for what matches a glob or lies below a prefix, not for what a manifest names, nor for links: a
    server's index pages are no inventory.
    """
    tests: list[Callable[[str], bool]] = []
    for uri in config.uris:
        here = locate(uri, config.storage_options)
        if here.is_web:
            continue
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


def _is_listed(path: str) -> bool:
    """Whether a prefix means this file too: a video or a tar by its name."""
    return path[path.rfind(".") :].lower() in _LISTED_SUFFIXES


def _below(here: Location, folder: str, links: _Links | None = None) -> Iterator[tuple[Location, dict[str, Any]]]:
    """All files below a folder, depth first, in the order of their names; on a disk, links are followed.

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
        path, below = info["name"], links
        if info.get("islink"):
            with contextlib.suppress(OSError):  # one that leads nowhere is listed, and cannot be read
                info = here.fs.info(path)  # of what it leads to, so that its date is that of the bytes
            below = (links or _Links()).followed(path)
            if below is None and info["type"] == "directory":
                continue
        if info["type"] != "directory":
            yield here.at(path), info
        elif path.rstrip("/") != folder.rstrip("/"):
            yield from _below(here, path, below)


@dataclass(frozen=True)
class _Links:
    """Links to folders, and which of them not to follow.

    Attributes:
        root: real name of the folder whose files are all listed anyway; None if only some of them are.
        left: real names of the folders that were left by following a link.
    """

    root: Path | None = None
    left: tuple[Path, ...] = ()

    def followed(self, path: str) -> _Links | None:
        """What holds below this link; None if it leads round in circles, or to what is listed under its own name."""
        folder, target = Path(path).parent.resolve(), Path(path).resolve()
        left = (*self.left, folder)
        if self.root is not None and target.is_relative_to(self.root):
            return None
        if any(place.is_relative_to(target) for place in left):
            log.warning("file://%s: not followed, this link leads back to a folder that it lies in", path)
            return None
        return replace(self, left=left)


def _web_files(here: Location) -> Iterator[tuple[Location, dict[str, Any]]]:
    """A file behind a link; below a link that ends in `/` or is a glob, what the server's index pages link to."""
    path, _, query = here.path.partition("?")
    if query or not (_has_magic(path) or path.endswith("/")):
        found: Iterator[Location] = iter([here])  # a `?` begins a query here: many links are signed
    else:
        folder = path if path.endswith("/") and not _has_magic(path) else re.split(r"[*\[]", path, maxsplit=1)[0]
        matches = re.compile(glob_translate(path)).match if _has_magic(path) else None
        below = (place for place, _ in _below(here, folder.rpartition("/")[0] + "/"))
        found = (place for place in below if (matches(place.path) if matches else _is_listed(place.path)))
    for place, info in in_order(_asked, found):  # index pages tell neither sizes nor etags
        if info is not None:
            yield place, info


def _asked(place: Location) -> tuple[Location, dict[str, Any] | None]:
    try:
        with storage_errors(place.uri):
            return place, place.fs.info(place.path)
    except NotFound:
        return place, None


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
                yield here.at(path), info
        if not page.get("IsTruncated"):
            return
        request["ContinuationToken"] = page["NextContinuationToken"]


def _has_magic(path: str) -> bool:
    return any(char in path for char in "*?[")
