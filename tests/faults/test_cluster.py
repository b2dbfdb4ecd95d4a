"""Several nodes on one machine, with fake GPUs; one short run has many of the failures of a long one.

A decode worker is killed every ten seconds; the object stores are filled; the node with all inference workers is lost
and replaced by a smaller one; a CPU node is lost and not replaced; one video aborts its decoder and another hangs it.
"""

import os
import re
import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import av
import numpy as np
import pytest
import ray
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from featray.errors import FeatrayError, RunError
from featray.run.runner import run
from featray.tables.layout import open_output
from featray.tables.query import connect, run_sql
from tests.fixtures.faults import marked, processes
from tests.fixtures.plugin import LONG
from tests.fixtures.runs import make_config, run_here, silent

pytestmark = pytest.mark.ray

VIDEOS, POISONED = (16, {4: "abort", 12: "hang"}) if LONG else (10, {2: "abort", 7: "hang"})
KILL_EVERY_S = 10
MOST_KILLS = 100 if LONG else 2
"""Limit of kills: on a busy machine a worker takes long to start, so with endless kills none would make progress."""
STORE_BYTES = 80 << 20
NODE = {"object_store_memory": STORE_BYTES}
SECTIONS = {
    "decode": {"sample": {"every": 12}, "timeout_seconds": 8},
    "model": {"checkpoint": "synthetic:atto", "engine": "openvino"},
    "cluster": {
        "gpus_per_worker": 1,
        "decode_workers": 2,
        "infer_workers": "auto",
        "lost_node_patience_s": 6,
        "max_failed_fraction": 1,
    },
}


@pytest.fixture(scope="module")
def nodes(no_ray, kept_cache, hook_folder):
    """Start a head and another node with a CPU each, and a node with two fake GPUs."""
    paths = [str(hook_folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEATRAY_CACHE", str(kept_cache))
        patch.setenv("RAY_BACKEND_LOG_LEVEL", "fatal")
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        head = {"num_cpus": 1, "include_dashboard": False, **NODE}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        decoding = cluster.add_node(num_cpus=1, **NODE)
        inferring = cluster.add_node(num_cpus=0, num_gpus=2, **NODE)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        yield cluster, decoding, [inferring]
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture
def folder(face_clip, tmp_path):
    """Return a folder of copies of the first two seconds of the face clip: 48 frames, of which four are sampled."""
    folder = tmp_path / "in"
    folder.mkdir()
    first = folder / "00.mp4"
    with av.open(str(face_clip)) as source, av.open(str(first), "w") as sink:
        stream = source.streams.video[0]
        copy = sink.add_stream_from_template(stream)
        for number, packet in enumerate(source.demux(stream)):
            if number == 48 or packet.dts is None:
                break
            packet.stream = copy
            sink.mux(packet)
    for i in range(1, VIDEOS):
        shutil.copy(first, folder / f"{i:02d}.mp4")
    return folder


def workers_at_work(hook_folder, stage):
    """Return process ids of this test's workers of a stage that are running a task."""
    return processes(hook_folder, b"MapBatches(%s)).submit" % stage)


@ray.remote(num_cpus=0)
class Filler:
    """Fills most of a node's object store with objects that are in use and cannot be spilled."""

    def fill(self):
        size = STORE_BYTES // 8
        self.held = [ray.get(ray.put(np.ones(size, np.uint8))) for _ in range(7)]


class Hurt:
    """Kills workers of a run. The run is in a thread, because Ray starts nodes only in the main thread."""

    def __init__(self, out, hook_folder, job):
        self.landing, self.hook_folder, self.job = out / "_featray" / "landing", hook_folder, job
        self.killed = 0
        self._over = threading.Event()
        self._killer = threading.Thread(target=self._kill, daemon=True)

    def __enter__(self):
        self._killer.start()
        return self

    def __exit__(self, kind, *_):
        self._over.set()
        self._killer.join()
        if kind is not None and not self.job.done():
            ray.shutdown()  # otherwise a run that hangs would hang the test

    def _kill(self):
        while self.killed < MOST_KILLS and not self._over.wait(KILL_EVERY_S):
            while not self._over.wait(0.02):
                if pids := workers_at_work(self.hook_folder, b"DecodeDetect"):
                    os.kill(pids[self.killed % len(pids)], signal.SIGKILL)
                    self.killed += 1
                    break

    def wait_for_landed(self, count):
        for _ in range(6000):  # the run shares two cores with the rest of the suite
            if len(list(self.landing.glob("**/*-last.arrow"))) >= count:
                return
            assert not self.job.done(), self.job.result()
            time.sleep(0.1)
        raise AssertionError("it does not go on")


def rows(out, table):
    sql = (
        f"SELECT t.* EXCLUDE (run_id) FROM {table} t JOIN videos v USING (video_id) "
        f"WHERE parse_filename(v.uri, true)::INT NOT IN ({', '.join(map(str, POISONED))}) ORDER BY ALL"
    )
    return run_sql(connect(open_output(str(out))), sql).read_all().to_pylist()


def test_gpus_that_are_not_there_end_the_run_with_one_line(nodes, folder, tmp_path):
    with pytest.raises(FeatrayError, match=r"a GPU is asked for, but torch .* sees no CUDA device on \S+;") as raised:
        run(make_config([folder / "00.mp4"], tmp_path / "out", cluster={"gpus_per_worker": "auto"}), silent())
    assert "\n" not in str(raised.value)


def test_a_run_survives_the_loss_of_workers_and_nodes_and_poisoned_videos(
    nodes, hook_folder, folder, tmp_path, report, caplog
):
    cluster, decoding, inferring = nodes
    calm = run_here(make_config([f"{folder}/*.mp4"], tmp_path / "calm", **SECTIONS))
    assert calm.videos == {"ok": VIDEOS, "partial": 0, "failed": 0}
    for i, fault in POISONED.items():
        marked(folder / "00.mp4", folder / f"{i:02d}.mp4", fault)
    fillers = [
        Filler.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.node_id, soft=False)).remote()
        for node in (decoding, *inferring)
    ]
    ray.get([filler.fill.remote() for filler in fillers])
    caplog.clear()
    with ThreadPoolExecutor(1) as pool:
        config = make_config([f"{folder}/*.mp4"], tmp_path / "hurt", **SECTIONS)
        with Hurt(tmp_path / "hurt", hook_folder, pool.submit(run, config, silent())) as hurt:
            hurt.wait_for_landed(VIDEOS // 4)
            cluster.remove_node(inferring.pop(), allow_graceful=False)
            inferring.append(cluster.add_node(num_cpus=0, num_gpus=1, **NODE))
            hurt.wait_for_landed(VIDEOS // 2)
            cluster.remove_node(decoding, allow_graceful=False)
            summary = hurt.job.result(timeout=900)
    assert sorted(node["Alive"] for node in ray.nodes()) == [False, False, True, True]
    assert hurt.killed >= 1
    assert "continuing with" in caplog.text

    assert summary.videos == {"ok": VIDEOS - 2, "partial": 0, "failed": 2}
    sql = "SELECT parse_filename(uri, true)::INT AS number, error_code AS code FROM errors ORDER BY ALL"
    errors = run_sql(connect(open_output(str(tmp_path / "hurt"))), sql).read_all().to_pylist()
    # If a worker is killed while it decodes a poisoned video, in the last attempt, the code is `lost`.
    assert [row["number"] for row in errors] == [*POISONED]
    assert errors[0]["code"] in ("decoder_crashed", "lost") and errors[1]["code"] in ("timeout", "lost")
    for table in ("faces", "mesh", "frames"):
        mine = rows(tmp_path / "hurt", table)
        assert len(mine) == 4 * (VIDEOS - 2) and mine == rows(tmp_path / "calm", table)
    rebuilt = [record.getMessage() for record in caplog.records if "continuing with" in record.getMessage()]
    report(
        f"{VIDEOS} short videos: {calm.seconds:.0f} s on the local executor; {summary.seconds:.0f} s on a cluster with "
        f"{hurt.killed} decode workers killed, two of three nodes lost, full object stores, a video that aborts and "
        f"one that hangs; {'; '.join(rebuilt)}"
    )


def test_a_run_that_has_lost_its_last_gpu_ends_with_the_reason(nodes, hook_folder, folder, tmp_path, caplog):
    cluster, _, inferring = nodes
    out = tmp_path / "out"
    sections = {**SECTIONS, "cluster": {**SECTIONS["cluster"], "infer_workers": 1, "lost_node_patience_s": 2}}
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(run, make_config([f"{folder}/*.mp4"], out, **sections), silent())
        with Hurt(out, hook_folder, job) as hurt:
            hurt.wait_for_landed(1)
            cluster.remove_node(inferring.pop(), allow_graceful=False)
            with pytest.raises(RunError, match=r"^1 node lost, .* 1 of 1 worker of 0 CPUs, 1 GPU find no place"):
                job.result(timeout=400)
    assert re.search(r"nothing has landed for \d+ s: waiting \d+ s for nodes: cluster\.infer_workers", caplog.text)
    runs = run_sql(connect(open_output(str(out))), "SELECT status FROM runs").read_all().to_pylist()
    assert runs == [{"status": "failed"}]
