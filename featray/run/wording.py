"""Run. Format times and sizes, as printed by `run`, `plan` and `status`."""

from __future__ import annotations

from featray.errors import counted

NO_MEANING = "synthetic (random); facial numbers will carry no meaning"
"""The warning about a run's weights, before it starts."""

_MOST_RELEASES = 3


def duration(seconds: float) -> str:
    """Return a duration in a readable unit.

    >>> duration(40), duration(400), duration(40_000), duration(4_000_000)
    ('40 s', '7 min', '11.1 h', '46 days')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds < 72 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.0f} days"


def new_release(others: list[str]) -> str:
    """Return what a run means for a dataset that has these other releases.

    >>> new_release(["v2.8-0123abcd"])
    'new release (the output has v2.8-0123abcd): all videos are processed again'
    """
    more = f" and {len(others) - _MOST_RELEASES} more" if len(others) > _MOST_RELEASES else ""
    return f"new release (the output has {', '.join(others[:_MOST_RELEASES])}{more}): all videos are processed again"


def size(num_bytes: float) -> str:
    """Return a number of bytes in decimal units.

    >>> size(12), size(345_678), size(45_000_000), size(2.5e12)
    ('12 bytes', '346 kB', '45 MB', '2.5 TB')
    """
    for power, unit in ((12, "TB"), (9, "GB"), (6, "MB"), (3, "kB")):
        value = num_bytes / 10**power
        if value >= 1:
            return f"{value:.1f} {unit}" if value < 10 else f"{value:,.0f} {unit}"
    return counted(round(num_bytes), "byte")
