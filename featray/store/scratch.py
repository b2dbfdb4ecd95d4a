"""Store. Temporary folders on this machine, for files in the making."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from featray.errors import StorageError
from featray.store.storage import explain


@contextmanager
def scratch_folder(purpose: str) -> Iterator[str]:
    """Make a temporary folder and delete it with all in it at the end of the block.

    Args:
        purpose: a word for its name, so that whoever finds one after a kill knows whose it is.

    Raises:
        StorageError: there is no such folder, or a file in it cannot be written: most often its disk is full.
    """
    where = ""
    try:
        where = tempfile.gettempdir()
        with tempfile.TemporaryDirectory(prefix=f"featray-{purpose}-", ignore_cleanup_errors=True) as folder:
            yield folder
    except OSError as error:
        raise StorageError(
            f"{where or 'the temporary folder'}: {explain(error)}; set TMPDIR to a folder with room"
        ) from error
