"""The choice of a run's executor, and the reason that is given for it."""

import pytest

from featray.config import ClusterConfig
from featray.run import session
from featray.run.session import LOCAL_VIDEOS, choose_executor


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """Simulate a machine without cluster and GPU; it cannot show that a real cluster or GPU is found."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(session, "on_cluster", lambda: False)
    monkeypatch.setattr(session, "local_gpus", lambda: 0.0)


def never():
    raise AssertionError("listing ahead is not needed for this choice")


def test_few_videos_are_done_here_and_many_on_ray():
    assert choose_executor(ClusterConfig(), lambda: 1) == ("local", "1 video to do on this machine")
    assert choose_executor(ClusterConfig(), lambda: LOCAL_VIDEOS)[0] == "local"
    executor, why = choose_executor(ClusterConfig(), lambda: LOCAL_VIDEOS + 1)
    assert (executor, why) == ("ray", f"more than {LOCAL_VIDEOS} videos to do")


def test_a_cluster_and_several_gpus_take_ray(monkeypatch):
    monkeypatch.setattr(session, "local_gpus", lambda: 2.0)
    assert choose_executor(ClusterConfig(), never) == ("ray", "2 GPUs")
    monkeypatch.setattr(session, "on_cluster", lambda: True)
    assert choose_executor(ClusterConfig(), never) == ("ray", "a Ray cluster was found")


def test_one_gpu_is_the_local_executors(monkeypatch):
    monkeypatch.setattr(session, "local_gpus", lambda: 1.0)
    assert choose_executor(ClusterConfig(), lambda: 3)[0] == "local"


def test_who_names_one_gets_it(monkeypatch):
    monkeypatch.setattr(session, "on_cluster", lambda: True)
    for name in ("ray", "local"):
        assert choose_executor(ClusterConfig(executor=name), never) == (name, f"cluster.executor: {name}")


def test_a_ray_address_is_a_cluster(monkeypatch):
    from featray.graph.machine import on_cluster

    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert on_cluster()
