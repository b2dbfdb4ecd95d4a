"""The corpus, made once a session, and full decodes of it, each made once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from featray.config import DecodeConfig
from featray.video.container import open_video
from featray.video.decode import DecodeAccount, decode_pyav
from featray.video.scan import scan_packets
from featray.video.units import WHOLE_VIDEO, Sample, Unit, cut_units
from tests.unit.video.corpus import Corpus


class Seen(NamedTuple):
    """A frame as the tests compare it."""

    index: int
    pts_us: int
    keyframe: bool
    md5: str


Decoded = tuple[list[Seen], list[DecodeAccount]]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return Corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def decode_whole() -> Callable[[Path], Decoded]:
    return cache(lambda path: decode(path, WHOLE_VIDEO))


def decode(path: Path, units: tuple[Unit, ...], sample: Sample = "all", max_pixels: int = 33_177_600) -> Decoded:
    """All sampled frames of some units, in order, and an account a unit."""
    frames, accounts = [], []
    settings = DecodeConfig(sample=sample, max_pixels=max_pixels)
    for unit in units:
        account = DecodeAccount()
        accounts.append(account)
        with path.open("rb") as file:
            for frame in decode_pyav(file, unit, settings, account):
                md5 = hashlib.md5(frame.rgb().tobytes()).hexdigest()
                frames.append(Seen(frame.index, frame.pts_us, frame.keyframe, md5))
    return frames, accounts


def cut(path: Path, sample: Sample, unit_frames: int) -> tuple[tuple[Unit, ...], bool]:
    """The units of a video, and whether its times were trusted."""
    with path.open("rb") as file, open_video(file) as (container, stream):
        index = scan_packets(container, stream)
        return cut_units(index, stream.time_base, sample, unit_frames), index.trusted
