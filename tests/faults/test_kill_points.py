"""The driver is killed with SIGKILL before each of its writes to the storage; then the job is run again.

A death at any time between two writes leaves the same storage, so one death before each write covers all moments. On a
disk, creating the temporary file, renaming it and deleting are separate writes; on S3, each PUT and DELETE is one.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featray.schema import DERIVED_TABLES, PER_VIDEO_TABLES, SORT_KEYS
from featray.tables.commits import read_commits
from featray.tables.layout import Partition, open_output
from tests.fixtures import s3
from tests.fixtures.dying_driver import UNITS
from tests.fixtures.plugin import LONG

KEYS = {"key": "test", "secret": "test"}
TIMES = {"run_id", "published_at", "at"}
"""Columns that may differ between a run that was killed and one that was not."""


class Drivers:
    """Starts drivers; see `dying_driver`."""

    def __init__(self):
        command = [sys.executable, "-m", "tests.fixtures.dying_driver"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, config, log, *, kill_at=None, kill_after_seconds=None, worker_dies_at=None):
        """Return the exit status of a driver; if negative, the signal that ended it."""
        order = {"config": config, "kill_at": kill_at, "worker_dies_at": worker_dies_at, "log": str(log)}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        pid = int(self.process.stdout.readline())
        if kill_after_seconds is not None:
            time.sleep(kill_after_seconds)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(int(self.process.stdout.readline()))
        assert status in (0, -signal.SIGKILL), log.read_text()
        return status

    def close(self):
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def drivers():
    made = Drivers()
    yield made
    made.close()


@pytest.fixture(scope="module")
def endpoint():
    with s3.server() as url:
        fsspec.filesystem("s3", endpoint_url=url, **KEYS).mkdir("tables")
        yield url


class Scene:
    """Inputs and outputs in one storage; `first` is a first run, `second` one over changed inputs."""

    def __init__(self, drivers, folder: Path, uri: str, options: dict):
        self.drivers, self.folder, self.uri, self.options = drivers, folder, uri, options
        self.fs = fsspec.filesystem("s3" if uri.startswith("s3") else "file", **options)
        self.log = folder / "log"
        self.inputs = folder / "in"
        self.inputs.mkdir()
        self.videos("a", "b", "c", "d")
        (self.inputs / "d.mp4.fails").touch()
        self.calm = {"first": self.undisturbed("first")}
        self.steps = {"first": self.counted_steps()}
        self.fs.copy(self.out("first"), self.out("base"), recursive=True)

    def change(self):
        """Change the inputs between the first and the second run: b is new, c is gone, d can be read, e is added."""
        self.videos("b", "e", size=7)
        (self.inputs / "c.mp4").unlink(missing_ok=True)
        (self.inputs / "d.mp4.fails").unlink(missing_ok=True)
        self.fs.copy(self.out("base"), self.out("second"), recursive=True)
        self.calm["second"] = self.undisturbed("second")
        self.steps["second"] = self.counted_steps()

    def videos(self, *names, size=5):
        for name in names:
            (self.inputs / f"{name}.mp4").write_bytes(b"v" * size)
            os.utime(self.inputs / f"{name}.mp4", (1, 1))

    def out(self, name):
        return f"{self.uri}/{name}"

    def config(self, name):
        more = {"drop_deleted": True, "retry_failed": True} if name.startswith("second") else {}
        return {
            "dataset": "d",
            "input": {"uris": [f"{self.inputs}/*.mp4"]},
            "output": {"uri": self.out(name), "storage_options": self.options, "tables": ["faces", "mesh"]},
            "run": {"max_attempts": 1, **more},
        }

    def undisturbed(self, name):
        self.log.write_text("")
        assert self.drivers.run(self.config(name), self.log) == 0
        return self.tables(name)

    def counted_steps(self):
        (line,) = [line for line in self.log.read_text().splitlines() if line.startswith("steps")]
        return int(line.split()[1])

    def read(self, path, columns=None):
        with self.fs.open(path) as file:
            return pq.read_table(file, columns=columns, partitioning=None)

    def tables(self, name):
        """Return rows of all existing Parquet files, not only of those that commits name: there must be no others."""
        found = {}
        for table in (*PER_VIDEO_TABLES, *DERIVED_TABLES):
            self.fs.invalidate_cache()
            paths = sorted(self.fs.find(f"{self.out(name)}/{table}"))
            parts = [self.read(path) for path in paths]
            if parts:
                rows = pa.concat_tables(parts)
                rows = rows.drop_columns([c for c in rows.column_names if c in TIMES])
                found[table] = rows.sort_by([(key, "ascending") for key in SORT_KEYS[table]])
        return found

    def killed_and_again(self, phase, **when):
        """Kill a run, run again, and check everything in the storage."""
        name = f"{phase}-killed"
        if self.fs.exists(self.out(name)):
            self.fs.rm(self.out(name), recursive=True)
        if phase == "second":
            self.fs.copy(self.out("base"), self.out(name), recursive=True)
        self.log.write_text("")
        killed = self.drivers.run(self.config(name), self.log, **when)
        if killed == 0:
            assert "kill_at" not in when, "fewer writes than in the undisturbed run"
            self.check(name, self.calm[phase], self.log.read_text())
        done_before = Counter(self.decoded())
        landed = self.landed_units(name)
        assert self.drivers.run(self.config(name), self.log) == 0
        again = Counter(self.decoded()) - done_before
        text = self.log.read_text()
        assert not landed & set(again), f"landed work was done again\n{text}"
        assert max((done_before + again).values()) <= 2, text
        self.check(name, self.calm[phase], text)

    def decoded(self):
        """Yield the units decoded so far: name of the landing folder, and unit."""
        for line in self.log.read_text().splitlines():
            if line.startswith("decoded"):
                yield tuple(line.split()[1:])

    def landed_units(self, name):
        """Return the units that are complete in the landing area."""
        self.fs.invalidate_cache()
        there = {tuple(path.split("/")[-2:]) for path in self.fs.find(f"{self.out(name)}/_featray/landing")}
        planned = {folder for folder, file in there if file == "plan.json"}
        return {(folder, file[1:7]) for folder, file in there if file.endswith("-last.arrow")} & {
            (folder, file[1:7]) for folder, file in there if folder in planned
        }

    def check(self, name, calm, text):
        there = self.tables(name)
        assert there.keys() == calm.keys(), text
        for table, rows in there.items():
            assert rows.equals(calm[table]), f"{table}\n{text}"
        partition = Partition(open_output(self.out(name), self.options), "d", "made-up-1")
        commits = read_commits(partition)
        named = {partition.output.root.child(f.path).path: f for c in commits for f in c.files}
        self.fs.invalidate_cache()
        root = partition.output.root.path
        # A death while the temporary file of the very first object or of a lease is written leaves that file, because
        # another driver may be writing it. A later lease removes those of leases once they are 90 s old.
        files = {f for f in self.fs.find(root) if "/_featray/.output.json." not in f and "/.00" not in f}
        assert {f for f in files if "/_featray/" not in f} == set(named), text
        inside = Counter(f.removeprefix(f"{root}/_featray/").split("/")[0] for f in files if "/_featray/" in f)
        assert inside.keys() == {"commits", "leases", "output.json"} and inside["leases"] == 1, text
        videos = [video.video_id for commit in commits for video in commit.videos]
        assert len(videos) == len(set(videos)) == len(calm["videos"])
        assert not any(commit.rewrites for commit in commits)
        runs = pa.concat_tables(
            self.read(path, ["run_id", "status"]) for path, file in named.items() if file.table == "runs"
        ).to_pylist()
        assert {row["status"] for row in runs} <= {"done", "done_with_failures", "interrupted"}
        for table in PER_VIDEO_TABLES:
            paths = [path for path, file in named.items() if file.table == table]
            for path in paths:
                used = self.read(path, ["run_id"])["run_id"]
                assert set(used.to_pylist()) <= {row["run_id"] for row in runs}


@pytest.fixture(scope="module", params=["disk", "s3"])
def scene(request, drivers, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "disk":
        yield Scene(drivers, folder, str(folder / "out"), {})
    else:
        yield Scene(drivers, folder, "s3://tables/t", {"endpoint_url": request.getfixturevalue("endpoint"), **KEYS})


@pytest.fixture(scope="module")
def changed(scene):
    """Return the scene after its inputs changed; first runs are not compared after this."""
    scene.change()
    return scene


def points(scene, phase):
    """Return every twentieth step, on S3 every fortieth, to save time; all of them in `make test-long`."""
    every = 1 if LONG else 20 if scene.uri.startswith("/") else 40
    return range(1, scene.steps[phase] + 1, every)


def test_a_first_run_is_killed_at_each_write(scene, report):
    began = time.monotonic()
    for step in points(scene, "first"):
        scene.killed_and_again("first", kill_at=step)
    report(
        f"{len(points(scene, 'first'))} of {scene.steps['first']} writes of a first run on {scene.uri[:3]}: "
        f"{time.monotonic() - began:.0f} s"
    )


def test_a_run_that_replaces_retries_and_drops_is_killed_at_each_write(changed, report):
    scene = changed
    uris = scene.calm["second"]["videos"]["uri"].to_pylist()
    assert sorted(uri[-5] for uri in uris) == ["a", "b", "d", "e"]
    assert scene.calm["second"]["videos"]["status"].to_pylist() == ["ok"] * 4
    assert scene.calm["second"]["frames"].num_rows == 4 * UNITS * 3
    began = time.monotonic()
    for step in points(scene, "second"):
        scene.killed_and_again("second", kill_at=step)
    report(
        f"{len(points(scene, 'second'))} of {scene.steps['second']} writes of a second run on {scene.uri[:3]}: "
        f"{time.monotonic() - began:.0f} s"
    )


def test_a_run_is_killed_at_random_times(changed):
    draw = random.Random(7)
    for _ in range(20 if LONG else 1):
        changed.killed_and_again("second", kill_after_seconds=draw.uniform(0.02, 0.6))


def test_a_process_that_publishes_dies_and_its_task_is_started_again(changed):
    scene = changed
    if not scene.uri.startswith("/"):
        pytest.skip("processes that talk to S3 cannot be forked; the driver's deaths above cover these writes")
    log = []
    for step in range(1, 40, 1 if LONG else 19):
        scene.killed_and_again("second", worker_dies_at=step)
        log += [line for line in scene.log.read_text().splitlines() if line.startswith("died")]
    assert len(log) >= 3, log
