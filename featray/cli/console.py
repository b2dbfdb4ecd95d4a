"""Command line. The console of all commands that print through rich."""

from __future__ import annotations

from rich.console import Console


def open_console() -> Console:
    """Return a console that prints text unchanged.

    By default rich treats `[name]` as markup and `:name:` as an emoji, but both occur in file names and messages.
    Set styles with `style=` or with `rich.text.Text`.
    """
    return Console(soft_wrap=True, markup=False, emoji=False, highlight=False)
