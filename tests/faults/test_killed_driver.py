"""A run whose driver is killed with SIGKILL, and the run after it."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import duckdb
import pytest

CONFIG = """
dataset: d
input: {{uris: ["{clips}/*.mp4"]}}
output: {{uri: {out}}}
decode: {{sample: {{every: 4}}, unit_frames: 16}}
"""


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


def wait_for_landed(out, count, driver):
    for _ in range(1200):
        if len(list((out / "_featray").glob("landing/**/*.arrow"))) >= count:
            return
        assert driver.process.poll() is None, driver.log.read_text()
        time.sleep(0.1)
    raise AssertionError("nothing landed in two minutes")


def test_the_next_run_finishes_the_work_of_a_killed_one(clips, tmp_path, environment):
    outs = {}
    for name in ("calm", "killed"):
        outs[name] = tmp_path / name
        (tmp_path / f"{name}.yaml").write_text(CONFIG.format(clips=clips, out=outs[name]))
    Driver(tmp_path / "calm.yaml", environment).finish()

    killed = Driver(tmp_path / "killed.yaml", environment)
    wait_for_landed(outs["killed"], 2, killed)
    killed.kill()
    assert not list(outs["killed"].glob("faces/**/*.parquet")), "half a video must not be seen"
    landed = {path: path.stat().st_mtime_ns for path in (outs["killed"] / "_featray").glob("landing/**/*.arrow")}

    Driver(tmp_path / "killed.yaml", environment).finish()
    for table in ("faces", "blendshapes", "mesh", "frames"):
        assert rows(outs["killed"], table) == rows(outs["calm"], table)
    runs = duckdb.connect().sql(f"SELECT status FROM '{outs['killed']}/runs/**/*.parquet' ORDER BY started_at")
    assert runs.fetchall() == [("interrupted",), ("done",)]
    used = (
        duckdb.connect()
        .sql(f"SELECT run_id, count(*) FROM '{outs['killed']}/frames/**/*.parquet' GROUP BY ALL ORDER BY ALL")
        .fetchall()
    )
    assert len(used) == 2 and used[0][1] >= 16 * len(landed) / 2, "what had landed was used, not done again"
    assert {p.name for p in (outs["killed"] / "_featray").rglob("*") if p.is_file() and "commits" not in p.parts} == {
        "output.json"
    }
