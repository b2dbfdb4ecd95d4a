"""featray: facial behaviour at dataset scale, from videos in object storage to partitioned Parquet tables.

Importing the package loads neither Ray, torch, DuckDB nor pyarrow. `featray.cli` is the command line,
`featray.run.runner.run` the main job, `featray.open` reads its output and `featray.to_fex` converts it for py-feat.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featray import errors as errors
    from featray.tables.opened import open_tables as open
    from featray.views.fex import to_fex as to_fex

__version__ = "0.1.0"
__all__ = ["__version__", "errors", "open", "to_fex"]


def __getattr__(name: str) -> Any:
    if name == "open":
        from featray.tables.opened import open_tables

        return open_tables
    if name == "to_fex":
        from featray.views.fex import to_fex

        return to_fex
    if name == "errors":
        return import_module("featray.errors")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
