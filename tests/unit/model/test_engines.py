"""The choice of engines, how they are opened, and guarantees that hold for every engine."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import asdict

import numpy as np
import pytest
import torch

from featray.errors import ConfigError, ModelError
from featray.model.engines import bf16_deviations, choose, open_engine
from featray.model.synth import SYNTHETIC_VARIANTS
from tests.fixtures.golden import PUBLISHED_FIRST, deviations, golden

pytestmark = pytest.mark.slow

ENGINES = ("torch", "openvino")
ROW_BOUND = {"torch": 2e-6, "openvino": 0.0}
"""Largest change of a row with its batch on a CPU, in fp32."""


@pytest.mark.parametrize(
    ("engine", "precision", "gpu", "expected"),
    [
        ("auto", "auto", False, ("openvino", "fp32")),
        ("auto", "auto", True, ("torch", "bf16")),
        ("auto", "fp32", True, ("torch", "fp32")),
        ("auto", "bf16", False, ("openvino", "bf16")),
        ("torch", "auto", False, ("torch", "fp32")),
        ("openvino", "auto", False, ("openvino", "fp32")),
    ],
)
def test_choose(engine, precision, gpu, expected):
    assert choose(engine, precision, gpu=gpu) == expected


def test_choose_without_openvino(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert choose("auto", "auto", gpu=False) == ("torch", "fp32")


def test_unknown_names_list_the_allowed_ones(atto):
    with pytest.raises(ConfigError, match="'tensorrt' is not one of auto, torch, openvino"):
        choose("tensorrt", "auto", gpu=False)
    with pytest.raises(ConfigError, match="'int8' is not one of auto, fp32, bf16"):
        choose("auto", "int8", gpu=False)
    with pytest.raises(ConfigError, match="'guess' is not one of pyfeat, card-center-crop"):
        open_engine(atto, engine="torch", precision="fp32", recipe="guess", batch_size=1)
    with pytest.raises(ConfigError, match="CPUs only"):
        choose("openvino", "auto", gpu=True)


def test_sizes_must_be_positive(atto):
    with pytest.raises(ConfigError, match="batch_size"):
        open_engine(atto, engine="torch", precision="fp32", batch_size=0)
    with pytest.raises(ConfigError, match="threads"):
        open_engine(atto, engine="torch", precision="fp32", batch_size=1, num_threads=0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="only where there is no GPU can one be missing")
def test_missing_gpu(atto):
    with pytest.raises(ModelError, match="no CUDA device"):
        open_engine(atto, engine="torch", precision="bf16", batch_size=8, gpu=True)


@pytest.mark.parametrize("name", ENGINES)
def test_engine_says_what_it_is(name, engine_of):
    engine = engine_of("atto", name)
    assert (engine.name, engine.precision, engine.device) == (name, "fp32", "cpu")


@pytest.mark.parametrize("name", ENGINES)
def test_any_number_of_chips(name, engine_of, many_chips):
    engine = engine_of("atto", name)
    for count in (0, 1, 5):
        raw = engine(many_chips[:count])
        assert len(raw) == count
        assert raw.au.shape == (count, 20)
        assert raw.mesh.shape == (count, 478, 3)
        assert raw.blendshapes.shape == (count, 52)
        assert all(values.dtype == np.float32 for values in vars(raw).values())


@pytest.mark.parametrize("name", ENGINES)
def test_rows_do_not_depend_on_their_batch(name, engine_of, many_chips):
    whole = engine_of("atto", name)(many_chips)
    for batch_size in (3, 256):
        found = deviations(engine_of("atto", name, batch_size=batch_size)(many_chips), whole)
        assert max(found.values()) <= ROW_BOUND[name], (batch_size, found)
    order = np.random.default_rng(0).permutation(len(many_chips))
    shuffled = engine_of("atto", name)(many_chips[order])
    expected = {key: values[order] for key, values in vars(whole).items()}
    assert max(deviations(shuffled, expected).values()) <= ROW_BOUND[name]
    alone = engine_of("atto", name)(many_chips[4:5])
    expected = {key: values[4:5] for key, values in vars(whole).items()}
    assert max(deviations(alone, expected).values()) <= ROW_BOUND[name]


@pytest.mark.parametrize("name", ENGINES)
def test_results_outlive_the_next_call(name, engine_of, many_chips):
    engine = engine_of("atto", name)
    first = engine(many_chips[:4])
    before = first.mesh.copy()
    engine(many_chips[4:8])
    assert np.array_equal(first.mesh, before)


@pytest.mark.parametrize("name", ENGINES)
def test_read_only_and_strided_chips(name, engine_of, many_chips):
    engine = engine_of("atto", name)
    frozen = many_chips[:4].copy()
    frozen.flags.writeable = False
    expected = engine(many_chips[:4])
    assert max(deviations(engine(frozen), expected).values()) == 0.0
    mirrored = many_chips[:4, :, ::-1]
    assert max(deviations(engine(mirrored), engine(mirrored.copy())).values()) == 0.0


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize(
    "wrong", [np.zeros((1, 3, 256, 256), np.uint8), np.zeros((1, 256, 256, 3)), np.zeros((256, 256, 3), np.uint8)]
)
def test_wrong_chips(name, wrong, engine_of):
    with pytest.raises(ValueError, match="not uint8"):
        engine_of("atto", name)(wrong)


def test_center_crop_recipe_is_another_result(atto, engine_of, chips):
    other = open_engine(atto, engine="torch", precision="fp32", recipe="card-center-crop", batch_size=4)
    assert deviations(other(chips), engine_of("atto", "torch")(chips))["mesh"] > 0.01


@pytest.mark.parity
@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("variant", PUBLISHED_FIRST)
def test_bf16_stays_near_fp32(name, variant, engine_of, chips, report):
    try:
        engine = engine_of(variant, name, "bf16")
    except ConfigError as error:
        pytest.skip(str(error))
    found, allowed = deviations(engine(chips), golden(variant)), bf16_deviations(SYNTHETIC_VARIANTS[variant])
    shown = ", ".join(f"{key} {value:.4f} (< {allowed[key]})" for key, value in found.items())
    report(f"bf16 from fp32, {name}, {variant}: {shown}")
    assert engine.precision == "bf16"
    assert all(value < allowed[key] for key, value in found.items()), found
    assert max(found.values()) > 1e-4  # shows that it ran in bf16


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
    ids=lambda error: str(error)[:24],
)
def test_running_out_of_memory_halves_the_batch(atto, many_chips, engine_of, caplog, error):
    engine = open_engine(atto, engine="torch", precision="fp32", batch_size=8)
    seen = []

    def too_large(module, inputs):
        seen.append(len(inputs[0]))
        if len(inputs[0]) > 2:
            raise error

    engine._trunk.register_forward_pre_hook(too_large)
    with caplog.at_level(logging.WARNING):
        raw = engine(many_chips)
    assert seen == [4, 2, 2, 2, 2, 2, 2]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert max(deviations(raw, engine_of("atto", "torch")(many_chips)).values()) < 1e-5


@pytest.mark.parametrize("name", ["torch", "openvino"])
def test_several_threads_give_the_same_numbers_bit_for_bit(atto, many_chips, kept_cache, name):
    one, three = (
        open_engine(atto, engine=name, precision="fp32", batch_size=8, num_threads=threads, cache_dir=kept_cache)
        for threads in (1, 3)
    )
    expected = one(many_chips)
    for _ in range(3):
        found = three(many_chips)
        assert max(deviations(found, expected).values()) == 0
    assert len(three(many_chips[:0]).au) == 0


def test_memory_for_not_even_one_chip(atto, chips):
    engine = open_engine(atto, engine="torch", precision="fp32", batch_size=4)

    def always(module, inputs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    engine._trunk.register_forward_pre_hook(always)
    with pytest.raises(ModelError, match="memory"):
        engine(chips)


def test_other_errors_of_the_gpu_do_not_pass_for_a_lack_of_memory(atto, chips):
    engine = open_engine(atto, engine="torch", precision="fp32", batch_size=4)

    def always(module, inputs):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    engine._trunk.register_forward_pre_hook(always)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        engine(chips)


def test_checkpoint_description_travels(atto):
    """Checkpoints are pickled for actors, and `asdict` is used for provenance."""
    import pickle

    assert pickle.loads(pickle.dumps(atto)) == atto
    assert asdict(atto)["sha256"] == atto.sha256
