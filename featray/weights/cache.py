"""Weights. Folders on disk shared by several processes: locks, and entries that are either whole or absent."""

from __future__ import annotations

import fcntl
import glob
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from featray.errors import ModelError


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file `path`; the system releases it when the process dies."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make_entry(entry: Path, fill: Callable[[Path], None]) -> None:
    """Create the folder `entry`: `fill` writes into a temporary folder, which is then renamed.

    Exceptions of `fill` propagate, and nothing is left behind; leftovers of killed processes are
    removed first. The caller must hold a lock for `entry`, and `entry` must not exist.
    """
    entry.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    for stale in entry.parent.glob(f".{glob.escape(entry.name)}.*"):
        shutil.rmtree(stale, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=entry.parent, prefix=f".{entry.name}.") as temporary:
        made = Path(temporary) / "entry"
        made.mkdir(mode=0o755)
        fill(made)
        made.rename(entry)


def sha256_of_file(path: Path) -> str:
    """Return the hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_hashed(path: Path, sha256: str) -> bytes:
    """Read a whole file and check its digest. Loading the result from memory guarantees that loaded bytes were hashed.

    Raises:
        ModelError: it cannot be read, or has another sha256.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ModelError(f"{path}: changed since it was checked; run again")
    return data


def check_owner(path: Path) -> None:
    """Refuse a trusted file or folder that another user could have written.

    Raises:
        ModelError: it belongs to neither this user nor root, or group or others may write to it.
        OSError: it does not exist.
    """
    status = path.stat()
    if status.st_uid not in (os.geteuid(), 0) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ModelError(
            f"{path}: other users can write to it (owner {status.st_uid}, mode {stat.S_IMODE(status.st_mode):o}), so "
            "its content is not used; delete it, or set FEATRAY_CACHE to a folder of your own"
        )
