"""Command line. The console of every command that prints through rich."""

from __future__ import annotations

from rich.console import Console


def open_console() -> Console:
    """Return a console that prints text as it is.

    By default rich takes `[name]` for markup and `:name:` for an emoji, and both stand in file names and messages.
    Styles are given with `style=` or as `rich.text.Text`.
    """
    return Console(soft_wrap=True, markup=False, emoji=False, highlight=False)
