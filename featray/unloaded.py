"""Ground. Keeps pandas out of processes that make no use of it.

PyArrow loads pandas as it makes its first array from Python objects, to see whether they are pandas': one to two
seconds of a core, in every command and every decoding process. Hidden from it, pandas counts as not installed.
"""

from __future__ import annotations

import sys


class _NoPandas:
    def find_spec(self, name: str, *_: object) -> None:
        if name == "pandas" and "ray" not in sys.modules:  # Ray Data needs it
            raise ModuleNotFoundError("No module named 'pandas'", name=name)


_HIDES = _NoPandas()


def hide_pandas() -> None:
    """Let nobody import pandas from here on, unless it is loaded already. For a process of featray's own only."""
    if _HIDES not in sys.meta_path:
        sys.meta_path.insert(0, _HIDES)


def show_pandas() -> None:
    """Let pandas be imported again, where a DataFrame is asked for."""
    if _HIDES in sys.meta_path:
        sys.meta_path.remove(_HIDES)
