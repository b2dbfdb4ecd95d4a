"""The decoding process with a GPU: its environment, its limits, and the error if there is no GPU."""

import os
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from featray.config import DecodeConfig, DetectConfig, EveryNth
from featray.errors import ModelError
from featray.extract.child import ChildSettings
from featray.extract.devices import HEADROOM_GIB, OPEN_FILES
from featray.extract.isolation import IsolatedDecoder
from featray.graph.stages import DecodeDetect
from featray.model.gpu import STAND_IN
from featray.records import dump

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
SETTINGS = ChildSettings(DecodeConfig(sample=EveryNth(every=24)), DetectConfig(device="gpu"), {})


def limit_of(pid, name):
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).removeprefix(name).split()[0])


def test_a_unit_is_that_of_the_cpu(decoder, task, monkeypatch):
    """Runs through the decoding process, with its limits on; frames do not leave that process."""
    monkeypatch.setenv(STAND_IN, "cpu")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    (found,) = decoder.chunks(task)
    pid = decoder.process_id
    plain = IsolatedDecoder(SETTINGS.without_gpu())
    (expected,) = plain.chunks(task)
    plain.close()
    assert found.outcome.failures == expected.outcome.failures == []
    assert len(found.chips) == len(expected.chips) > 0
    boxes = [
        table.select(["box_x1", "box_y1", "box_x2", "box_y2"]).to_pandas() for table in (found.faces, expected.faces)
    ]
    assert (boxes[0] - boxes[1]).abs().to_numpy().max() < 1e-3
    assert abs(found.chips.astype(int) - expected.chips).max() <= 1
    assert f"{found.frames.drop_columns('thumbnail')}" == f"{expected.frames.drop_columns('thumbnail')}"
    assert b"CUDA_VISIBLE_DEVICES=3\0" in Path(f"/proc/{pid}/environ").read_bytes()
    assert "\nSeccomp:\t2\n" in Path(f"/proc/{pid}/status").read_text(), "it met a video without being confined"
    assert limit_of(pid, "Max data size") == (SETTINGS.decode.memory_limit_gib + HEADROOM_GIB) * 2**30
    assert limit_of(pid, "Max open files") in (OPEN_FILES, *range(OPEN_FILES))


@no_gpu
def test_a_worker_without_its_gpu_does_not_start(decoder):
    with pytest.raises(
        ModelError, match=r"^detect.device: gpu, but torch .* sees no CUDA device on .*: cpu$"
    ) as raised:
        DecodeDetect(decoder)
    assert "\n" not in str(raised.value)


@no_gpu
def test_a_worker_that_has_lost_its_gpu_gives_up_in_place_of_failing_each_unit(decoder, task, monkeypatch):
    """A GPU was there at the start; the decoding process has ended, and the next one finds no GPU."""
    monkeypatch.setenv(STAND_IN, "cpu")
    said = []
    worker = DecodeDetect(decoder, give_up=said.append)
    assert decoder.process_id is not None, "it is started before there is work"
    decoder.close()
    monkeypatch.delenv(STAND_IN)
    assert list(worker(pa.table({"task": [dump(task).decode()]}))) == []
    (message,) = said
    assert message.startswith(f"{os.uname().nodename}: detect.device: gpu, but torch") and "\n" not in message


def test_who_plans_needs_no_gpu(task):
    planner = IsolatedDecoder(SETTINGS.without_gpu())
    assert planner.plan(task.video).failure is None
    planner.close()
