"""Command line. Options that may be given once: click keeps the last value and drops the others without a word."""

from __future__ import annotations

from typing import Any

import click

from featray.errors import UsageError


class OnceOption(click.Option):
    """Option that refuses a second value. For commands whose dropped value would do harm, such as `erase --video`."""

    def __init__(self, *names: Any, **settings: Any) -> None:
        super().__init__(*names, **{**settings, "multiple": True})

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        """Return the only value, or None if there is none."""
        values = super().process_value(ctx, value) or ()
        if len(values) > 1:
            raise UsageError(f"{ctx.info_name}: {self.opts[0]} is given {len(values)} times; run it once for each")
        return values[0] if values else None
