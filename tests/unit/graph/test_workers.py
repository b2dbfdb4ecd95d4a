import pytest

from featray.config import ClusterConfig
from featray.errors import ConfigError
from featray.graph.workers import Node, choose_again, choose_workers, local_workers, unplaced

GIB = 2**30


def one(cpus, gpus=0):
    return [Node(cpus, gpus, 16 * GIB)]


@pytest.mark.parametrize("cpus", [1, 2, 4, 8, 16, 64])
def test_cpu_workers_fit_and_use_the_cluster(cpus):
    workers = choose_workers(one(cpus), ClusterConfig())
    asked = workers.decode * workers.decode_cpus + workers.infer * workers.infer_cpus
    assert workers.decode >= 1 and workers.infer >= 1
    assert asked <= cpus - 0.1, "planning and publishing need room"
    assert workers.infer >= cpus * 0.8 - 1
    assert workers.land == (4 if cpus == 64 else 1), "each is a process"
    assert workers.infer_gpus == 0


def test_a_gpu_gets_one_inference_worker_and_the_cpus_decode():
    workers = choose_workers(one(32, 2), ClusterConfig())
    assert (workers.infer, workers.infer_gpus, workers.decode) == (2, 1.0, 30)
    assert workers.land == 2


def test_a_worker_with_a_gpu_asks_for_no_cpu():
    """Decode workers that started first on the GPU's node therefore cannot keep it from starting."""
    workers = choose_workers(one(32, 2), ClusterConfig())
    assert (workers.infer_cpus, workers.decode_cpus) == (0.0, 1.0)
    assert workers.decode * workers.decode_cpus <= 32 - 0.1


def test_workers_are_those_of_the_grown_cluster():
    """A growing cluster has one small node and no GPU when the run starts."""
    workers = choose_workers(one(4), ClusterConfig(cpus=64, gpus=4))
    assert workers == choose_workers(one(64, 4), ClusterConfig())


def test_what_is_asked_for_is_taken():
    workers = choose_workers(one(16, 1), ClusterConfig(decode_workers=3, infer_workers=2, gpus_per_worker=0.5))
    assert (workers.decode, workers.infer, workers.infer_gpus) == (3, 2, 0.5)


@pytest.mark.parametrize(
    ("asked", "nodes"),
    [
        ({"gpus_per_worker": 1}, one(4)),
        ({"infer_workers": 900}, one(4)),
        ({"infer_workers": 3}, one(8, 2)),
        ({"gpus_per_worker": 2}, [Node(8, 1, 16 * GIB), Node(8, 1, 16 * GIB)]),
        ({"memory_gib": 20}, one(4)),
        ({"memory_gib": 9, "decode_workers": 2, "infer_workers": 1}, [Node(8, 0, 16 * GIB), Node(8, 0, 8 * GIB)]),
        ({"decode_cpus": 3}, [Node(2, 0, 16 * GIB)] * 4),
    ],
)
def test_what_can_never_fit_is_refused_unless_nodes_may_come(asked, nodes):
    with pytest.raises(ConfigError, match=r"^cluster\..*no place"):
        choose_workers(nodes, ClusterConfig(**asked))
    workers = choose_workers(nodes, ClusterConfig(**asked, cpus=1000, gpus=8))
    assert workers.infer >= 1 and unplaced(workers, nodes)
    for name, value in asked.items():
        if name != "memory_gib":
            assert getattr(workers, name.replace("gpus_per_worker", "infer_gpus").removesuffix("_workers")) == value


@pytest.mark.parametrize("nodes", [[Node(1, 0, GIB)] * 4, [Node(1, 0, GIB), Node(2, 0, GIB)], [Node(3, 0, GIB)] * 7])
def test_small_nodes_hold_all_workers_whatever_goes_where(nodes):
    workers = choose_workers(nodes, ClusterConfig())
    assert workers.decode_cpus == workers.infer_cpus >= 0.3
    assert sum(int(node.cpus / workers.infer_cpus + 1e-6) for node in nodes) >= workers.decode + workers.infer


def test_decode_workers_cannot_keep_inference_from_the_nodes_with_gpus():
    workers = choose_workers([Node(8, 2, 16 * GIB), Node(32, 0, 16 * GIB)], ClusterConfig())
    assert (workers.infer, workers.infer_cpus, workers.decode) == (2, 0.0, 38)


def test_cpus_and_memory_of_workers_can_be_set():
    config = ClusterConfig(decode_cpus=2, infer_cpus=0.5, memory_gib=1.5, decode_workers=2, infer_workers=2)
    workers = choose_workers(one(8), config)
    assert (workers.decode_cpus, workers.infer_cpus, workers.memory_bytes) == (2, 0.5, 3 * GIB // 2)


def test_decode_workers_with_a_gpu_share_it_with_one_that_infers():
    for cpus, decode in ((4, 3), (8, 7), (64, 10)):
        workers = choose_workers(one(cpus, 1), ClusterConfig(), 0.05)
        assert (workers.infer, workers.infer_gpus, workers.decode, workers.decode_gpus) == (1, 0.5, decode, 0.05)
    workers = choose_workers([Node(32, 2, 16 * GIB), Node(64, 0, 16 * GIB)], ClusterConfig(), 0.05)
    assert (workers.infer, workers.decode) == (2, 20), "two halves hold ten shares each, and CPUs without GPU none"


def test_shares_of_two_gpus_are_not_added_up():
    workers = choose_workers(one(32, 2), ClusterConfig(), 0.3)
    assert (workers.infer, workers.decode) == (2, 2)


def test_decode_workers_may_have_the_gpus_to_themselves():
    """For a network on CPUs, as in tests, or on GPUs that are too old for it."""
    workers = choose_workers(one(64, 1), ClusterConfig(gpus_per_worker=0), 0.05)
    assert (workers.infer_gpus, workers.decode_gpus, workers.decode) == (0.0, 0.05, 9)
    assert choose_workers(one(640, 1), ClusterConfig(gpus_per_worker=0), 0.05).decode == 20


@pytest.mark.parametrize("asked", [{"gpus_per_worker": 1}, {"decode_workers": 11}])
def test_gpus_that_do_not_hold_both_kinds_are_refused(asked):
    with pytest.raises(ConfigError, match=r"cluster.decode_workers: .*, 0.05 GPUs find no place"):
        choose_workers(one(16, 1), ClusterConfig(**asked), 0.05)


def test_workers_that_need_a_gpu_to_decode_are_not_built_again_without():
    assert choose_again(one(8), ClusterConfig(), 0.0, 0.05) is None
    assert choose_again(one(8, 1), ClusterConfig(), 0.5, 0.05).decode_gpus == 0.05


def test_workers_of_one_process_share_its_gpu():
    assert local_workers(32, True, ClusterConfig(), 0.05).decode == 10
    assert local_workers(32, True, ClusterConfig()).decode == 31
    assert local_workers(2, False, ClusterConfig(), 0.05).decode == 1
