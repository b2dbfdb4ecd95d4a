"""Ground. Keeps pandas out of processes that make no use of it.

PyArrow loads pandas as it makes its first array from Python objects, to see whether they are pandas': one to two
seconds of a core, in every command and every decoding process. Hidden from it, pandas counts as not installed.
"""

from __future__ import annotations

import sys
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType


class _NoPandas(Loader):
    """Finds a pandas that cannot be imported. Who only looks whether it is there, as torch does, is told no lie."""

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        if name == "pandas" and "ray" not in sys.modules:  # Ray Data needs it
            return ModuleSpec(name, self)
        return None

    def create_module(self, spec: ModuleSpec) -> None:
        raise ModuleNotFoundError(f"No module named '{spec.name}'", name=spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Never reached; a loader has to have it."""


_HIDES = _NoPandas()


def hide_pandas() -> None:
    """Let nobody import pandas from here on, unless it is loaded already. For a process of featray's own only."""
    if _HIDES not in sys.meta_path:
        sys.meta_path.insert(0, _HIDES)


def show_pandas() -> None:
    """Let pandas be imported again, where a DataFrame is asked for."""
    if _HIDES in sys.meta_path:
        sys.meta_path.remove(_HIDES)
