"""Clips with known faces, made once a session, and what detection on every frame finds in them."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from featray.config import DecodeConfig, DetectConfig
from featray.faces.detector import Detector
from featray.faces.detectors import open_detector
from featray.faces.stride import SeenFrame, find_faces
from featray.video.decode import DecodeAccount, decode_pyav
from featray.video.frame import Frame
from featray.video.units import WHOLE_VIDEO
from tests.unit.faces.scenes import Clip, Props, load_props, write_clips


@pytest.fixture(scope="session")
def props(clips: Path) -> Props:
    return load_props(clips)


@pytest.fixture(scope="session")
def scenes(props: Props, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Clip]:
    return write_clips(tmp_path_factory.mktemp("scenes"), props)


@pytest.fixture(scope="session")
def detector() -> Detector:
    return open_detector(DetectConfig(input_px=320))


@pytest.fixture(scope="session")
def dense(detector: Detector) -> Callable[[Path], list[SeenFrame]]:
    return cache(lambda path: list(find_faces(all_frames(path), detector, every=1)))


def all_frames(path: Path) -> Iterator[Frame]:
    with path.open("rb") as file:
        yield from decode_pyav(file, WHOLE_VIDEO[0], DecodeConfig(), DecodeAccount())
