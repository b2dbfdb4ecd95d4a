"""Weights. Folders on disk that several processes share: locks, and entries that are whole or absent."""

from __future__ import annotations

import fcntl
import glob
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file `path`; the system lets go of it when the process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make_entry(entry: Path, fill: Callable[[Path], None]) -> None:
    """Make the folder `entry`: `fill` writes into a temporary folder, which is then renamed.

    Whatever `fill` raises comes through, and nothing is left behind; what a killed process
    left is removed first. The caller holds a lock for `entry`, which must not exist.
    """
    entry.parent.mkdir(parents=True, exist_ok=True)
    for stale in entry.parent.glob(f".{glob.escape(entry.name)}.*"):
        shutil.rmtree(stale, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=entry.parent, prefix=f".{entry.name}.") as temporary:
        made = Path(temporary) / "entry"
        made.mkdir()
        fill(made)
        made.rename(entry)


def sha256_of_file(path: Path) -> str:
    """Give the hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
