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

from tests.fixtures.faults import processes

CONFIG = """
dataset: d
input: {{uris: ["{clips}/*.mp4"]}}
output: {{uri: {out}}}
decode: {{sample: {{every: 2}}, unit_frames: 16}}
model: {{checkpoint: "synthetic:atto"}}
"""
"""Many short units, so that there is work left whenever something is killed; the network is not the subject."""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    return os.environ | {"FEATRAY_CACHE": str(tmp_path_factory.mktemp("cache"))}


class Driver:
    """`featray run` in a process group of its own."""

    def __init__(self, config, environment):
        self.log = config.with_suffix(".log")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "featray", "run", str(config)],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
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
    wait_for(lambda: processes(environment["FEATRAY_CACHE"], *words), driver)
    os.kill(processes(environment["FEATRAY_CACHE"], *words)[0], signal.SIGKILL)


def test_runs_end_what_killed_ones_and_killed_workers_left(clips, tmp_path, environment, request):
    """A driver is killed with all its processes, then a driver alone; then workers of a third run."""
    outs = {}
    for name in ("calm", "killed"):
        outs[name] = tmp_path / name
        (tmp_path / f"{name}.yaml").write_text(CONFIG.format(clips=clips, out=outs[name]))
    Driver(tmp_path / "calm.yaml", environment).finish()

    killed = Driver(tmp_path / "killed.yaml", environment)
    wait_for_landed(outs["killed"], 2, killed)
    killed.kill()
    assert not list(outs["killed"].glob("faces/**/*.parquet")), "half a video must not be seen"
    internal = outs["killed"] / "_featray"
    landed = list(internal.glob("landing/**/*.arrow"))

    alone = Driver(tmp_path / "killed.yaml", environment)
    request.addfinalizer(alone.kill)
    wait_for(lambda: (internal / "leases/d" / release(internal) / "00000002.json").exists(), alone)
    # Workers of the killed run may have landed something after it: what has landed is asked for again.
    wait_for_landed(outs["killed"], len(list(internal.glob("landing/**/*.arrow"))) + 1, alone)
    os.kill(alone.process.pid, signal.SIGSTOP)  # silent for a while, and not dead: it still holds the dataset
    second = Driver(tmp_path / "killed.yaml", environment)
    assert second.process.wait(120) == 1, "two at once"
    assert f"(host {socket.gethostname()}, pid {alone.process.pid}, user " in second.log.read_text()
    alone.process.kill()  # Ray's processes find out by themselves
    alone.process.wait(30)

    last = Driver(tmp_path / "killed.yaml", environment)
    kill_one(environment, last, b"featray.extract.child")
    kill_one(environment, last, b"ray::MapWorker(MapBatches(DecodeDetect", b"ray::MapWorker(MapBatches(Infer")
    last.finish()
    for table in ("faces", "blendshapes", "mesh", "frames"):
        assert rows(outs["killed"], table) == rows(outs["calm"], table)
    runs = duckdb.connect().sql(f"SELECT status FROM '{outs['killed']}/runs/**/*.parquet' ORDER BY started_at")
    assert runs.fetchall() == [("interrupted",), ("interrupted",), ("done",)]
    used = (
        duckdb.connect()
        .sql(f"SELECT run_id, count(*) FROM '{outs['killed']}/frames/**/*.parquet' GROUP BY ALL ORDER BY ALL")
        .fetchall()
    )
    assert len(used) == 3 and used[0][1] >= 16 * len(landed) / 2, "what had landed was used, not done again"
    inside = {path.relative_to(internal).parts[0] for path in internal.rglob("*.*") if path.is_file()}
    assert inside == {"commits", "leases", "output.json"}


def test_a_run_that_is_told_to_stop_ends_in_order_and_is_gone_on_with(clips, tmp_path, environment, report):
    """SIGTERM, as schedulers and `ray job stop` send it."""
    outs = {}
    for name in ("calm", "stopped"):
        outs[name] = tmp_path / name
        (tmp_path / f"{name}.yaml").write_text(CONFIG.format(clips=clips, out=outs[name]))
    driver = Driver(tmp_path / "stopped.yaml", environment)
    wait_for_landed(outs["stopped"], 2, driver)
    began = time.monotonic()
    os.kill(driver.process.pid, signal.SIGTERM)
    (lease,) = (outs["stopped"] / "_featray").glob("leases/**/*.json")
    while not json.loads(lease.read_text())["released"]:
        assert time.monotonic() - began < 30, "the lease is given back"
        time.sleep(0.02)
    accounted = time.monotonic() - began
    assert driver.process.wait(60) == 128 + signal.SIGTERM, driver.log.read_text()
    report(
        f"SIGTERM to a driver: lease given back after {accounted:.1f} s, gone after {time.monotonic() - began:.1f} s"
    )
    assert "\nfeatray: stopped; run the same command again to go on from here\n" in driver.log.read_text()
    assert "Traceback" not in driver.log.read_text()
    kept = outs["stopped"] / "_featray"
    assert not list(kept.glob("running/**/*.json")), "the run has its last word"
    for _ in range(100):
        if not (left := processes(environment["FEATRAY_CACHE"], b"featray.extract.child", b"ray::")):
            break
        time.sleep(0.1)
    assert left == []
    landed = len(list(kept.glob("landing/**/*.arrow")))
    assert landed >= 2

    Driver(tmp_path / "stopped.yaml", environment).finish()
    Driver(tmp_path / "calm.yaml", environment).finish()
    for table in ("faces", "mesh", "frames"):
        assert rows(outs["stopped"], table) == rows(outs["calm"], table)
    runs = duckdb.connect().sql(f"SELECT status FROM '{outs['stopped']}/runs/**/*.parquet' ORDER BY started_at")
    assert runs.fetchall() == [("interrupted",), ("done",)]
    first = f"SELECT count(*) FROM '{outs['stopped']}/frames/**/*.parquet' GROUP BY run_id"
    assert sorted(count for (count,) in duckdb.connect().sql(first).fetchall())[0] >= 16, "what had landed was used"
