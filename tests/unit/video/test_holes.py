"""Frames that a damaged container lost. Packets are made up: what the decoder does with such a file is not shown."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

from featray.video.holes import Holes
from featray.video.pictures import Pictures
from featray.video.reader import Reader
from featray.video.shape import PixelShapes


def test_a_file_that_claims_millions_of_lost_frames_does_not_fill_the_memory() -> None:
    holes = Holes(Reader(io.BytesIO(bytes(10_000))), "matroska")
    lost = []
    for i in range(60):
        pts = i * 1_000_000
        holes.note_packet(SimpleNamespace(pts=pts, pos=100 * i + 1, size=10))
        lost.append(len(list(holes.missing_before(SimpleNamespace(pts=pts, duration=1)))))
    assert lost[1] == 99_999
    assert sum(lost) == 1_000_000


def test_theora_with_long_gaps_between_its_packets_does_not_fill_the_memory() -> None:
    context = SimpleNamespace(name="theora", sample_aspect_ratio=None)
    stream: Any = SimpleNamespace(codec_context=context, sample_aspect_ratio=None)
    file = SimpleNamespace(file=Reader(io.BytesIO()))
    container: Any = SimpleNamespace(format=SimpleNamespace(name="ogg"), file=file)
    pictures = Pictures(container, stream, PixelShapes(stream))
    for i in range(60):
        pictures._expect_up_to(i * 1_000_000)
        pictures._next_ticks = i * 1_000_000 + 1
    assert len(pictures.losses.silent) == 1_000_000
