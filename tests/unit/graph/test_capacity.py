import pytest

from featray.config import ClusterConfig
from featray.errors import RunError
from featray.graph.capacity import Capacity
from featray.graph.workers import Node, choose_again, choose_workers

GIB = 2**30
CPU, GPU = Node(4, 0, 16 * GIB), Node(4, 1, 16 * GIB)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def planned(nodes, **config):
    clock, cluster = Clock(), ClusterConfig(lost_node_patience_s=60, **config)
    return Capacity(choose_workers(list(nodes.values()), cluster), nodes, cluster, clock), clock


def test_a_run_goes_on_with_fewer_workers_once_nothing_has_landed_for_long(caplog):
    nodes = {"a": CPU, "b": GPU, "c": GPU}
    capacity, clock = planned(nodes)
    left = {"a": CPU, "b": GPU}
    clock.now = 100
    assert capacity.look(nodes) is None and capacity.look(left) is None
    clock.now = 150
    capacity.heard()
    clock.now = 209
    assert capacity.look(left) is None, "the others were still at work a minute ago"
    clock.now = 210
    workers = capacity.look(left)
    assert workers is not None and (workers.infer, workers.infer_gpus) == (1, 1.0)
    assert workers.decode < capacity.workers.decode
    assert "1 node lost, nothing has landed for 60 s: continuing with 7 decode and 1" in caplog.text


@pytest.mark.parametrize("comes", [{"d": GPU}, {"c": GPU}])
def test_a_node_that_comes_in_time_ends_the_waiting(comes):
    capacity, clock = planned({"a": CPU, "b": GPU, "c": GPU})
    left = {"a": CPU, "b": GPU}
    assert capacity.look(left) is None
    clock.now = 59
    assert capacity.look(left | comes) is None
    clock.now = 100
    assert capacity.look(left | comes) is None
    assert capacity.look(left) is None, "the patience begins anew"


def test_slow_work_on_nodes_that_are_all_there_is_not_interrupted():
    nodes = {"a": CPU}
    capacity, clock = planned(nodes, cpus=64)  # most of its workers wait for nodes that are still to come
    clock.now = 1e6
    assert capacity.look(nodes) is None


def test_a_run_that_nothing_is_left_for_waits_and_then_ends(caplog):
    capacity, clock = planned({"a": CPU, "b": GPU})
    left = {"a": CPU}
    for clock.now in (0, 60, 200, 359):
        assert capacity.look(left) is None
    assert len(caplog.records) == 1
    assert "waiting 300 s for nodes: cluster.infer_workers: 1 of 1 worker of 0 CPUs, 1 GPU" in caplog.text
    assert capacity.look(left | {"c": GPU}) is None
    assert capacity.look(left) is None
    clock.now = 359 + 360
    with pytest.raises(RunError, match=r"^2 nodes lost, .* 360 s: .*find no place.*; what has landed is kept"):
        capacity.look(left)


def test_workers_chosen_again_keep_what_the_config_says_of_their_size():
    config = ClusterConfig(decode_workers=20, infer_workers=8, decode_cpus=2, infer_cpus=1)
    workers = choose_again([Node(9, 0, GIB)], config, 0.0)
    assert workers is not None and (workers.decode_cpus, workers.infer_cpus) == (2, 1)
    assert workers.decode >= 1 and 2 * workers.decode + workers.infer <= 9
    assert choose_again([Node(2, 0, GIB)], config, 0.0) is None
    assert choose_again([], config, 0.0) is None


@pytest.mark.parametrize("config", [{"infer_workers": 2}, {"cpus": 999, "gpus": 99}, {}])
def test_workers_chosen_again_are_for_the_nodes_that_are_there(config):
    workers = choose_again([CPU, CPU, GPU], ClusterConfig(**config), 1.0)
    assert workers is not None and (workers.infer, workers.infer_gpus, workers.decode) == (1, 1.0, 11)
    workers = choose_again([CPU, GPU, GPU, GPU], ClusterConfig(**config), 1.0)
    assert workers is not None and workers.infer == config.get("infer_workers", 3)


def test_a_run_that_began_with_gpus_does_not_go_on_without():
    assert choose_again([CPU] * 9, ClusterConfig(), 1.0) is None


def test_a_worker_finds_no_place_beside_planning_and_landing():
    """Planning and landing hold a fraction of a CPU, but a lost decode worker needs a whole one."""
    one, gpu = Node(1, 0, GIB), Node(0, 1, GIB)
    capacity, clock = planned({"a": one, "b": one, "c": one, "d": gpu}, decode_workers=2)
    assert capacity.workers.decode_cpus == 1
    left = {"a": one, "b": one, "d": gpu}
    assert capacity.look(left) is None
    clock.now = 60
    workers = capacity.look(left)
    assert workers is not None and (workers.decode, workers.infer, workers.decode_cpus) == (1, 1, 1)
    assert choose_again([one, gpu], ClusterConfig(decode_cpus=1), 1.0) is None
