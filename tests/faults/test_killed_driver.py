"""A run whose driver is killed with SIGKILL, and the run after it."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

import duckdb
import pytest

from featray.extract.forkserver import CHILD_NAME
from tests.fixtures.faults import processes
from tests.fixtures.plugin import LONG
from tests.fixtures.runs import make_config, run_here

CONFIG = """
dataset: d
input: {{uris: ["{clips}/*.mp4"]}}
output: {{uri: {out}}}
decode: {{sample: {{every: 2}}, unit_frames: 16}}
model: {{checkpoint: "synthetic:atto"}}
cluster: {{executor: {executor}}}
"""
"""Many short units, so that work is left when something is killed; the network is not tested here."""


MARK = "FEATRAY_TEST"
"""Set in the environment of a test's own processes, so that it kills no other's."""


@pytest.fixture
def environment(tmp_path):
    return os.environ | {MARK: str(tmp_path)}


@pytest.fixture(scope="module")
def calm(clips, tmp_path_factory):
    """Return the tables of an undisturbed run; they do not depend on the executor."""
    out = tmp_path_factory.mktemp("calm") / "out"
    config = {"sample": {"every": 2}, "unit_frames": 16}
    run_here(make_config([f"{clips}/*.mp4"], out, dataset="d", decode=config))
    return out


class Driver:
    """Runs `featray run` in its own process group."""

    def __init__(self, config, environment):
        self.log = config.with_suffix(".log")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "featray", "run", str(config)],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # If the tests run in the background, they ignore Ctrl-C, and a child would inherit that.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )

    def finish(self):
        try:
            assert self.process.wait(300) == 0, self.log.read_text()
        finally:
            self.kill()

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)


def rows(out, table):
    order = "video_id, pts_us" + (", face_index" if table in ("faces", "blendshapes", "mesh") else "")
    sql = f"SELECT * EXCLUDE (run_id) FROM '{out}/{table}/**/*.parquet' ORDER BY {order}"
    return duckdb.connect().sql(sql).fetchall()


def wait_for(condition, driver):
    for _ in range(1200):
        if condition():
            return
        assert driver.process.poll() is None, driver.log.read_text()
        time.sleep(0.1)
    raise AssertionError("nothing happened in two minutes")


def wait_for_landed(out, count, driver):
    wait_for(lambda: len(list((out / "_featray").glob("landing/**/*.arrow"))) >= count, driver)


def release(internal):
    (found,) = (path.name for path in (internal / "leases/d").iterdir())
    return found


def kill_one(environment, driver, *words):
    wait_for(lambda: processes(environment[MARK], *words), driver)
    os.kill(processes(environment[MARK], *words)[0], signal.SIGKILL)


def _leave_alone(folder, out, environment, request):
    """Stop a driver, and check that a second one is refused; then kill the first one, but not its processes."""
    internal = out / "_featray"
    alone = Driver(folder / "killed.yaml", environment)
    request.addfinalizer(alone.kill)
    wait_for(lambda: (internal / "leases/d" / release(internal) / "00000002.json").exists(), alone)
    # Workers of the killed run may have landed files after it, so the landed files are listed again.
    wait_for_landed(out, len(list(internal.glob("landing/**/*.arrow"))) + 1, alone)
    os.kill(alone.process.pid, signal.SIGSTOP)  # no heartbeat for a while, but not dead: it still holds the dataset
    second = Driver(folder / "killed.yaml", environment)
    assert second.process.wait(120) == 1, "two at once"
    assert f"(host {socket.gethostname()}, pid {alone.process.pid}, user " in second.log.read_text()
    alone.process.kill()
    alone.process.wait(30)


EXECUTORS = pytest.mark.parametrize("executor", ["local", pytest.param("ray", marks=pytest.mark.ray)])


@EXECUTORS
def test_runs_end_what_killed_ones_and_killed_workers_left(clips, calm, executor, tmp_path, environment, request):
    """A driver is killed with all its processes, then a driver alone, then workers of a third run."""
    outs = {"calm": calm, "killed": tmp_path / "killed"}
    (tmp_path / "killed.yaml").write_text(CONFIG.format(clips=clips, out=outs["killed"], executor=executor))
    # Resuming depends only on files, which are the same for every executor; test_cluster.py kills workers of Ray.
    resuming = executor if LONG else "local"
    (tmp_path / "last.yaml").write_text(CONFIG.format(clips=clips, out=outs["killed"], executor=resuming))

    killed = Driver(tmp_path / "killed.yaml", environment)
    wait_for_landed(outs["killed"], 2, killed)
    killed.kill()
    assert not list(outs["killed"].glob("faces/**/*.parquet")), "half a video must not be seen"
    internal = outs["killed"] / "_featray"
    landed = list(internal.glob("landing/**/*.arrow"))

    killed_runs = 1
    if executor == "local" or LONG:  # leases do not depend on the executor, and Ray takes ten seconds to start
        _leave_alone(tmp_path, outs["killed"], environment, request)
        killed_runs = 2

    last = Driver(tmp_path / "last.yaml", environment)
    kill_one(environment, last, CHILD_NAME.encode())
    kill_one(environment, last, b"featray.extract.forkserver")
    if resuming == "ray":
        kill_one(environment, last, b"ray::MapWorker(MapBatches(DecodeDetect", b"ray::MapWorker(MapBatches(Infer")
    last.finish()
    for table in ("faces", "blendshapes", "mesh", "frames"):
        assert rows(outs["killed"], table) == rows(outs["calm"], table)
    runs = duckdb.connect().sql(f"SELECT status FROM '{outs['killed']}/runs/**/*.parquet' ORDER BY started_at")
    assert runs.fetchall() == [("interrupted",)] * killed_runs + [("done",)]
    used = (
        duckdb.connect()
        .sql(f"SELECT run_id, count(*) FROM '{outs['killed']}/frames/**/*.parquet' GROUP BY ALL ORDER BY ALL")
        .fetchall()
    )
    assert len(used) == killed_runs + 1 and used[0][1] >= 16 * len(landed) / 2, "what had landed was used"
    inside = {path.relative_to(internal).parts[0] for path in internal.rglob("*.*") if path.is_file()}
    assert inside == {"commits", "leases", "output.json"}


@pytest.mark.parametrize(
    ("executor", "sent", "status"),
    [
        pytest.param("local", signal.SIGTERM, 143, marks=pytest.mark.long),
        ("local", signal.SIGINT, 130),
        # test_job_submit.py stops a job as well
        pytest.param("ray", signal.SIGTERM, 143, marks=[pytest.mark.ray, pytest.mark.long]),
    ],
)
def test_a_run_that_is_told_to_stop_ends_in_order_and_is_gone_on_with(
    clips, calm, executor, sent, status, tmp_path, environment, report
):
    """SIGTERM, which schedulers and `ray job stop` send, and Ctrl-C. The local executor resumes the run."""
    outs = {"calm": calm, "stopped": tmp_path / "stopped"}
    (tmp_path / "stopped.yaml").write_text(CONFIG.format(clips=clips, out=outs["stopped"], executor=executor))
    (tmp_path / "again.yaml").write_text(CONFIG.format(clips=clips, out=outs["stopped"], executor="local"))
    driver = Driver(tmp_path / "stopped.yaml", environment)
    wait_for_landed(outs["stopped"], 2, driver)
    began = time.monotonic()
    os.kill(driver.process.pid, sent)
    (lease,) = (outs["stopped"] / "_featray").glob("leases/**/*.json")
    while not json.loads(lease.read_text())["released"]:
        assert time.monotonic() - began < 30, "the lease is given back"
        time.sleep(0.02)
    accounted = time.monotonic() - began
    assert driver.process.wait(60) == status, driver.log.read_text()
    report(
        f"{sent.name} to a driver ({executor}): lease given back after {accounted:.1f} s, "
        f"gone after {time.monotonic() - began:.1f} s"
    )
    assert "\nfeatray: stopped; run the same command again to resume\n" in driver.log.read_text()
    assert "Traceback" not in driver.log.read_text()
    kept = outs["stopped"] / "_featray"
    assert not list(kept.glob("running/**/*.json")), "the run has its last word"
    for _ in range(100):
        if not (left := processes(environment[MARK], b"featray.extract.forkserver", b"ray::")):
            break
        time.sleep(0.1)
    assert left == []
    landed = len(list(kept.glob("landing/**/*.arrow")))
    assert landed >= 2

    Driver(tmp_path / "again.yaml", environment).finish()
    for table in ("faces", "mesh", "frames"):
        assert rows(outs["stopped"], table) == rows(outs["calm"], table)
    runs = duckdb.connect().sql(f"SELECT status FROM '{outs['stopped']}/runs/**/*.parquet' ORDER BY started_at")
    assert runs.fetchall() == [("interrupted",), ("done",)]
    first = f"SELECT count(*) FROM '{outs['stopped']}/frames/**/*.parquet' GROUP BY run_id"
    assert sorted(count for (count,) in duckdb.connect().sql(first).fetchall())[0] >= 16, "what had landed was used"
