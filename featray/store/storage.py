"""Store. One interface to object storage and local disks, on top of fsspec.

Every read, write and listing of the package goes through this module, so three things hold
everywhere: storage errors become a one-line `StorageError`, writes are atomic (an object
exists whole or not at all), and messages never contain credentials.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
import sys
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO, Any, Final, cast
from urllib.parse import urlsplit

import fsspec
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from featray.errors import AccessDenied, ErrorCode, NotFound, OutputError, StorageError, Unreachable
from featray.redaction import redact_uri, remember_secrets
from featray.store.failures import meaning
from featray.store.own_host import with_own_host
from featray.store.streamed import kept, takes_ranges


@dataclass(frozen=True)
class Location:
    """A place in a filesystem. `uri` is safe to print: no credentials, no query.

    Attributes:
        fs: the fsspec filesystem.
        path: the path inside it, in fsspec's form (may have a query with a signature).
        uri: the same place as a URI without secrets.
        root: the folder that symbolic links must not leave when reading, writing and deleting; None for no limit.
    """

    fs: Any = field(compare=False, repr=False)
    path: str = field(repr=False)
    uri: str
    root: str | None = field(default=None, compare=False, repr=False)

    def child(self, *parts: str) -> Location:
        """Return a location below this one; parts are joined with `/`.

        Raises:
            OutputError: a part such as `..` would lead outside this location.
        """
        tail = "/".join(part.strip("/") for part in parts if part)
        # Checked in buckets too: HTTP clients resolve `..` in a key as in any URL.
        if not {".", ".."}.isdisjoint(tail.split("/")) or "\0" in tail:
            raise OutputError(f"{self.uri}: {tail!r} leads out of it")
        return Location(self.fs, f"{self.path.rstrip('/')}/{tail}", f"{self.uri.rstrip('/')}/{tail}", self.root)

    def at(self, path: str) -> Location:
        """Return another path of the same filesystem, with this scheme; a store may have several (az, abfs)."""
        if "://" in path:  # http: the link may be signed
            return Location(self.fs, path, redact_uri(path), self.root)
        full = str(self.fs.unstrip_protocol(path))
        return Location(self.fs, path, f"{self.uri.partition('://')[0]}://{full.partition('://')[2]}", self.root)

    def check_inside(self) -> None:
        """Check that the place is below `root` after following links.

        Raises:
            OutputError: a link leads outside.
        """
        self._check_inside(self.path)

    def check_parent_inside(self) -> None:
        """Check the parent folder only, before a name is written or deleted: a link of that name is replaced."""
        self._check_inside(os.path.dirname(self.path.rstrip("/")))

    def check_writable(self) -> None:
        """Run `check_parent_inside`, and check that the output exists, so that a write never creates half an output.

        Raises:
            OutputError: a link leads outside; the output was deleted or is not on this node of a cluster; or it is on a
                hub or web server, where conditional creation is not possible.
        """
        self.check_parent_inside()
        if "hf" in _protocols(self.fs):
            raise OutputError(
                f"{self.uri}: tables cannot be written to the Hugging Face hub, where each file is a commit and no run "
                "can take a lease; write them to a disk or to S3, then run `hf upload`"
            )
        if self.is_web:
            raise OutputError(f"{self.uri}: tables cannot be written to a web server; write them to a disk or to S3")
        if self.root is not None and self.is_local and not os.path.isdir(self.root):
            raise OutputError(
                f"file://{self.root}: is gone, or is not on this machine ({socket.gethostname()}); put the output on a "
                "disk that every node can reach during the whole run, and run again"
            )

    def _check_inside(self, path: str) -> None:
        if self.root is None or not self.is_local:
            return
        root, real = os.path.realpath(self.root), os.path.realpath(path)
        if os.path.commonpath([root, real]) != root:
            raise OutputError(f"{self.uri}: {_LEADS_OUT}")
        with suppress(OSError):  # missing or not accessible: reading or writing it reports that
            if not stat.S_ISREG(mode := os.stat(real).st_mode) and not stat.S_ISDIR(mode):
                raise OutputError(f"{self.uri}: is a pipe or a device, which an output never contains; delete it")

    @property
    def is_local(self) -> bool:
        """Return whether this is a local path."""
        return "file" in _protocols(self.fs)

    @property
    def is_s3(self) -> bool:
        """Return whether this is in a store with the S3 API."""
        return "s3" in _protocols(self.fs)

    @property
    def is_web(self) -> bool:
        """Return whether this is a link to a web server."""
        return not {"http", "https"}.isdisjoint(_protocols(self.fs))


_LEADS_OUT: Final = "a link leads out of the output; replace the link with its target, or delete it"

_BLOCK_BYTES = 1 << 20

_DEFAULT_OPTIONS: dict[str, dict[str, Any]] = {
    # By default botocore waits a minute for an answer and gives up after five tries; outages in long runs last longer.
    "s3": {
        "config_kwargs": {
            "connect_timeout": 10,
            "read_timeout": 30,
            "retries": {"max_attempts": 8, "mode": "standard"},
        }
    },
}


_EXTRAS = {"gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure"}
"""featray's extra to install for a protocol whose package is optional."""

_CHAINING = frozenset("simplecache filecache blockcache cached dir reference zip tar libarchive".split())
"""Protocols that come before another one, as in `zip://a.mp4::s3://bucket/z.zip`."""


def locate(uri: str, storage_options: dict[str, Any] | None = None) -> Location:
    """Return the location of a URI or local path.

    Raises:
        StorageError: the protocol is unknown, its package is not installed, or it rejects the options.
    """
    remember_secrets(storage_options or {})
    clean, opened = redact_uri(uri), opened_as(uri)
    protocol = fsspec.utils.get_protocol(opened)
    if protocol not in fsspec.available_protocols() or opened.startswith("data:"):  # which is no place
        raise StorageError(f"{clean}: cannot be opened: unknown protocol; check the part before `://`")
    if protocol in ("http", "https") and not _is_url(uri):
        raise StorageError(f"{clean}: is not a valid URL")
    if "\0" in uri:
        raise StorageError(f"{clean}: contains a null character, which no name of a file has")
    try:
        given = with_own_host(uri, storage_options or {}) if protocol in ("http", "https") else storage_options or {}
        fs, path = fsspec.core.url_to_fs(opened, **{**_DEFAULT_OPTIONS.get(protocol, {}), **given})
        if opened != uri:
            path = fs._strip_protocol(uri)
        if protocol == "hf":
            _check_hub_name(opened, clean)
        if "s3" in _protocols(fs):
            fs.connect()  # sends no request; without it, wrong options would only fail at the first read
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        hint = f"pip install 'featray[{extra}]'" if extra else str(error)
        raise StorageError(f"{clean}: the package for {protocol}:// is not installed; {hint}") from None
    except (TypeError, ValueError):  # its message may contain a value, and so a secret
        names = ", ".join(sorted(storage_options or {})) or "none"
        raise StorageError(
            f"{clean}: cannot be opened with these storage options ({names}); check their names and values"
        ) from None
    except transport_errors() as error:
        raise _typed(error, clean) from None
    if "file" in _protocols(fs):
        path = _one_name(path)
        clean = f"file://{path}"
    return Location(fs, path, clean)


def _one_name(path: str) -> str:
    """Return a path without `.` and `..`, so that a file has one name; unchanged if that would name another file."""
    if {".", ".."}.isdisjoint(path.split("/")):
        return path
    short = os.path.normpath(path)
    try:
        return short + "/" * path.endswith("/") if os.path.samefile(short, path) else path
    except (OSError, ValueError):  # it does not exist
        return short


def locate_beside(uri: str, known: Location) -> Location:
    """Return the location of a URI, with the filesystem and credentials of `known` if both are in one kind of store."""
    if known.is_local or fsspec.utils.get_protocol(opened_as(uri)) not in _protocols(known.fs):
        return locate(uri)
    return Location(known.fs, known.fs._strip_protocol(uri), redact_uri(uri))


def is_on_disk(uri: str) -> bool:
    """Return whether this names a local file, judged by its scheme."""
    return "://" not in uri or uri.partition("://")[0].lower() in ("file", "local")


def opened_as(uri: str) -> str:
    """Return the part of a URI to pass to fsspec: `::` chains filesystems only after certain protocols."""
    head = uri.partition("::")[0]
    return uri if head.partition("://")[0] in _CHAINING else head


def _check_hub_name(uri: str, clean: str) -> None:
    from huggingface_hub import parse_hf_uri  # fsspec imported the package already, for this protocol only

    try:
        parse_hf_uri(uri)
    except ValueError:
        raise StorageError(
            f"{clean}: names no repository; write hf://datasets/OWNER/NAME/... or, for a branch, tag or commit, "
            "hf://datasets/OWNER/NAME@REVISION/..."
        ) from None


def _is_url(uri: str) -> bool:
    try:
        urlsplit(uri).port  # noqa: B018 - the attribute validates the port
    except ValueError:
        return False
    return True


def transport_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions that storage libraries raise when a place cannot be reached or read.

    s3fs and gcsfs translate most failures to `OSError`. Exceptions of lower layers are added
    only if their module is loaded, so that no module is imported just for its exceptions.
    """
    found: list[type[Exception]] = [OSError, TimeoutError]
    found += [getattr(sys.modules[module], name) for module, name in _LIBRARIES_ERRORS if module in sys.modules]
    return tuple(found)


_LIBRARIES_ERRORS = (
    ("aiohttp", "ClientError"),
    ("azure.core.exceptions", "AzureError"),
    ("botocore.exceptions", "BotoCoreError"),
    ("gcsfs.retry", "HttpError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("httpx", "HTTPError"),  # used by huggingface_hub before 2
    ("httpx2", "HTTPError"),
)


_WHERE = "in the environment or as storage options (storage_options in the config, or --storage-option)"


def explain(error: BaseException) -> str:
    """Return a short description of a storage error, without any address from the library's message."""
    if known := meaning(error):
        return known.text
    if isinstance(error, PermissionError) and error.filename and not error.__cause__:  # a local file
        return f"access denied; this user (uid {os.getuid()}) lacks the rights: change its owner or mode"
    if _is_of_hub(error) and _is_denied(error):
        return "access denied, or no such repository; set HF_TOKEN, and accept the terms on its page, if it has any"
    if _is_denied(error):
        return f"access denied; check the credentials {_WHERE}, and that they have not expired"
    if type(error).__name__ == _NO_CREDENTIALS:
        return f"no credentials found; set them {_WHERE}; for a public bucket set `anon: true` there"
    if silence := _silence(error):
        server = f"; for a store other than AWS, set `endpoint_url` {_WHERE}" if silence == _NO_S3_ENDPOINT else ""
        return f"the storage does not answer ({silence}){server}"
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    if isinstance(error, IsADirectoryError):
        return "is a folder"
    name = type(error).__name__
    reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else name
    return f"cannot be read or written ({reason})"


_NO_CREDENTIALS = "NoCredentialsError"
_NO_S3_ENDPOINT = "EndpointConnectionError"


def _silence(error: BaseException | None) -> str | None:
    """Return the name of a timeout or connection error in the chain of causes: fsspec reports one as "not found"."""
    while error is not None:
        name = type(error).__name__
        if isinstance(error, TimeoutError) or "timeout" in name.lower() or "connect" in name.lower():
            return name
        error = error.__cause__
    return None


def unreadable_code(error: BaseException) -> ErrorCode:
    """Return the error code of a video whose storage raised this: access denied or fetch failed."""
    if known := meaning(error):
        return known.code
    denied = isinstance(error, AccessDenied) or _is_denied(error)
    return ErrorCode.ACCESS_DENIED if denied else ErrorCode.FETCH_FAILED


def _is_denied(error: BaseException | None) -> bool:
    """Return whether access was denied; fsspec reports a 403 of a link as "not found", with the reason as its cause."""
    while error is not None:
        answer = getattr(getattr(error, "response", None), "status_code", None)  # Hugging Face hub, Azure
        if isinstance(error, PermissionError) or {getattr(error, "status", None), answer} & {401, 403}:
            return True
        error = error.__cause__
    return False


def _is_of_hub(error: BaseException | None) -> bool:
    while error is not None:
        if type(error).__module__.startswith("huggingface_hub"):
            return True
        error = error.__cause__
    return False


NO_PLACE: Final = "cannot be created: its bucket, or a folder above it, does not exist"


@contextmanager
def storage_errors(uri: str, *, missing: str = "does not exist") -> Iterator[None]:
    """Turn storage exceptions inside the block into a one-line StorageError about `uri`.

    Args:
        uri: the place that the block reads or writes.
        missing: the message if it, or its bucket, does not exist.
    """
    try:
        yield
    except transport_errors() as error:
        raise _typed(error, redact_uri(uri), missing) from error


def _typed(error: BaseException, uri: str, missing: str = "does not exist") -> StorageError:
    """Return a storage exception as featray's own error."""
    if _is_denied(error):
        return AccessDenied(f"{uri}: {explain(error)}")
    if _silence(error) or type(error).__name__ == _NO_CREDENTIALS:
        return Unreachable(f"{uri}: {explain(error)}")
    if isinstance(error, FileNotFoundError):
        return NotFound(f"{uri}: {missing}")
    return StorageError(f"{uri}: {explain(error)}")


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
    location.check_writable()
    with storage_errors(location.uri, missing=NO_PLACE):
        if location.is_local:
            _replace_local(location.path, data=data)
        else:
            location.fs.pipe_file(location.path, data)


def upload(local_path: str, location: Location) -> None:
    """Move a local file to its destination, atomically. The local file is gone afterwards."""
    location.check_writable()
    with storage_errors(location.uri, missing=NO_PLACE):
        if location.is_local:
            _replace_local(location.path, moved=local_path)
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
        for part in os.path.relpath(os.path.realpath(parent), root).split(os.sep):
            if part == os.pardir:
                raise OutputError(f"{location.uri}: {_LEADS_OUT}")
            above, folder = folder, os.open(part, _FOLDER, dir_fd=folder)
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


def _replace_local(path: str, *, data: bytes | None = None, moved: str | None = None) -> None:
    folder, name = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
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


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
