"""Store. Storage operations for the lease: create if absent, and the age of an object.

* **Create if absent** is atomic on a local disk (a hard link) and on stores with a conditional
  PUT: S3 since 2024, and fsspec's `mode="create"` elsewhere. A store without conditional PUT
  overwrites silently; `enforces` detects that by trying.
* **Age** is measured only with the storage's own clock, so the clocks of hosts do not matter.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import time
import uuid
from email.utils import parsedate_to_datetime
from typing import Any

from featray.store.failures import storage_errors
from featray.store.location import Location

_EXISTS = {"PreconditionFailed", "412"}
_BUSY = {"ConditionalRequestConflict", "409", "OperationAborted"}
_BUSY_TRIES = 5
_NO_CONDITIONS = {"NotImplemented", "501"}
_PLAUSIBLE_SECONDS = 60
"""A plausible age of a lease: leases are renewed more often than this."""
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
"""Errors of file systems without hard links: FAT, some network and FUSE mounts."""


def create_bytes(location: Location, data: bytes) -> bool:
    """Write a whole object if the name is free; return whether it was written.

    A store without conditional PUT always writes, and the result is True.
    """
    with location.writing():
        if location.is_local:
            return _create_local(location, data)
        for _ in range(_BUSY_TRIES - 1):
            with contextlib.suppress(BlockingIOError):
                return _create_remote(location, data)
            time.sleep(1)
        return _create_remote(location, data)


def enforces(location: Location, data: bytes) -> bool:
    """Return whether the store refuses to create an existing object; `location` must contain `data`, written by us."""
    return not create_bytes(location, data)


def age_seconds(location: Location, *, reading: bool = False) -> float | None:
    """Return the age of an object by the storage's clock; None if the storage does not report it.

    On a disk, the age is compared with a new file. With `reading`, that is done only if the age by this machine's clock
    is implausible.

    Raises:
        StorageError: the object cannot be read or is gone.
    """
    location.check_inside()
    with storage_errors(location.uri):
        if location.is_local:
            return _age_read(location.path) if reading else _age_local(location.path)
        if not location.is_s3:
            return None
        bucket, _, key = location.path.partition("/")
        answer = location.fs.call_s3("head_object", Bucket=bucket, Key=key)
    now = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    if now is None:
        return None
    return float((parsedate_to_datetime(now) - answer["LastModified"]).total_seconds())


def _create_remote(location: Location, data: bytes) -> bool:
    """Try once; BlockingIOError if S3 is still deciding between concurrent writers of the same name."""
    try:
        location.fs.pipe_file(location.path, data, mode="create")
    except FileExistsError:
        return False
    except OSError as error:
        code = _s3_code(error)
        if code in _EXISTS:
            return False
        if code in _BUSY:
            raise BlockingIOError(location.uri) from error
        if code not in _NO_CONDITIONS:
            raise
        location.fs.pipe_file(location.path, data)
    return True


def _create_local(location: Location, data: bytes) -> bool:
    folder, name = location.make_folder(), os.path.basename(location.path)
    temporary = os.path.join(folder, f".{name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, location.path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            os.replace(temporary, location.path)  # not exclusive; `enforces` detects that
        return True
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _age_read(path: str) -> float:
    age = time.time() - os.stat(path).st_mtime
    if not 0 <= age <= _PLAUSIBLE_SECONDS:
        with contextlib.suppress(OSError):  # no write permission
            return _age_local(path)
    return age


def _age_local(path: str) -> float:
    """Return the age by the clock of the file server, which may be another machine; a new file shows its time."""
    written = os.stat(path).st_mtime
    with tempfile.NamedTemporaryFile(prefix=".clock-", suffix=".tmp", dir=os.path.dirname(path)) as file:
        file.write(b"now")
        file.flush()
        return os.fstat(file.fileno()).st_mtime - written


def _s3_code(error: OSError) -> str:
    response: Any = getattr(error.__cause__, "response", None)
    with contextlib.suppress(KeyError, TypeError):
        return str(response["Error"]["Code"])
    return ""
