"""Frames that a damaged container lost. Packets are made up: what the decoder does with such a file is not shown."""

from __future__ import annotations

import io
from types import SimpleNamespace

from featray.video.holes import Holes
from featray.video.reader import Reader


def test_a_file_that_claims_millions_of_lost_frames_does_not_fill_the_memory() -> None:
    holes = Holes(Reader(io.BytesIO(bytes(10_000))), "matroska")
    lost = []
    for i in range(60):
        pts = i * 1_000_000
        holes.note_packet(SimpleNamespace(pts=pts, pos=100 * i + 1, size=10))
        lost.append(len(list(holes.missing_before(SimpleNamespace(pts=pts, duration=1)))))
    assert lost[1] == 99_999
    assert sum(lost) == 1_000_000
