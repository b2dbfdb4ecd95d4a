"""Weights. A cache folder of converted networks, shared by several processes.

What must stay true: an entry is either whole or absent, whichever process is killed; a damaged
entry is detected by its sha256 and made again; the loaded bytes are the checked bytes; an entry
that another user could have written is refused; after a change of the code that defines the
network, old entries are not found. This module imports neither torch nor OpenVINO.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

from featray.errors import ModelError
from featray.weights.cache import check_owner, locked, make_entry, sha256_of_file

_log = logging.getLogger(__name__)
_Model = TypeVar("_Model")

_MANIFEST: Final = "manifest.json"


def ir_key(name: str, facts: Sequence[str], code: Sequence[Path]) -> str:
    """Return the name of a cache entry: `name` and a digest of everything that the converted network depends on.

    Args:
        name: a readable prefix; need not be unique.
        facts: sha256 of the weights, settings, versions.
        code: files that define the network.
    """
    digest = hashlib.sha256("\n".join(facts).encode())
    for path in code:
        digest.update(path.read_bytes())
    return f"{name}-{digest.hexdigest()[:16]}"


class IrCache:
    """Converted networks under `folder`, one subfolder per key."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load_or_make(
        self, key: str, *, read: Callable[[Mapping[str, bytes]], _Model], make: Callable[[Path], None]
    ) -> _Model:
        """Read the entry `key`; make it first if it is absent, while other processes wait.

        A new entry is read back from disk, because a network in memory differs slightly from the
        one on disk, and its results would differ in the last digits from those of the next start.

        Args:
            key: name of the entry.
            read: receives the bytes of the entry's files, by name.
            make: writes the files into a folder.

        Raises:
            ModelError: the folder cannot be written, or other users can write to it.
        """
        entry = self._folder / key
        try:
            if (files := _whole(entry)) is None:
                with locked(self._folder / f"{key}.lock"):
                    if (files := _whole(entry)) is None:
                        _make(entry, make)
                        files = _whole(entry)
        except OSError as error:
            raise ModelError(f"{self._folder}: cannot be used as a cache ({error.strerror or error})") from error
        if files is None:
            raise ModelError(f"{entry}: changed while it was read; run again")
        return read(files)


def _make(entry: Path, make: Callable[[Path], None]) -> None:
    def fill(folder: Path) -> None:
        make(folder)
        manifest = {path.name: sha256_of_file(path) for path in sorted(folder.iterdir())}
        (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1))
        for path in folder.iterdir():
            path.chmod(0o644)  # independent of the umask, which may allow group writes

    if entry.exists():
        _log.warning("%s is damaged; making it again", entry)
        shutil.rmtree(entry)
    make_entry(entry, fill)


def _whole(entry: Path) -> dict[str, bytes] | None:
    """Return the bytes of an entry's files by name; None unless every file exists and is unchanged."""
    try:
        for path in (entry.parent, entry, *entry.iterdir()):
            check_owner(path)
        manifest = json.loads((entry / _MANIFEST).read_text())
        files = {name: (entry / name).read_bytes() for name in manifest.keys()}
        whole = all(hashlib.sha256(data).hexdigest() == manifest[name] for name, data in files.items())
        return files if whole else None
    except (OSError, ValueError, AttributeError):
        return None
