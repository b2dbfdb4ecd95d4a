"""Store. Temporary local folders, for files that are being written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from featray.errors import StorageError
from featray.store.failures import explain


@contextmanager
def scratch_folder(purpose: str) -> Iterator[str]:
    """Create a temporary folder and delete it with its contents at the end of the block.

    Args:
        purpose: a word for the folder's name, so that its origin is clear if a killed process leaves it behind.

    Raises:
        StorageError: the folder or a file in it cannot be written, usually because the disk is full.
    """
    where = ""
    try:
        where = tempfile.gettempdir()
        with tempfile.TemporaryDirectory(prefix=f"featray-{purpose}-", ignore_cleanup_errors=True) as folder:
            yield folder
    except OSError as error:
        if error.filename is not None and not str(error.filename).startswith(where):
            raise
        raise _no_room(where or "the temporary folder", error) from error


@contextmanager
def scratch_errors(folder: str) -> Iterator[None]:
    """Write files in a scratch folder, inside a block that would take an error of its disk for one of a file it reads.

    Raises:
        StorageError: as `scratch_folder`.
    """
    try:
        yield
    except OSError as error:
        raise _no_room(os.path.dirname(folder), error) from error


def _no_room(where: str, error: OSError) -> StorageError:
    return StorageError(f"{where}: {explain(error)}; set TMPDIR to a folder with room")
