"""featray: facial behaviour at dataset scale, from videos in object storage to partitioned Parquet tables.

Importing the package loads neither Ray nor torch; `featray.cli` is the command line,
`featray.runner.run` the main job and `featray.to_fex` the way to py-feat.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featray.fex import to_fex as to_fex

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "to_fex":
        from featray.fex import to_fex

        return to_fex
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
