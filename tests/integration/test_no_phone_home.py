"""A whole run in which no Python process, Ray's own included, may connect to another machine."""

import json
import subprocess
import sys

import pytest

from tests.fixtures.network import attempts, watched


@pytest.mark.parametrize(
    ("executor", "processes"), [("local", 2), pytest.param("ray", 5, marks=[pytest.mark.ray, pytest.mark.long])]
)
def test_a_run_stays_on_its_machine(executor, processes, tmp_path, face_clip):
    """The environment does not switch off any report; featray does."""
    config = tmp_path / "c.yaml"
    config.write_text(
        f"dataset: d\ninput: {{uris: [{json.dumps(str(face_clip))}]}}\noutput: {{uri: {tmp_path}/out}}\n"
        "decode: {sample: {every: 118}}\nmodel: {checkpoint: 'synthetic:atto'}\n"
    )
    environment = watched(tmp_path) | {"FEATRAY_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "featray", "run", str(config), "--executor", executor]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "1 video: 1 ok" in done.stdout
    assert "Warning" not in done.stderr, "one video leaves an inference worker idle, which Ray would tell the user"
    assert attempts(tmp_path) == []
    assert (tmp_path / "log").read_text().count("watching") >= processes, (
        "the driver and the decoder; Ray's services and workers"
    )
