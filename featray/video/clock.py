"""Video. Assign presentation times to pictures, in ticks of the stream that never decrease."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Final

_RESTART_SECONDS = 1
"""A step back by more than this means that the clock was restarted; a smaller one is jitter."""

LATEST_US: Final = 1 << 53
"""A bound of times that is beyond any video: 285 years. A later time of a picture is not used."""


def latest_ticks(time_base: Fraction) -> int:
    """Return `LATEST_US`, to the whole second, in ticks of a time base."""
    return int(LATEST_US // 1_000_000 / time_base)


class Clock:
    """Gives each picture, in presentation order, its time in stream ticks.

    The stream's own time is used if possible. Otherwise:

    * A picture without a time gets the decoding time of the packet that produced it (all that AVI
      has), or else follows the previous picture by its duration.
    * A picture more than a second before the previous one starts an appended recording: it follows
      the previous picture by its duration, and all later pictures are shifted with it.
    * A picture less than a second before the previous one gets the previous one's time.
    """

    def __init__(self, time_base: Fraction, rate: Fraction | None) -> None:
        self._default_ticks = max(1, round(1 / (rate * time_base))) if rate else 1
        self._restart_ticks = round(_RESTART_SECONDS / time_base)
        self._max_ticks = latest_ticks(time_base)
        self._moved_ticks = 0
        self._previous: int | None = None
        self._duration_ticks = self._default_ticks

    def ticks(self, picture: Any) -> int:
        """Return the time of the next picture."""
        own = picture.dts if picture.pts is None else picture.pts
        after = 0 if self._previous is None else self._previous + self._duration_ticks
        if own is None or abs(own) > self._max_ticks:
            time = after
        else:
            time = own + self._moved_ticks
            if self._previous is not None and time < self._previous - self._restart_ticks:
                self._moved_ticks += after - time
                time = after
        time = min(time, self._max_ticks)  # durations and restarts may add up to more
        self._previous = time if self._previous is None else max(time, self._previous)
        self._duration_ticks = picture.duration or self._default_ticks
        return self._previous
