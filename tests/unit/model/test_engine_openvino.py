"""The OpenVINO engine: parity, and a cache of converted networks that survives anything."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from featray.errors import ModelError
from featray.model.engines import open_engine
from featray.model.ir_cache import IrCache, ir_key

from .conftest import VARIANTS, deviations, golden

OPEN = """
import json, sys
from pathlib import Path
import numpy as np
from featray.model.checkpoint import read_checkpoint
from featray.model.engines import open_engine

engine = open_engine(
    read_checkpoint(Path(sys.argv[1])), engine="openvino", precision="fp32", batch_size=4, cache_dir=Path(sys.argv[2])
)
chips = np.load(sys.argv[3])
facts = {
    "au": engine(chips).au.tolist(),
    "modules": sorted({"torch", "timm", "huggingface_hub"} & set(sys.modules)),
    "telemetry": sys.modules["openvino_telemetry"] is not None,
}
print(json.dumps(facts))
"""


@pytest.mark.parity
@pytest.mark.parametrize("variant", VARIANTS)
def test_openvino_reproduces_pyfeat(variant, engine_of, chips):
    found = deviations(engine_of(variant, "openvino")(chips), golden(variant))
    print(variant, found)
    assert all(value < (1e-3 if name == "mesh" else 1e-4) for name, value in found.items()), found
    assert found["au"] < 2e-6


@pytest.fixture
def other_process(atto, chips, tmp_path, model_dir):
    """Starts a process that opens atto with a cache and prints what it saw."""
    np.save(tmp_path / "chips.npy", chips)

    def start(cache):
        arguments = [str(atto.path), str(cache), str(tmp_path / "chips.npy")]
        return subprocess.Popen([sys.executable, "-c", OPEN, *arguments], stdout=subprocess.PIPE, text=True)

    def finish(process):
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        return json.loads(out)

    start.finish = finish
    return start


def test_warm_start_needs_no_torch_and_reports_no_usage(engine_of, other_process, model_dir, chips):
    here = engine_of("atto", "openvino")(chips)
    facts = other_process.finish(other_process(model_dir / "cache"))
    assert facts["modules"] == []
    assert facts["telemetry"] is False
    assert np.array_equal(np.array(facts["au"], np.float32), here.au)


def test_processes_that_start_together_convert_once(other_process, tmp_path, engine_of, chips):
    first, second = other_process(tmp_path / "cache"), other_process(tmp_path / "cache")
    facts = [other_process.finish(process) for process in (first, second)]
    assert sorted(len(fact["modules"]) for fact in facts) == [0, 2]  # one waited for the other's conversion
    here = engine_of("atto", "openvino")(chips)
    for fact in facts:
        assert np.array_equal(np.array(fact["au"], np.float32), here.au)
    (entry,) = [path for path in (tmp_path / "cache" / "openvino").iterdir() if path.is_dir()]
    assert sorted(path.name for path in entry.iterdir()) == [
        "heads.bin", "heads.xml", "manifest.json", "trunk.bin", "trunk.xml",
    ]  # fmt: skip


def test_without_a_cache_nothing_stays_on_disk(atto, engine_of, chips, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    engine = open_engine(atto, engine="openvino", precision="fp32", recipe="card-center-crop", batch_size=4)
    assert list(tmp_path.iterdir()) == []
    assert deviations(engine(chips), engine_of("atto", "openvino")(chips))["mesh"] > 0.01  # another recipe


def test_key_holds_everything_that_the_network_depends_on(atto):
    facts = {"recipe": "pyfeat", "batch": 4, "openvino_version": "1"}
    keys = {
        ir_key(atto, **facts),
        ir_key(atto, **facts | {"recipe": "card-center-crop"}),
        ir_key(atto, **facts | {"batch": 8}),
        ir_key(atto, **facts | {"openvino_version": "2"}),
        ir_key(replace(atto, sha256="0" * 64), **facts),
    }
    assert len(keys) == 5
    assert ir_key(atto, **facts) in keys


def read(folder):
    return (folder / "net.txt").read_text()


def writer(text):
    return lambda folder: (folder / "net.txt").write_text(text)


def test_entries_are_whole_or_absent(tmp_path, caplog):
    cache = IrCache(tmp_path)
    (tmp_path / ".key.left-by-a-killed-process").mkdir()

    def fail(folder):
        writer("half")(folder)
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError):
        cache.load_or_make("key", read=read, make=fail)
    assert [path.name for path in tmp_path.iterdir()] == ["key.lock"]
    assert cache.load_or_make("key", read=read, make=writer("a")) == "a"
    assert cache.load_or_make("key", read=read, make=writer("b")) == "a"
    assert not caplog.records


@pytest.mark.parametrize("file", ["net.txt", "manifest.json"])
@pytest.mark.parametrize("content", [b"", b"[]", b"\xff"])
def test_damaged_entries_are_made_again(file, content, tmp_path, caplog):
    cache = IrCache(tmp_path)
    cache.load_or_make("key", read=read, make=writer("a"))
    (tmp_path / "key" / file).write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert cache.load_or_make("key", read=read, make=writer("b")) == "b"
    assert "damaged" in caplog.text


def test_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="cannot be used as a cache"):
        IrCache(tmp_path / "file").load_or_make("key", read=read, make=writer("a"))
