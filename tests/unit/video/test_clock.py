"""Times of pictures whose containers lie about them."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace

import pytest

from featray.video.clock import Clock

_MILLISECOND = Fraction(1, 1000)


def _times_us(*pictures: tuple[int | None, int]) -> list[int]:
    clock = Clock(_MILLISECOND, Fraction(25))
    shown = [SimpleNamespace(pts=pts, dts=pts, duration=duration) for pts, duration in pictures]
    return [round(clock.ticks(picture) * _MILLISECOND * 1_000_000) for picture in shown]


@pytest.mark.parametrize(
    "pictures",
    [
        [(10_000, 1 << 60), (0, 40), (40, 40)],  # a duration of 36 million years, then an appended recording
        [(0, (1 << 63) - 1), (None, 40)],
        [(4_600_000_000_000_000, 40), (0, 40)] * 4,  # each restart moves the rest by 146,000 years
    ],
)
def test_absurd_times_fit_in_the_tables(pictures: list[tuple[int | None, int]]) -> None:
    times = _times_us(*pictures)
    assert times == sorted(times)
    assert times[-1] < 1 << 62


def test_an_appended_recording_follows_the_first_one() -> None:
    assert _times_us((10_000, 40), (0, 40), (40, 40)) == [10_000_000, 10_040_000, 10_080_000]
