"""GPUs that are counted but not there: OpenVINO workers may hold them if the config says so."""

import pytest

from featray.config import parse_config
from featray.errors import ConfigError
from featray.run.runner import describe


def job(gpus_per_worker, gpus=2.0):
    sections = {
        "model": {"checkpoint": "synthetic:atto", "engine": "openvino"},
        "cluster": {"gpus_per_worker": gpus_per_worker},
    }
    data = {"dataset": "d", "input": {"uris": ["a"]}, "output": {"uri": "o"}, **sections}
    return describe(parse_config(data), gpus)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATRAY_CACHE", str(tmp_path))


def test_openvino_holds_gpus_only_where_the_config_says_so(caplog):
    held = job(1)
    assert (held.engine, held.precision, held.gpu) == ("openvino", "fp32", False)
    assert "openvino runs on CPUs" in caplog.text
    assert held.release == job(0).release == job("auto", gpus=0.0).release
    assert len(caplog.records) == 1
    with pytest.raises(ConfigError, match=r"CPUs only.*gpus_per_worker: 0"):
        job("auto")


def test_gpus_are_named_as_ray_names_them():
    from featray.graph.connection import _gpu_model

    assert _gpu_model({"CPU": 8, "GPU": 2, "accelerator_type:H100": 1}) == "H100"
    assert _gpu_model({"CPU": 8, "GPU": 2}) is None
    assert _gpu_model({"CPU": 8, "TPU": 4, "accelerator_type:TPU-V4": 1}) is None


@pytest.mark.parametrize(("visible", "counted"), [(None, 4), ("", 0), ("-1", 0), ("0,2", 2), ("0,1,2,3,4,5", 4)])
def test_of_this_machines_gpus_those_count_that_this_process_may_use(monkeypatch, visible, counted):
    from featray.graph import ray_internals

    monkeypatch.setattr(ray_internals.NvidiaGPUAcceleratorManager, "get_current_node_num_accelerators", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert ray_internals.usable_gpus() == counted
