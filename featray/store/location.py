"""Store. Places: a path in a filesystem, and the URI that names it in messages."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import fsspec

from featray.errors import NotFound, OutputError, StorageError
from featray.redaction import redact_uri, remember_secrets
from featray.store.failures import NO_PLACE, as_storage_error, storage_errors, transport_errors
from featray.store.own_host import with_own_host


@dataclass(frozen=True)
class Location:
    """A place in a filesystem. `uri` is safe to print: no credentials, no query.

    Attributes:
        fs: the fsspec filesystem.
        path: the path inside it, in fsspec's form (may have a query with a signature).
        uri: the same place as a URI without secrets.
        root: the root of an output, which symbolic links must not leave when reading, writing and deleting, and which
            contains `MARKER`; None for other places.
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
        """Check that no link below `root` leads to this place.

        Raises:
            OutputError: a link leads outside, or to another place inside, where files would be taken for stray ones.
        """
        self._check_inside(self.path)

    def check_parent_inside(self) -> None:
        """Check the parent folder only, before a name is written or deleted: a link of that name is replaced."""
        self._check_inside(os.path.dirname(self.path.rstrip("/")))

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Check that this can be written, and turn storage exceptions of the block that writes it into featray's own.

        A write must never create half an output, so the output has to exist; it may also be deleted during the block.

        Raises:
            OutputError: a link leads outside; the output was deleted or is not on this node of a cluster; or it is on a
                hub or web server, where conditional creation is not possible.
            StorageError: it cannot be written.
        """
        self._check_writable()
        try:
            with storage_errors(self.uri, missing=NO_PLACE):
                yield
        except NotFound:
            self._check_writable()
            raise

    def make_folder(self) -> str:
        """Create the missing folders above this place of a disk, up to its root but never that, and return its folder.

        Raises:
            FileNotFoundError: the root does not exist.
        """
        folder = os.path.dirname(self.path)
        if self.root is None:
            os.makedirs(folder, exist_ok=True)
        elif not os.path.isdir(folder):
            made = self.root
            for part in os.path.relpath(folder, self.root).split(os.sep):
                made = os.path.join(made, part)
                with suppress(FileExistsError):
                    os.mkdir(made)
        return folder

    def _check_writable(self) -> None:
        self.check_parent_inside()
        if "hf" in protocols(self.fs):
            raise OutputError(
                f"{self.uri}: tables cannot be written to the Hugging Face hub, where each file is a commit and no run "
                "can take a lease; write them to a disk or to S3, then run `hf upload`"
            )
        if self.is_web:
            raise OutputError(f"{self.uri}: tables cannot be written to a web server; write them to a disk or to S3")
        if self.root is not None and self.is_local:
            # Not only the folder: without its disk, a mount point is an empty folder.
            marker = os.path.join(self.root, MARKER)
            if not os.path.lexists(marker) and not (self.path == marker and os.path.isdir(self.root)):
                raise OutputError(f"file://{self.root}: {GONE}")

    def _check_inside(self, path: str) -> None:
        if self.root is None or not self.is_local:
            return
        root, real = os.path.realpath(self.root), os.path.realpath(path)
        if os.path.commonpath([root, real]) != root:
            raise OutputError(f"{self.uri}: {LEADS_OUT}")
        if real != os.path.normpath(os.path.join(root, os.path.relpath(path, self.root))):
            raise OutputError(f"{self.uri}: {_LEADS_ELSEWHERE}")
        with suppress(OSError):  # missing or not accessible: reading or writing it reports that
            if not stat.S_ISREG(mode := os.stat(real).st_mode) and not stat.S_ISDIR(mode):
                raise OutputError(f"{self.uri}: is a pipe or a device, which an output never contains; delete it")

    @property
    def is_local(self) -> bool:
        """Return whether this is a local path."""
        return "file" in protocols(self.fs)

    @property
    def is_s3(self) -> bool:
        """Return whether this is in a store with the S3 API."""
        return "s3" in protocols(self.fs)

    @property
    def is_web(self) -> bool:
        """Return whether this is a link to a web server."""
        return not {"http", "https"}.isdisjoint(protocols(self.fs))


MARKER: Final = "_featray/output.json"
"""The record in the root of an output that makes it one. It is written first and never deleted."""

GONE: Final = (
    f"is gone, or is not on this machine ({socket.gethostname()}); put the output on a disk that every node can reach "
    "during the whole run, and run again"
)

_LEADS_ELSEWHERE: Final = (
    "a link leads to another place of the output, whose files it would pass off as its own; delete it"
)

LEADS_OUT: Final = "a link leads out of the output; replace the link with its target, or delete it"


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
        if "s3" in protocols(fs):
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
        raise as_storage_error(error, clean) from None
    if "file" in protocols(fs):
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
    if known.is_local or fsspec.utils.get_protocol(opened_as(uri)) not in protocols(known.fs):
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


def protocols(fs: Any) -> tuple[str, ...]:
    """Return the schemes of a filesystem."""
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
