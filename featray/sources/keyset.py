"""Sources. A set of 64-bit keys in 8 bytes each, for listings of millions of videos."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

_RECENT: Final = 1 << 16
"""Number of keys kept as Python objects, about 6 MB, before they are packed."""


class KeySet:
    """A set that only grows. Recent keys are in a Python set, older ones in a few sorted arrays of doubling length."""

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._packed: list[NDArray[np.uint64]] = []

    def add(self, key: int) -> bool:
        """Add a key (0 to 2**64 - 1); return whether it is new."""
        if key in self._recent or any(_holds(keys, key) for keys in self._packed):
            return False
        self._recent.add(key)
        if len(self._recent) == _RECENT:
            self._pack()
        return True

    def _pack(self) -> None:
        keys = np.sort(np.fromiter(self._recent, np.uint64, _RECENT))
        self._recent.clear()
        while self._packed and len(self._packed[-1]) <= len(keys):
            keys = np.sort(np.concatenate([self._packed.pop(), keys]))
        self._packed.append(keys)


def _holds(keys: NDArray[np.uint64], key: int) -> bool:
    wanted = np.uint64(key)
    at = int(keys.searchsorted(wanted))
    return at < len(keys) and bool(keys[at] == wanted)
