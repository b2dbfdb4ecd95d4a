"""Views. Parse and format times for people."""

from __future__ import annotations

import re

from featray.errors import UsageError

_TIME = re.compile(r"(?:(?:(?P<hours>\d+):)?(?P<minutes>\d+):)?(?P<seconds>\d+(?:\.\d*)?)s?")


def parse_time_us(text: str) -> int:
    """Return the microseconds of `12`, `12.5s`, `1:02.5` or `00:01:02`.

    Raises:
        UsageError: the text has none of these forms.
    """
    found = _TIME.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"{text!r} is not a time; write seconds (12, 12.5s), 1:02.5 or 00:01:02")
    hours, minutes = int(found["hours"] or 0), int(found["minutes"] or 0)
    return round((hours * 3600 + minutes * 60 + float(found["seconds"])) * 1_000_000)


def clock_text(time_us: int) -> str:
    """Return minutes, seconds and milliseconds, such as `1:02.500`; with hours if there are any."""
    sign, milliseconds = ("-" if time_us < 0 else ""), round(abs(time_us) / 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    head = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{sign}{head}:{rest // 1000:02d}.{rest % 1000:03d}"
