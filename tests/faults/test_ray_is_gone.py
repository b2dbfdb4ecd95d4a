"""If Ray is missing, or its processes or files disappear during a run, the run ends soon with one line."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import MappingProxyType

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
    """Yield a folder for Ray's sockets, whose paths must be short."""
    place = tempfile.mkdtemp(prefix="fr-")
    yield Path(place)
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def config(clips, tmp_path):
    place = tmp_path / "config.yaml"
    place.write_text(CONFIG.format(clips=clips, out=tmp_path / "out"))
    return place


def start(config, environment, before=()):
    command = [*before, sys.executable, "-m", "featray", "run", str(config), "--quiet"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=os.environ | environment, start_new_session=True, **streams)


def test_a_cluster_that_does_not_answer_is_said_at_once(config):
    began = time.monotonic()
    run = start(config, {"RAY_ADDRESS": f"127.0.0.1:{free_port()}"})
    said = run.communicate(timeout=120)[0]
    assert run.returncode == 1
    assert "featray: RAY_ADDRESS=127.0.0.1:" in said and "Connection refused; start it, or unset RAY_ADDRESS" in said
    assert "Traceback" not in said and time.monotonic() - began < 60, "Ray itself tries for minutes"


def session_folder(mark, folder):
    (session,) = (path for path in folder.glob("ray/session_*") if not path.is_symlink())
    for _ in range(100):  # Ray's processes still write logs into it
        if session.exists():
            shutil.rmtree(session, ignore_errors=True)


def kill(*words):
    def go(mark, folder):
        for process in processes(mark, *words):
            os.kill(process, signal.SIGKILL)

    return go


def freeze_raylet(mark, folder):
    """Stop it until it is taken for dead; it then ends, but the answers that Ray's driver waits for never come."""
    raylets = processes(mark, b"raylet/raylet")
    for process in raylets:
        os.kill(process, signal.SIGSTOP)
    time.sleep(20)
    for process in raylets:
        os.kill(process, signal.SIGCONT)


@pytest.mark.ray
@pytest.mark.parametrize(
    ("happens", "said"),
    [
        (freeze_raylet, "Ray's only node did not answer for long"),
        (session_folder, "Ray's session folder was deleted"),
        pytest.param(kill(b"gcs_server"), "Ray's process gcs_server has ended", marks=pytest.mark.long),
        pytest.param(kill(b"raylet/raylet"), "Ray's process raylet has ended", marks=pytest.mark.long),
    ],
    ids=["frozen raylet", "session folder", "gcs_server", "raylet"],
)
def test_what_ray_needs_goes_away_in_the_middle(config, folder, tmp_path, happens, said):
    checks = {f"RAY_health_check_{name}_ms": "1000" for name in ("initial_delay", "period", "timeout")}
    settings = checks if happens is freeze_raylet else {}
    printed, code = disturbed(config, folder, tmp_path / "out", lambda run: happens(str(folder), folder), (), settings)
    assert code == 1, printed
    assert said in printed and "run again: what has landed is kept" in printed
    check_goes_on(config, tmp_path)


def small_shared_memory(size):
    """Return a command prefix that gives a command its own /dev/shm, invisible to the rest of the machine."""
    script = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"'
    return "unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"


@pytest.fixture(scope="module")
def _may_mount():
    tried = [*small_shared_memory("64k"), "true"]
    if shutil.which("unshare") is None or subprocess.run(tried, capture_output=True).returncode:
        pytest.skip("a /dev/shm of its own needs root, and a container that may mount")


def fill_shared_memory(run):
    """Fill it as another program on the same machine would."""
    with pytest.raises(OSError, match="No space left"), open(f"/proc/{run.pid}/root/dev/shm/full", "wb", 0) as file:
        while True:
            file.write(bytes(1 << 20))


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("_may_mount")
def test_shared_memory_is_full_from_the_start(config, folder, tmp_path):
    """Ray then keeps its objects in its temporary folder; if it fails before that, one line gives the reason."""
    mark = str(folder)
    patient = {"RAY_TMPDIR": mark, "FEATRAY_TEST": mark, "RAY_raylet_start_wait_time_s": "600"}
    run = start(config, patient, small_shared_memory("64k"))
    printed = run.communicate(timeout=900)[0]
    assert run.returncode in (0, 3) or (run.returncode == 1 and "/dev/shm is full" in printed), printed
    assert "Traceback" not in printed
    check_goes_on(config, tmp_path)


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("_may_mount")
def test_shared_memory_is_filled_in_the_middle(config, folder, tmp_path):
    before = small_shared_memory("256m")
    printed, code = disturbed(config, folder, tmp_path / "out", fill_shared_memory, before)
    named = code == 1 and "/dev/shm is full" in printed and "run again: what has landed is kept" in printed
    assert code in (0, 3) or named, printed  # Ray may already have allocated the memory that it needs
    assert "Traceback" not in printed
    check_goes_on(config, tmp_path)


def disturbed(config, folder, out, happens, before=(), settings=MappingProxyType({})):
    """Start a run, call `happens` when something has landed, and return the run's output and exit status."""
    mark = str(folder)
    patient = {"RAY_raylet_start_wait_time_s": "600"}
    run = start(config, {"RAY_TMPDIR": mark, "FEATRAY_TEST": mark, **patient, **settings}, before)
    try:
        for _ in range(9000):
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
    """Run again, without Ray, and check that the tables are those of an undisturbed run."""
    settings = load_config(config)
    run_here(settings)
    calm = settings.model_copy(update={"output": settings.output.model_copy(update={"uri": str(tmp_path / "calm")})})
    run_here(calm)
    expected, found = tables_of(tmp_path / "calm"), tables_of(tmp_path / "out")
    assert found.keys() == expected.keys() and all(found[table].equals(expected[table]) for table in found)
