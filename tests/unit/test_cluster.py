import pytest

from featray.cluster import choose_workers
from featray.config import ClusterConfig
from featray.errors import ConfigError


@pytest.mark.parametrize("cpus", [1, 2, 4, 8, 16, 64])
def test_cpu_workers_fit_and_use_the_cluster(cpus):
    workers = choose_workers(cpus, 0, ClusterConfig())
    asked = workers.decode * workers.decode_cpus + workers.infer * workers.infer_cpus
    assert workers.decode >= 1 and workers.infer >= 1
    assert asked <= cpus - 0.1, "planning and publishing need room"
    assert workers.infer >= cpus * 0.8 - 1
    assert workers.infer_gpus == 0


def test_a_gpu_gets_one_inference_worker_and_the_cpus_decode():
    workers = choose_workers(32, 2, ClusterConfig())
    assert (workers.infer, workers.infer_gpus, workers.decode) == (2, 1.0, 30)


def test_a_worker_with_a_gpu_asks_for_no_cpu():
    """Decoders that started first, on the GPU's own node, cannot keep it from starting."""
    workers = choose_workers(32, 2, ClusterConfig())
    assert (workers.infer_cpus, workers.decode_cpus) == (0.0, 1.0)
    assert workers.decode * workers.decode_cpus <= 32 - 0.1


def test_workers_are_those_of_the_grown_cluster():
    """A cluster that grows has one small node when the run starts, and no GPU."""
    workers = choose_workers(4, 0, ClusterConfig(cpus=64, gpus=4))
    assert workers == choose_workers(64, 4, ClusterConfig())


def test_what_is_asked_for_is_taken():
    workers = choose_workers(16, 1, ClusterConfig(decode_workers=3, infer_workers=2, gpus_per_worker=0.5))
    assert (workers.decode, workers.infer, workers.infer_gpus) == (3, 2, 0.5)


@pytest.mark.parametrize(
    "asked",
    [{"gpus_per_worker": 1}, {"infer_workers": 900}],
)
def test_what_can_never_fit_is_refused(asked):
    with pytest.raises(ConfigError, match="cluster"):
        choose_workers(4, 0, ClusterConfig(**asked))
