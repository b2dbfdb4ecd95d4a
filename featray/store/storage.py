"""Store. One interface to object storage and local disks, on top of fsspec.

Every read, write and listing of the package goes through this module, so three things hold
everywhere: storage errors become a one-line `StorageError`, writes are atomic (an object
exists whole or not at all), and messages never contain credentials.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import IO, Any, Final, cast

from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from featray.errors import OutputError
from featray.store.failures import storage_errors
from featray.store.location import LEADS_OUT, Location
from featray.store.streamed import kept, takes_ranges

_BLOCK_BYTES = 1 << 20

MOST_RECORD_BYTES: Final = 64 << 20
"""The largest records, commits of compacted shards, have about 5 MB. A record of ten times that takes 1 GB to parse."""


def read_bytes(location: Location) -> bytes:
    """Return all bytes of an object, even if the last listing of its folder did not have it."""
    location.check_inside()
    with storage_errors(location.uri):
        try:
            return cast(bytes, location.fs.cat_file(location.path))
        except FileNotFoundError:
            if not location.is_s3:
                raise
        # s3fs of 2026.9 does not ask the store for an object that the listing it keeps does not have.
        location.fs.invalidate_cache(location.path)
        return cast(bytes, location.fs.cat_file(location.path))


def read_record(location: Location, most_bytes: int = MOST_RECORD_BYTES) -> bytes:
    """Return all bytes of a record of an output.

    Raises:
        OutputError: on a disk, the record is larger than `most_bytes`. In other storages the size is not checked,
            because that would take a request.
        StorageError: it cannot be read.
    """
    if location.is_local:
        with storage_errors(location.uri):
            _check_record_size(location, os.stat(location.path).st_size, most_bytes)
    return read_bytes(location)


def read_listed(folder: Location, listed: dict[str, Version]) -> dict[str, bytes | Exception]:
    """Return all bytes of records by path, or the exception if one cannot be read, for example if it was deleted.

    Args:
        folder: folder of the records.
        listed: versions of the records by path, from `list_versions`.
    """
    found: dict[str, bytes | Exception] = {}
    for path, version in listed.items():
        place = folder.at(path)
        try:
            if not PATTERN.isdisjoint(path.rsplit("/", 1)[-1]):
                raise OutputError(f"{place.uri}: is not the name of a record; delete it")
            place.check_inside()
            _check_record_size(place, int(version[0]) if version[0].isdecimal() else 0)
        except OutputError as error:
            found[path] = error
    paths = [path for path in listed if path not in found]
    if paths:
        with storage_errors(folder.uri):
            contents = folder.fs.cat(paths, on_error="return")
        # fsspec returns plain bytes for a single path
        found |= contents if isinstance(contents, dict) else {paths[0]: contents}
    return found


PATTERN: Final = frozenset("*?[")
"""Characters that fsspec treats as patterns: it would read every file that matches."""


def _check_record_size(location: Location, size_bytes: int, most_bytes: int = MOST_RECORD_BYTES) -> None:
    if size_bytes > most_bytes:
        raise OutputError(
            f"{location.uri}: has {size_bytes:,} bytes, but a record has at most {most_bytes:,}; delete it"
        )


def exists(location: Location) -> bool:
    """Return whether an object or folder exists, without cached answers.

    Raises:
        StorageError: that cannot be found out. On a disk, fsspec's own `exists` says no instead.
    """
    with storage_errors(location.uri):
        location.fs.invalidate_cache()
        if location.is_s3 or location.is_web:
            return bool(location.fs.exists(location.path))
        with suppress(FileNotFoundError, NotADirectoryError):
            location.fs.info(location.path)
            return True
        return False


def write_bytes(location: Location, data: bytes) -> None:
    """Write an object atomically: with one PUT, or on disk with a temporary file and a rename."""
    with location.writing():
        if location.is_local:
            _replace_local(location, data=data)
        else:
            location.fs.pipe_file(location.path, data)


def upload(local_path: str, location: Location) -> None:
    """Move a local file to its destination, atomically. The local file is gone afterwards."""
    with location.writing():
        if location.is_local:
            _replace_local(location, moved=local_path)
        else:
            location.fs.put_file(local_path, location.path)
            os.unlink(local_path)


def delete(location: Location) -> None:
    """Delete an object; a missing object is not an error."""
    location.check_parent_inside()
    with storage_errors(location.uri), suppress(FileNotFoundError):
        if location.root is not None and location.is_local:
            with _held_parent(location) as (folder, name):
                os.unlink(name, dir_fd=folder)
        else:
            location.fs.rm_file(location.path)


def delete_folder(location: Location) -> None:
    """Delete everything below a prefix and, on disk, the folder itself."""
    location.check_parent_inside()
    with storage_errors(location.uri):
        if location.is_s3:
            _delete_below_s3(location)
            return
        with suppress(FileNotFoundError):
            if location.root is not None and location.is_local:
                with _held_parent(location) as (folder, name):
                    shutil.rmtree(name, dir_fd=folder)
            else:
                location.fs.rm(location.path, recursive=True)


@contextmanager
def _held_parent(location: Location) -> Iterator[tuple[int, str]]:
    """Open the folder of a local place below its root without following links; give its descriptor, and the name in it.

    Whatever is deleted relative to it is inside, even if somebody meanwhile puts a link in the place of a folder.
    """
    root = os.path.realpath(cast(str, location.root))
    parent, name = os.path.split(location.path.rstrip("/"))
    folder = os.open(root, _FOLDER)
    try:
        for part in os.path.relpath(parent, location.root).split(os.sep):
            if part == os.pardir:
                raise OutputError(f"{location.uri}: {LEADS_OUT}")
            try:
                above, folder = folder, os.open(part, _FOLDER, dir_fd=folder)
            except NotADirectoryError:  # a link, since the check
                raise OutputError(f"{location.uri}: {LEADS_OUT}") from None
            os.close(above)
        yield folder, name
    finally:
        os.close(folder)


_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def _delete_below_s3(location: Location) -> None:
    """Delete many objects per request. s3fs's `rm` ignores the keys that the answer says were not deleted."""
    paths = list_files(location)
    for start in range(0, len(paths), _MOST_KEYS):
        bucket = paths[start].partition("/")[0]
        keys = [{"Key": path.partition("/")[2]} for path in paths[start : start + _MOST_KEYS]]
        answer = location.fs.call_s3("delete_objects", Bucket=bucket, Delete={"Objects": keys, "Quiet": True})
        for refused in answer.get("Errors", []):
            location.fs.rm_file(f"{bucket}/{refused['Key']}")  # succeeds now, or raises the reason


_MOST_KEYS: Final = 1000
"""S3's limit for one request."""


def list_files(location: Location) -> list[str]:
    """Return the sorted paths of all objects below a prefix, without cached answers; empty if there is no prefix."""
    location.check_inside()
    with storage_errors(location.uri):
        location.fs.invalidate_cache()
        return sorted(_below(location))


def _below(location: Location) -> dict[str, dict[str, Any]]:
    """Return the listing entries of all objects below a prefix, by path.

    fsspec's own `find` takes a folder that cannot be listed (an I/O error, no access) as empty, so that published
    shards would be missed without a word.
    """
    kind = type(location.fs)
    if location.is_web or getattr(kind, "_find", kind.find) not in _FIND_OF_FSSPEC:
        return cast(dict[str, dict[str, Any]], location.fs.find(location.path, detail=True))
    found, folders = {}, [location.path]
    while folders:
        try:
            entries = location.fs.ls(folder := folders.pop(), detail=True)
        except (FileNotFoundError, NotADirectoryError):  # deleted meanwhile, or never there
            continue
        for entry in entries:
            path = entry["name"].rstrip("/")
            if entry["type"] != "directory":
                found[path] = entry
            elif path != folder:
                folders.append(path)
    return found


_FIND_OF_FSSPEC: Final = (AbstractFileSystem.find, LocalFileSystem.find, AsyncFileSystem._find)
"""Other filesystems, such as s3fs and gcsfs, list all objects below a prefix themselves, and say when they cannot."""

Version = tuple[str, ...]
"""An object's version in a listing: its size first, then what else changes when it is rewritten."""


def list_versions(location: Location, *, suffix: str) -> dict[str, Version]:
    """Return the versions of the objects directly below a prefix whose names end in `suffix`, by path, without caching.

    If an object's version is equal in two listings, it was not rewritten in between. Objects in folders below, such as
    copies that somebody keeps there, are not listed: they would take the place of those of their name.
    """
    location.check_inside()
    with storage_errors(location.uri):
        location.fs.invalidate_cache()
        found = _below(location)
    depth = location.path.rstrip("/").count("/") + 1
    direct = [path for path in sorted(found) if path.endswith(suffix) and path.count("/") == depth]
    return {path: tuple(str(found[path].get(name)) for name in _VERSION) for path in direct}


_VERSION = tuple("size ino mtime created ETag etag generation LastModified last_modified blob_id xet_hash".split())
"""Fields in fsspec's listings that change when an object is written; each filesystem has some of them."""


def list_ahead(locations: Iterable[Location]) -> None:
    """List prefixes whose files are about to be opened, so that opening them needs no requests for size or date.

    DuckDB sends six such requests per file. The filesystem's cache is valid until the next listing.
    """
    for number, location in enumerate(locations):
        location.check_inside()
        with storage_errors(location.uri):
            if not number:
                location.fs.invalidate_cache()
            location.fs.find(location.path)


def list_folders(location: Location) -> list[str]:
    """Return the names of the folders directly below a prefix, without cached answers; empty if there is no prefix."""
    location.check_inside()
    with storage_errors(location.uri):
        location.fs.invalidate_cache()
        try:
            entries = location.fs.ls(location.path, detail=True)
        except FileNotFoundError:
            return []
        return sorted(e["name"].rstrip("/").rsplit("/", 1)[-1] for e in entries if e["type"] == "directory")


def open_ranges(location: Location, *, size_bytes: int | None = None, cached: bool = True) -> IO[bytes]:
    """Open an object as a seekable file that fetches ranges on demand.

    It fetches blocks of 1 MiB and keeps the last 32. Measured on an mp4 of 16 MB with its index at
    the end: planning takes 3 requests and 1.1 MB (plain read-ahead: 9 and 5.5 MB, because FFmpeg
    seeks to the end and back), a unit in the middle 5 and 3.2 MB, the whole file 17 and 16 MB.
    Larger blocks save requests but fetch more bytes than a unit needs. If not `cached`, each read
    is a request, for readers with their own cache. If a web server sends no length or supports no
    ranges, the object is first downloaded to a temporary file.
    """
    location.check_inside()
    with storage_errors(location.uri):
        if location.is_local:
            return open(location.path, "rb")
        cache = "blockcache" if cached else "none"
        if location.is_web:
            return _open_link(location, cache)
        extra = {} if size_bytes is None else {"size": size_bytes}
        return cast(
            IO[bytes],
            location.fs.open(location.path, "rb", block_size=_BLOCK_BYTES, cache_type=cache, **extra),
        )


def _open_link(location: Location, cache: str) -> IO[bytes]:
    file = location.fs.open(location.path, "rb", block_size=_BLOCK_BYTES, cache_type=cache)
    if takes_ranges(file):
        return cast(IO[bytes], file)
    return kept(file if file.size is None else location.fs.open(location.path, "rb", block_size=0))


def fetched_bytes(file: Any) -> int:
    """Return the bytes that a file of `open_ranges` has fetched from its storage so far; 0 on a local disk."""
    inner = getattr(getattr(file, "raw", file), "source", file)
    counted = int(getattr(getattr(inner, "cache", None), "total_requested_bytes", 0))
    # The cache counts the last block of a file as a full block.
    return min(counted, inner.size) if counted and counted < inner.size + _BLOCK_BYTES else counted


def _write_into(path: str, data: bytes | None, moved: str | None) -> None:
    """Write into a pipe or device, which a rename would replace by a file."""
    with open(path, "wb") as target:
        if data is not None:
            target.write(data)
        elif moved is not None:
            with open(moved, "rb") as source:
                shutil.copyfileobj(source, target)
            os.unlink(moved)


def _replace_local(location: Location, *, data: bytes | None = None, moved: str | None = None) -> None:
    path = location.path
    if location.root is None and os.path.lexists(path):  # a place that the user named
        if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
            _write_into(path, data, moved)
            return
        path = os.path.realpath(path)
        location = replace(location, path=path)
    folder, name = location.make_folder(), os.path.basename(path)
    # Hidden and without a table's suffix, so that no reader takes a half-written file for a table.
    temporary = os.path.join(folder, f".{name}.{uuid.uuid4().hex}.tmp")
    try:
        if data is not None:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        elif moved is not None:
            shutil.move(moved, temporary)
            with open(temporary, "rb") as whole:
                os.fsync(whole.fileno())  # or a commit on disk could name a file that is not on disk yet
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
