"""featray and its libraries open no connections on their own: usage reports are not sent."""

import subprocess
import sys

import pytest

from tests.fixtures.network import attempts, watched

PATH = """
import sys
from pathlib import Path
import numpy as np
import huggingface_hub
from featray.extract.child import ChildSettings
from featray.config import DecodeConfig, DetectConfig, InputConfig, cache_dir
from featray.extract.isolation import IsolatedDecoder
from featray.model.engines import open_engine
from featray.model.source import resolve_checkpoint
from featray.extract.plan import VideoTask
from featray.sources.listing import list_videos

(video,) = list_videos(InputConfig(uris=[sys.argv[1]]))
decoder = IsolatedDecoder(ChildSettings(DecodeConfig(sample={"every": 118}), DetectConfig(), {}))
plan = decoder.plan(video)
chips = [chunk.chips for unit in VideoTask(video, "ab" * 32, "").units(plan, {}) for chunk in decoder.chunks(unit)]
decoder.close()
checkpoint = resolve_checkpoint(
    "synthetic:atto", revision=None, sha256=None, accept_license=None, cache_dir=cache_dir()
)
for engine in ("openvino", "torch"):
    run = open_engine(checkpoint, engine=engine, precision="fp32", batch_size=4, cache_dir=cache_dir())
    assert len(run(np.concatenate(chips)).au) == 4
"""


def test_openvino_would_report_by_itself(tmp_path):
    """Shows that the test below can fail."""
    environment = watched(tmp_path)
    subprocess.run([sys.executable, "-c", "import openvino"], env=environment, check=True, timeout=120)
    assert any("google-analytics" in line for line in attempts(tmp_path))
    assert (tmp_path / "home" / "intel").exists()


@pytest.mark.long  # tests/integration/test_no_phone_home.py tests a whole run
def test_decoding_detecting_and_inferring_stay_here(tmp_path, face_clip):
    environment = watched(tmp_path) | {"FEATRAY_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PATH, str(face_clip)]
    subprocess.run(command, env=environment, check=True, timeout=300)
    assert attempts(tmp_path) == []
    assert (tmp_path / "log").read_text().count("watching") >= 2, "the decoding process too"
    assert not (tmp_path / "home" / "intel").exists(), "where OpenVINO keeps the id of whom it reports about"
