"""Synthetic checkpoints: the file is the same everywhere, and parity is pinned on its weights."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from featray.errors import ModelError
from featray.model.checkpoint import read_checkpoint
from featray.model.synth import SYNTHETIC_VARIANTS, synthetic_tensor, write_synthetic


def test_file_is_the_same_in_every_process(atto, tmp_path):
    path = tmp_path / "again.safetensors"
    code = (
        "import sys, pathlib; from featray.model.synth import *; "
        "write_synthetic(pathlib.Path(sys.argv[1]), config=SYNTHETIC_VARIANTS['atto']); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == atto.sha256


def test_weights_are_pinned(atto):
    """Bit-identical to the reference generator; its file has another order, so tensors are compared."""
    tensors = load_file(atto.path)
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].tobytes())
    assert digest.hexdigest() == "7b11a36f55217c368c318d664f64290f404f821fe2f5d611102f39df63c8a887"


def test_tensors_follow_from_name_and_seed():
    first = synthetic_tensor("sc.s", (20, 64), seed=0)
    assert np.array_equal(first, synthetic_tensor("sc.s", (20, 64), seed=0))
    assert not np.array_equal(first, synthetic_tensor("sc.s", (20, 64), seed=1))
    assert not np.array_equal(first, synthetic_tensor("sc.t", (20, 64), seed=0))


@pytest.mark.parametrize(
    ("name", "shape", "mean", "spread"),
    [
        ("a.weight", (400, 100), 0.0, np.sqrt(1.6 / 100)),
        ("a.bias", (4000,), 0.0, 0.1),
        ("a.norm.weight", (4000,), 1.0, 0.1),
        ("b.grn.weight", (4000,), 0.0, 0.1),
        ("afg.heads.0.1.running_mean", (4000,), 0.0, 0.1),
    ],
)
def test_scales(name, shape, mean, spread):
    values = synthetic_tensor(name, shape, seed=0)
    assert values.dtype == np.float32
    assert values.mean() == pytest.approx(mean, abs=0.01)
    assert values.std() == pytest.approx(spread, rel=0.05)


def test_default_is_the_published_v25_head(tmp_path):
    path = tmp_path / "default.safetensors"
    write_synthetic(path)
    assert read_checkpoint(path).config == SYNTHETIC_VARIANTS["v25"]


def test_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("featray.model.synth.synthetic_tensor", fail)
    with pytest.raises(KeyboardInterrupt):
        write_synthetic(tmp_path / "x.safetensors", config=SYNTHETIC_VARIANTS["atto"])
    assert list(tmp_path.iterdir()) == []


def test_unwritable_target(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="cannot be written"):
        write_synthetic(tmp_path / "file" / "x.safetensors", config=SYNTHETIC_VARIANTS["atto"])
