"""Sources. Count what a listing skipped: files that no setting asked for, and folders without read permission."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from featray.errors import StorageError, counted
from featray.redaction import readable_name
from featray.sources.entry import is_apple_double, suffix

_KINDS: Final = 100
_SHOWN: Final = 8
_MAX_FOLDERS: Final = 1000


@dataclass
class PassedOver:
    """Counts of skipped files, and the names of skipped folders.

    Attributes:
        files: skipped files below prefixes, by suffix as written; `._*` are the extra files of macOS.
        folders: URIs, ending in `/`, of folders that may not be listed.
    """

    files: Counter[str] = field(default_factory=Counter)
    folders: list[str] = field(default_factory=list)

    def file(self, path: str) -> None:
        """Count a file."""
        kind = "._*" if is_apple_double(path) else _written(path)
        self.files[kind if kind in self.files or len(self.files) < _KINDS else "others"] += 1

    def folder(self, uri: str) -> None:
        """Record a folder.

        Raises:
            StorageError: there are too many for the listing to be useful.
        """
        self.folders.append(f"{readable_name(uri).rstrip('/')}/")
        if len(self.folders) > _MAX_FOLDERS:
            raise StorageError(f"{uri}: access denied, and to {_MAX_FOLDERS} more folders of the input")

    def hides(self, uri: str) -> bool:
        """Return whether a file may exist although it was not listed."""
        return any(uri.startswith(folder) for folder in self.folders)

    def in_words(self) -> str:
        """Return the counts on one line, most frequent first; empty if nothing was skipped."""
        if not self.files:
            return ""
        most = sorted(self.files.items(), key=lambda item: (-item[1], item[0]))
        kinds = ", ".join(f"{kind} {count}" for kind, count in most[:_SHOWN])
        rest = f", and {counted(len(most) - _SHOWN, 'more kind')}" if len(most) > _SHOWN else ""
        return f"{counted(self.files.total(), 'other file')} passed over: {kinds}{rest}"


def _written(path: str) -> str:
    length = len(suffix(path))
    ending = path[-length:] if length else "no suffix"
    return ending if len(ending) <= 12 and ending.isprintable() and ending.isascii() else "others"
