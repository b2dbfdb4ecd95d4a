"""A node's raylet is killed during a run, and with it every worker on that node; then another node is added.

There are as many workers as the cluster had CPUs for at the start: with fewer CPUs, Ray waits for a new node.
"""

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import ray
from ray.cluster_utils import Cluster

from featray.run.runner import run
from featray.tables.layout import open_output
from featray.tables.query import connect, run_sql
from tests.fixtures.runs import make_config, silent

pytestmark = [pytest.mark.ray, pytest.mark.long]  # test_cluster.py loses nodes too


@pytest.fixture
def nodes(no_ray, kept_cache):
    os.environ["FEATRAY_CACHE"] = str(kept_cache)
    os.environ["RAY_BACKEND_LOG_LEVEL"] = "fatal"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = cluster.add_node(num_cpus=2)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster, second
    ray.shutdown()
    cluster.shutdown()


def rows(out, table):
    sql = f"SELECT * EXCLUDE (run_id) FROM {table} ORDER BY ALL"
    return run_sql(connect(open_output(str(out))), sql).read_all().to_pylist()


def test_a_node_is_lost(nodes, clips, tmp_path):
    cluster, second = nodes
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "b", "c"):
        shutil.copy(clips / "face.mp4", folder / f"{name}.mp4")
    decode = {"sample": {"every": 6}, "unit_frames": 16}
    with ThreadPoolExecutor(1) as pool:  # Ray starts nodes only in the main thread
        job = pool.submit(run, make_config([f"{folder}/*.mp4"], tmp_path / "hurt", decode=decode), silent())
        while not list((tmp_path / "hurt" / "_featray").glob("landing/**/*.arrow")):
            assert not job.done(), job.result()
            time.sleep(0.1)
        cluster.remove_node(second, allow_graceful=False)
        cluster.add_node(num_cpus=2)
        hurt = job.result()
    assert hurt.videos == {"ok": 3, "partial": 0, "failed": 0}
    calm = run(make_config([f"{folder}/*.mp4"], tmp_path / "calm", decode=decode), silent())
    assert calm.videos == hurt.videos
    for table in ("faces", "mesh", "frames"):
        assert rows(tmp_path / "hurt", table) == rows(tmp_path / "calm", table)
    assert sorted(node["Alive"] for node in ray.nodes()) == [False, True, True]
