"""A unit of a short clip, and a decoder with the settings of the test module."""

from __future__ import annotations

import pytest

from featray.config import InputConfig
from featray.extract.isolation import IsolatedDecoder
from featray.extract.plan import UnitTask
from featray.sources.listing import list_videos
from featray.video.units import Unit


@pytest.fixture
def task(short_clip):
    (video,) = list_videos(InputConfig(uris=[str(short_clip)]))
    return UnitTask(video, "key", "shard", Unit(0), 1, 1)


@pytest.fixture
def decoder(request):
    decoder = IsolatedDecoder(request.module.SETTINGS)
    yield decoder
    decoder.close()
