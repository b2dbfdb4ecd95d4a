"""Ray that is not there, or whose processes or files go away in the middle of a run: one line says so, and soon."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from featray.config import load_config
from tests.fixtures.faults import processes
from tests.fixtures.outputs import tables_of
from tests.fixtures.runs import run_here
from tests.fixtures.s3 import free_port

CONFIG = """
dataset: d
input: {{uris: ["{clips}/*.mp4"]}}
output: {{uri: {out}}}
decode: {{sample: {{every: 2}}, unit_frames: 16}}
model: {{checkpoint: "synthetic:atto"}}
cluster: {{executor: ray, max_failed_fraction: 1}}
"""


@pytest.fixture
def folder():
    """For Ray's sockets, whose paths must be short."""
    place = tempfile.mkdtemp(prefix="fr-")
    yield Path(place)
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def config(clips, tmp_path):
    place = tmp_path / "config.yaml"
    place.write_text(CONFIG.format(clips=clips, out=tmp_path / "out"))
    return place


def start(config, environment):
    command = [sys.executable, "-m", "featray", "run", str(config), "--quiet"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=os.environ | environment, start_new_session=True, **streams)


def test_a_cluster_that_does_not_answer_is_said_at_once(config):
    began = time.monotonic()
    run = start(config, {"RAY_ADDRESS": f"127.0.0.1:{free_port()}"})
    said = run.communicate(timeout=120)[0]
    assert run.returncode == 1
    assert "featray: RAY_ADDRESS=127.0.0.1:" in said and "Connection refused; start it, or unset it" in said
    assert "Traceback" not in said and time.monotonic() - began < 60, "Ray itself tries for minutes"


def session_folder(mark, folder):
    (session,) = (path for path in folder.glob("ray/session_*") if not path.is_symlink())
    shutil.rmtree(session)


def kill(*words):
    def go(mark, folder):
        for process in processes(mark, *words):
            os.kill(process, signal.SIGKILL)

    return go


@pytest.mark.ray
@pytest.mark.parametrize(
    ("happens", "said"),
    [
        (session_folder, "Ray's folder of this session was deleted"),
        pytest.param(kill(b"gcs_server"), "Ray's process gcs_server has ended", marks=pytest.mark.long),
        pytest.param(kill(b"raylet/raylet"), "Ray's process raylet has ended", marks=pytest.mark.long),
    ],
    ids=["session folder", "gcs_server", "raylet"],
)
def test_what_ray_needs_goes_away_in_the_middle(config, folder, tmp_path, happens, said):
    printed, code = disturbed(config, folder, tmp_path / "out", lambda run: happens(str(folder), folder))
    assert code == 1, printed
    assert said in printed and "run again: what has landed is kept" in printed
    check_goes_on(config, tmp_path)


def disturbed(config, folder, out, happens):
    """Start a run; when something has landed, let something happen; what it printed, and its exit status."""
    mark = str(folder)
    patient = {"RAY_raylet_start_wait_time_s": "240"}
    run = start(config, {"RAY_TMPDIR": mark, "FEATRAY_TEST": mark, **patient})
    try:
        for _ in range(4000):
            if list((out / "_featray").glob("landing/**/*.arrow")):
                break
            assert run.poll() is None, run.communicate()[0]
            time.sleep(0.1)
        else:
            raise AssertionError("nothing has landed in minutes")
        happens(run)
        printed = run.communicate(timeout=400)[0]
    finally:
        for process in {run.pid, *processes(mark, b"")}:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
    return printed, run.returncode


def check_goes_on(config, tmp_path):
    """Run again, without Ray: the tables are those of a run that nothing happened to."""
    settings = load_config(config)
    run_here(settings)
    calm = settings.model_copy(update={"output": settings.output.model_copy(update={"uri": str(tmp_path / "calm")})})
    run_here(calm)
    expected, found = tables_of(tmp_path / "calm"), tables_of(tmp_path / "out")
    assert found.keys() == expected.keys() and all(found[table].equals(expected[table]) for table in found)
