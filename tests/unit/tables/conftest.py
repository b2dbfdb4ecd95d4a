"""Outputs that the real chain has written, once; tests work on copies."""

import os
import shutil
from pathlib import Path

import pytest

from featray.model.synth import SYNTHETIC_VARIANTS, write_synthetic
from featray.tables.layout import Output, Partition, list_partitions, open_output
from tests.chain import Killed, KilledSession, run_here, small_config

SPARSE = {"sample": {"every": 48}, "unit_frames": 16}


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    before = os.environ.get("FEATRAY_CACHE")
    os.environ["FEATRAY_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    os.environ.pop("FEATRAY_CACHE", None)
    if before is not None:
        os.environ["FEATRAY_CACHE"] = before


@pytest.fixture(scope="session")
def small_network(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("network") / "atto.safetensors"
    write_synthetic(path, config=SYNTHETIC_VARIANTS["atto"])
    return path


@pytest.fixture(scope="session")
def inputs(clips, tmp_path_factory) -> Path:
    """Two people, a clip without a face, one that breaks off, one that is no video."""
    folder = tmp_path_factory.mktemp("in")
    for name in ("anna.mp4", "ben.mp4"):
        shutil.copy(clips / "face.mp4", folder / name)
    shutil.copy(clips / "no_face.mp4", folder / "empty.mp4")
    whole = (clips / "face.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.mp4").write_text("no video\n" * 50)
    return folder


@pytest.fixture(scope="session")
def published(inputs, small_network, tmp_path_factory) -> Path:
    """Three runs into one release: anna; ben and the odd ones; nothing new."""
    out = tmp_path_factory.mktemp("published") / "out"
    run_here(small_config([inputs / "anna.mp4"], out, small_network, decode=SPARSE))
    run_here(small_config([f"{inputs}/*.mp4"], out, small_network, decode=SPARSE))
    return out


@pytest.fixture(scope="session")
def landed(inputs, small_network, tmp_path_factory) -> Path:
    """A run whose driver was killed when everything had landed and nothing was published."""
    out = tmp_path_factory.mktemp("landed") / "out"
    with pytest.raises(Killed):
        run_here(small_config([f"{inputs}/*.mp4"], out, small_network, decode=SPARSE), KilledSession)
    return out


@pytest.fixture
def out(published, tmp_path) -> Output:
    """A copy of the published output."""
    shutil.copytree(published, tmp_path / "out")
    return open_output(str(tmp_path / "out"))


@pytest.fixture
def partition(out) -> Partition:
    (only,) = list_partitions(out)
    return only
