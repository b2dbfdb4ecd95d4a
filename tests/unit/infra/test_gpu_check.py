"""`make gpu-check` on a simulated bare machine: torch's CPU as the GPU, and featray's own dependencies missing."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.benchmarks import gpu_check

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]

BARE = """
import runpy, sys
for name in "ray openvino av pydantic pyarrow fsspec duckdb onnxruntime click s3fs feat".split():
    sys.modules[name] = None
sys.argv = ["gpu_check.py", *sys.argv[1:]]
runpy.run_path("tests/benchmarks/gpu_check.py", run_name="__main__")
"""


def check(*arguments):
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=500)


def test_all_parts_run_without_what_a_bare_machine_lacks(tmp_path):
    done = check("-c", BARE, "--device", "cpu", "--quick", "--json", str(tmp_path / "found.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    parts, failed = found["parts"], found["failed"]
    assert not failed and "pydantic is not installed" in done.stdout
    assert {name for name, part in parts.items() if "left_out" in part} == {"memory", "graphs", "nvdec"}
    assert parts["nvdec"]["left_out"] == "av is not installed"
    assert all(one["ok"] for one in parts["parity"]["variants"].values()) and len(parts["parity"]["variants"]) == 2
    assert parts["detection"]["boxes"] > 0 and parts["detection"]["boxes_off_px"] < 1e-3
    assert parts["engine"]["faces_per_s"]["fp32 1"] > 0 and parts["engine"]["pyfeat"] == "feat is not installed"
    assert parts["feeding"]["1080p"]["workers"] > 0


def broken(part):
    return {
        "raises": lambda _: 1 / 0,
        "dies": lambda _: os._exit(6),
        "hangs": lambda _: time.sleep(600),
        "is off": lambda _: {"failed": ["a number is off"]},
        "works": lambda _: {"well": 1},
    }[part]


def test_parts_that_fail_cost_themselves(monkeypatch, tmp_path, capfd):
    names = ["raises", "dies", "hangs", "is off", "works"]
    monkeypatch.setattr(gpu_check, "PARTS", {name: (broken(name), 1 if name == "hangs" else 60) for name in names})
    some = gpu_check.Check(on_gpu=False, quick=False, folder=tmp_path)
    failed = gpu_check.run_parts(some, names)
    assert [reason.partition(":")[0] for reason in failed] == names[:-1]
    assert "ZeroDivisionError" in failed[0] and "(6)" in failed[1] and "not done in 1 s" in failed[2]
    assert some.found["works"]["well"] == 1
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_all_parts_together_take_less_than_eight_minutes():
    assert sum(seconds for _, seconds in gpu_check.PARTS.values()) < 480


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_where_there_is_no_gpu_it_says_so(tmp_path):
    done = check("tests/benchmarks/gpu_check.py", "--json", str(tmp_path / "found.json"))
    assert done.returncode == 2 and "torch sees no CUDA device here" in done.stderr
    assert not (tmp_path / "found.json").exists()
