"""Ground. Keep pandas out of processes that do not use it.

PyArrow imports pandas when it creates its first array from Python objects, to check for pandas types. This takes one
to two seconds of a core in every command and every decoding process. While hidden, pandas looks not installed.
"""

from __future__ import annotations

import sys
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType


class _NoPandas(Loader):
    """Find a pandas that cannot be imported. Code that only checks for its presence, such as torch, still finds it."""

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        if name == "pandas" and "ray" not in sys.modules:  # Ray Data needs it
            return ModuleSpec(name, self)
        return None

    def create_module(self, spec: ModuleSpec) -> None:
        raise ModuleNotFoundError(f"No module named '{spec.name}'", name=spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Never called; the loader protocol requires it."""


_HIDES = _NoPandas()


def hide_pandas() -> None:
    """Block imports of pandas from now on, unless it is already loaded. Only for featray's own processes."""
    if _HIDES not in sys.meta_path:
        sys.meta_path.insert(0, _HIDES)


def show_pandas() -> None:
    """Allow imports of pandas again, for callers that need a DataFrame."""
    if _HIDES in sys.meta_path:
        sys.meta_path.remove(_HIDES)
