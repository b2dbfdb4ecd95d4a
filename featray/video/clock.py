"""Video. When a picture is shown, in ticks of its stream that never go back."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

_RESTART_SECONDS = 1
"""A time this far before the previous one is a clock that started again; a smaller step back is jitter."""

_MAX_SECONDS = 2**62 // 1_000_000


class Clock:
    """Gives each picture, in presentation order, its time in stream ticks.

    The stream's own time is kept wherever there is one. Else, in this order:

    * a picture without one gets the decoding time of the packet that brought it out, which is what
      AVI has instead, or else follows the previous picture by its duration;
    * a picture more than a second before the previous one starts a recording that was joined on:
      it follows the previous picture by its duration, and all that follow move with it;
    * a picture less than that before the previous one gets the previous one's time.
    """

    def __init__(self, time_base: Fraction, rate: Fraction | None) -> None:
        self._default_ticks = max(1, round(1 / (rate * time_base))) if rate else 1
        self._restart_ticks = round(_RESTART_SECONDS / time_base)
        self._max_ticks = int(_MAX_SECONDS / time_base)
        self._moved_ticks = 0
        self._previous: int | None = None
        self._duration_ticks = self._default_ticks

    def ticks(self, picture: Any) -> int:
        """The time of the next picture."""
        own = picture.dts if picture.pts is None else picture.pts
        after = 0 if self._previous is None else self._previous + self._duration_ticks
        if own is None or abs(own) > self._max_ticks:
            time = after
        else:
            time = own + self._moved_ticks
            if self._previous is not None and time < self._previous - self._restart_ticks:
                self._moved_ticks += after - time
                time = after
        self._previous = time if self._previous is None else max(time, self._previous)
        self._duration_ticks = picture.duration or self._default_ticks
        return self._previous
