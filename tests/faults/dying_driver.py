"""The main job without Ray, in processes that kill themselves with SIGKILL at a chosen write to the storage.

Everything is the product's own but two things: stages run one after the other in the driver, and
what the decoder and the network say of a video is made up, from the video's bytes. So each write of
a run happens in one process, in one order, and can be counted.

`python -m tests.faults.dying_driver` loads the product once and forks a process for each line of JSON on
its input: {"config": ..., "kill_at": n or null, "worker_dies_at": n or null, "log": file}. The second is
the death of a process that publishes a shard, which Ray would start again. It answers with the process's id and,
when it has ended, its exit status.
"""

from __future__ import annotations

import builtins
import io
import json
import os
import signal
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import s3fs
from rich.console import Console

from featray.config import parse_config
from featray.extract.plan import Outcome, UnitTask, VideoPlan, VideoTask
from featray.graph.rows import Receipt
from featray.graph.stages import PlanVideos, land_unit_part
from featray.run import runner, shards
from featray.run.progress import Progress
from featray.schema import FRAMES_SCHEMA, LANDED_SCHEMA
from featray.tables.publish import publish_shard
from featray.video.container import Header
from featray.video.units import Unit

UNITS = 1
FRAMES_A_UNIT = 3
_LISTS = {"mesh_xyz": 1434, "landmarks5": 10}


class Deaths:
    """Counts changes to the storage below `root`, and dies before number `kill_at` (from 1)."""

    def __init__(self, root: str, kill_at: int | None, log: Path) -> None:
        self.root, self.kill_at, self.log, self.count = root, kill_at, log, 0

    def step(self, name: str, path: object) -> None:
        self.count += 1
        if self.count == self.kill_at:
            with self.log.open("a") as file:
                file.write(f"died before {name} {path}\n")
            os.kill(os.getpid(), signal.SIGKILL)

    def watch_disk(self) -> None:
        for name in ("replace", "link", "remove", "unlink"):
            setattr(os, name, self._watched(name, getattr(os, name)))
        opened = io.open

        def watched(file, mode="r", *args, **kwargs):
            if "x" in mode and str(file).startswith(self.root):
                self.step("open", file)
            return opened(file, mode, *args, **kwargs)

        builtins.open = watched

    def _watched(self, name, real):
        def call(path, *args, **kwargs):
            folder = kwargs.get("dir_fd")
            place = str(path) if folder is None else os.readlink(f"/proc/self/fd/{folder}")
            if place.startswith(self.root):
                self.step(name, path)
            return real(path, *args, **kwargs)

        return call

    def watch_s3(self) -> None:
        real, deaths = s3fs.S3FileSystem._call_s3, self

        async def call(self, method, *args, **kwargs):
            if method.startswith(("put_", "delete_", "create_", "complete_", "upload_")):
                deaths.step(method, kwargs.get("Key") or kwargs.get("Delete"))
            return await real(self, method, *args, **kwargs)

        s3fs.S3FileSystem._call_s3 = call


class MadeUp:
    """Plans and results that follow from a video's URI and bytes alone. `broken` in the bytes fails, `lost` too."""

    def plan(self, video) -> VideoPlan:
        units = tuple(Unit(i) for i in range(UNITS))
        return VideoPlan(Header("mov", "h264", "1/24", 5, 6, 7), units)

    def result(self, task: UnitTask) -> tuple[pa.Table, pa.Table, Outcome]:
        if self._now_fails(task):
            outcome = Outcome(failures=[("decode", "timeout", "made up")])
            return LANDED_SCHEMA.empty_table(), FRAMES_SCHEMA.empty_table(), outcome
        start = task.unit.index * FRAMES_A_UNIT
        index = np.arange(start, start + FRAMES_A_UNIT)
        seed = int(task.work_key[:6], 16) + task.unit.index
        columns = {}
        for field in LANDED_SCHEMA:
            if field.name in _LISTS:
                columns[field.name] = pa.array([[float(seed % 97)] * _LISTS[field.name]] * FRAMES_A_UNIT, field.type)
            else:
                columns[field.name] = pa.array((np.arange(FRAMES_A_UNIT) + seed) % 100).cast(field.type)
        columns["frame_index"] = pa.array(index, pa.int32())
        columns["pts_us"] = pa.array(index * 1000, pa.int64())
        columns["face_index"] = pa.array([0] * FRAMES_A_UNIT, pa.int32())
        faces = pa.table(columns, schema=LANDED_SCHEMA)
        frames = {"frame_index": index, "pts_us": index * 1000, "status": ["ok"] * FRAMES_A_UNIT}
        frames |= {"faces": [1] * FRAMES_A_UNIT, "keyframe": [True] * FRAMES_A_UNIT}
        count = FRAMES_A_UNIT
        rows = pa.table({f.name: pa.array(frames.get(f.name, [None] * count), f.type) for f in FRAMES_SCHEMA})
        outcome = Outcome(frames_decoded=count, frames_sampled=count, bytes_read=10, picture={"width": 6, "height": 7})
        return faces, rows, outcome

    def _now_fails(self, task: UnitTask) -> bool:
        path = task.video.uri.removeprefix("file://")
        return Path(f"{path}.fails").exists()


class Session:
    """`ray_session.Session`, one thing after the other."""

    log: Path
    deaths: Deaths
    worker_dies_at: int | None = None

    def __init__(self, config) -> None:
        self.workers, self._commits = None, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def stream(self, partition, run_id, engine, detector, pages, unfinished):
        planner = PlanVideos.__new__(PlanVideos)
        planner._partition, planner._decoder = partition, MadeUp()
        for page in pages:
            for video in page:
                yield from self._video(planner, partition, run_id, video)

    def _video(self, planner, partition, run_id, video: VideoTask):
        for table in planner(pa.table({"task": [video.to_json()]})):
            for text in table["task"].to_pylist():
                task = UnitTask.from_json(text)
                receipt = Receipt(task.shard, task.video.video_id, task.unit.index, task.units, task.attempt)
                if task.landed_parts:
                    yield replace(receipt, part=task.landed_parts - 1, last=True, resumed=True)
                    continue
                with self.log.open("a") as file:
                    name = partition.landing_name(task.video.video_id, task.work_key)
                    file.write(f"decoded {name} {task.unit.index:06d}\n")
                faces, frames, outcome = planner._decoder.result(task)
                # Two parts a unit: the first frame's, and the rest with the outcome.
                cut = min(1, faces.num_rows)
                land_unit_part(partition, task, run_id, 0, faces[:cut], frames[:cut], None)
                yield replace(receipt, part=0, frames=cut, faces=cut)
                land_unit_part(partition, task, run_id, 1, faces[cut:], frames[cut:], outcome)
                rest = faces.num_rows - cut
                yield replace(receipt, part=1, last=True, frames=rest, faces=rest, failed=bool(outcome.failures))

    def publish(self, partition, manifest, settings) -> None:
        settings = replace(settings, published_at_us=time.time_ns() // 1000)
        if self.worker_dies_at and (process := os.fork()) == 0:
            self.deaths.count, self.deaths.kill_at = 0, self.worker_dies_at
            publish_shard(partition, manifest, settings)
            os._exit(0)
        elif self.worker_dies_at:
            os.waitpid(process, 0)  # and Ray would start the task again
        self._commits.append(publish_shard(partition, manifest, settings))

    def published(self, *, wait):
        done, self._commits = self._commits, []
        return done


def _describe(config):
    checkpoint = SimpleNamespace(name="made-up", sha256="0" * 64, revision=None, license="", weights_trained=False)
    run_id = f"run-{os.getpid()}"
    return runner.Job(config, run_id, checkpoint, "torch", "fp32", {"detector": "made up"}, "made-up-1", False)


def _drive(order) -> None:
    """In a process of its own: a run that may die on its way."""
    config, log = parse_config(order["config"]), Path(order["log"])
    deaths = Deaths(config.output.uri, order["kill_at"], log)
    runner.describe, runner.Session = _describe, Session
    Session.log, Session.deaths, Session.worker_dies_at = log, deaths, order["worker_dies_at"]
    shards.SHARD_VIDEOS = 2
    if config.output.uri.startswith("s3"):
        deaths.watch_s3()
    else:
        deaths.watch_disk()
    summary = runner.run(config, Progress(Console(file=io.StringIO()), quiet=True))
    with log.open("a") as file:
        file.write(f"steps {deaths.count} {summary.status} {summary.seconds:.2f}s deleted {summary.deleted.count}\n")


def main() -> None:
    _describe(None)
    for line in sys.stdin:
        order = json.loads(line)
        if (process := os.fork()) == 0:
            status = 1
            try:
                _drive(order)
                status = 0
            except BaseException:  # noqa: BLE001 - the forked process ends here, whatever happened
                with Path(order["log"]).open("a") as file:
                    file.write(traceback.format_exc())
            finally:
                os._exit(status)
        print(process, flush=True)
        print(os.waitpid(process, 0)[1], flush=True)


if __name__ == "__main__":
    main()
