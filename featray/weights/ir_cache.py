"""A folder of converted networks that several processes share.

What must stay true: an entry is either whole or absent, whoever is killed when; a damaged
one is found (by its sha256) and made again; changing the code that defines the network
never finds an old entry. No torch, no OpenVINO here.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from featray.errors import ModelError
from featray.model.cache import locked, make_entry, sha256_of_file
from featray.model.checkpoint import Checkpoint

_log = logging.getLogger(__name__)
_Model = TypeVar("_Model")

_MANIFEST: Final = "manifest.json"
_CODE_FILES: Final = (
    "action_units.py",
    "backbone.py",
    "config.py",
    "engine_openvino.py",
    "gaze.py",
    "heads.py",
    "layout.py",
    "network.py",
    "outputs.py",
    "recipes.py",
)


def ir_key(checkpoint: Checkpoint, *, recipe: str, batch: int, openvino_version: str) -> str:
    """Name of the cache entry: everything that the converted network depends on."""
    code = hashlib.sha256()
    for name in _CODE_FILES:
        code.update((Path(__file__).parent / name).read_bytes())
    facts = f"{checkpoint.sha256}\n{recipe}\n{batch}\n{openvino_version}\n{code.hexdigest()}"
    digest = hashlib.sha256(facts.encode()).hexdigest()[:16]
    return f"{checkpoint.sha256[:12]}-{recipe}-b{batch}-{digest}"


class IrCache:
    """Converted networks under `folder`, one sub-folder a key."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load_or_make(self, key: str, *, read: Callable[[Path], _Model], make: Callable[[Path], None]) -> _Model:
        """Read the entry `key`, made first where it is absent; other processes wait meanwhile.

        What was just made is read as well: a network in memory is not quite the one on disk,
        and its results would differ in the last digits from those of the next start.

        Raises:
            ModelError: the folder cannot be written.
        """
        entry = self._folder / key
        try:
            if not _is_whole(entry):
                with locked(self._folder / f"{key}.lock"):
                    if not _is_whole(entry):
                        _make(entry, make)
        except OSError as error:
            raise ModelError(f"{self._folder}: cannot be used as a cache ({error.strerror or error})") from error
        return read(entry)


def _make(entry: Path, make: Callable[[Path], None]) -> None:
    def fill(folder: Path) -> None:
        make(folder)
        manifest = {path.name: sha256_of_file(path) for path in sorted(folder.iterdir())}
        (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1))

    if entry.exists():
        _log.warning("%s is damaged; making it again", entry)
        shutil.rmtree(entry)
    make_entry(entry, fill)


def _is_whole(entry: Path) -> bool:
    """Whether every file of an entry is there with the bytes that were written."""
    try:
        manifest = json.loads((entry / _MANIFEST).read_text())
        return all(sha256_of_file(entry / name) == digest for name, digest in manifest.items())
    except (OSError, ValueError, AttributeError):
        return False
