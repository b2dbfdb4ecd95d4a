"""The OpenVINO engine: parity with py-feat, and a cache of converted networks that survives damage and races."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from featray.errors import ModelError
from featray.model.engine_openvino import ir_key
from featray.model.engines import open_engine
from featray.weights.ir_cache import IrCache
from tests.fixtures.golden import PUBLISHED_FIRST, deviations, golden

pytestmark = pytest.mark.slow

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
@pytest.mark.parametrize("variant", PUBLISHED_FIRST)
def test_openvino_reproduces_pyfeat(variant, engine_of, chips):
    found = deviations(engine_of(variant, "openvino")(chips), golden(variant))
    print(variant, found)
    assert all(value < (1e-3 if name == "mesh" else 1e-4) for name, value in found.items()), found
    assert found["au"] < 2e-6


def test_warm_start_needs_no_torch_and_reports_no_usage(atto, engine_of, kept_cache, chips, tmp_path):
    here = engine_of("atto", "openvino")(chips)
    np.save(tmp_path / "chips.npy", chips)
    command = [sys.executable, "-c", OPEN, str(atto.path), str(kept_cache), str(tmp_path / "chips.npy")]
    facts = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    assert facts["modules"] == []
    assert facts["telemetry"] is False
    assert np.array_equal(np.array(facts["au"], np.float32), here.au)


TOGETHER = """
import os, sys, threading
from pathlib import Path
import openvino
from featray.model.checkpoint import read_checkpoint
from featray.model.engines import open_engine

engine = open_engine(
    read_checkpoint(Path(sys.argv[1])), engine="openvino", precision="fp32", batch_size=4, cache_dir=Path(sys.argv[2])
)
sys.setswitchinterval(1e-6)
gate = threading.Barrier(32)
threads = [threading.Thread(target=lambda: gate.wait() and openvino.Type.u8.to_dtype(), daemon=True) for _ in range(32)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(20)
os._exit(any(thread.is_alive() for thread in threads))
"""


def test_streams_that_begin_together_do_not_block_each_other(atto, engine_of, kept_cache):
    """Every stream starts with this call. If it was not made once before, three in four of these processes hang."""
    engine_of("atto", "openvino")
    command = [sys.executable, "-c", TOGETHER, str(atto.path), str(kept_cache)]
    for _ in range(2):
        assert subprocess.run(command, timeout=60).returncode == 0


def test_entry_files(engine_of, kept_cache):
    engine_of("atto", "openvino")
    for entry in (kept_cache / "openvino").glob("*-pyfeat-*/"):
        names = sorted(path.name for path in entry.iterdir())
        assert names == ["heads.bin", "heads.xml", "manifest.json", "trunk.bin", "trunk.xml"]


def test_without_a_cache_nothing_stays_on_disk(atto, engine_of, chips, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    engine = open_engine(atto, engine="openvino", precision="fp32", recipe="card-center-crop", batch_size=4)
    left = [path for path in tmp_path.iterdir() if not path.name.startswith("torchinductor")]  # torch's, once a process
    assert left == []
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


def read(files):
    return files["net.txt"].decode()


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


MAKE = """
import sys, time
from pathlib import Path
from featray.weights.ir_cache import IrCache

def make(folder):
    time.sleep(0.3)
    with open(sys.argv[1] + "/made", "a") as log:
        log.write("x")
    (folder / "net.txt").write_text("net")

print(IrCache(Path(sys.argv[1]) / "cache").load_or_make("key", read=lambda files: files["net.txt"].decode(), make=make))
"""


def test_processes_that_start_together_make_an_entry_once(tmp_path):
    command = [sys.executable, "-c", MAKE, str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate(timeout=60)[0] for process in processes] == ["net\n"] * 3
    assert (tmp_path / "made").read_text() == "x"


def test_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="cannot be used as a cache"):
        IrCache(tmp_path / "file").load_or_make("key", read=read, make=writer("a"))


@pytest.mark.parametrize("name", ["", "key", "key/net.txt", "key/manifest.json"])
def test_what_another_user_can_write_is_not_used(name, tmp_path):
    cache = IrCache(tmp_path / "openvino")
    cache.load_or_make("key", read=read, make=writer("a"))
    path = tmp_path / "openvino" / name
    path.chmod(path.stat().st_mode | 0o020)
    with pytest.raises(ModelError, match=f"{path}: other users can write to it .*delete it, or set FEATRAY_CACHE"):
        cache.load_or_make("key", read=read, make=writer("b"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_what_belongs_to_another_user_is_not_used(tmp_path):
    cache = IrCache(tmp_path)
    cache.load_or_make("key", read=read, make=writer("a"))
    os.chown(tmp_path / "key", 12345, -1)
    with pytest.raises(ModelError, match=r"owner 12345, mode 755"):
        cache.load_or_make("key", read=read, make=writer("b"))


def test_what_is_made_is_for_this_user_alone_to_write_whatever_the_umask(tmp_path):
    cache, before = IrCache(tmp_path / "openvino"), os.umask(0)
    try:
        cache.load_or_make("key", read=read, make=writer("a"))
    finally:
        os.umask(before)
    assert cache.load_or_make("key", read=read, make=writer("b")) == "a"
