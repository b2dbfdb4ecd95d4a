"""A decoder that aborts, hangs, over-allocates or never ends costs its unit and nothing else."""

import os
import shutil

import pytest

from featray.config import DecodeConfig, DetectConfig, EveryNth
from featray.errors import ErrorCode
from featray.extract.child import ChildSettings
from featray.extract.isolation import IsolatedDecoder
from featray.extract.plan import UnitTask
from featray.sources.listing import list_videos
from featray.tables.layout import open_output
from featray.tables.query import connect, run_sql
from featray.video.units import Unit
from tests.fixtures.faults import children, marked
from tests.fixtures.runs import make_config, run_here

CODES = {
    "abort": ErrorCode.DECODER_CRASHED,
    "hang": ErrorCode.TIMEOUT,
    "memory": ErrorCode.OUT_OF_MEMORY,
    "endless": ErrorCode.TIMEOUT,
}


@pytest.fixture
def decoder(hook_folder, monkeypatch):
    paths = [str(hook_folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    settings = DecodeConfig(sample=EveryNth(every=12), timeout_seconds=20, memory_limit_gib=1)
    decoder = IsolatedDecoder(ChildSettings(settings, DetectConfig(), {}))
    yield decoder
    decoder.close()
    assert children(hook_folder) == []


def task_for(path):
    (video,) = list_videos(make_config([path], "unused").input)
    return UnitTask(video, "key", "shard", Unit(0), 1, 1)


@pytest.mark.parametrize(
    "fault", [pytest.param(name, marks=pytest.mark.long) if name == "endless" else name for name in CODES]
)
def test_a_fault_costs_its_unit_and_not_the_next(decoder, short_clip, tmp_path, fault):
    bad = list(decoder.chunks(task_for(marked(short_clip, tmp_path / "bad.mp4", fault))))
    assert [chunk.last for chunk in bad] == [False] * (len(bad) - 1) + [True]
    assert [code for _, code, _ in bad[-1].outcome.failures] == [CODES[fault]]
    (good,) = decoder.chunks(task_for(short_clip))
    assert good.last and not good.outcome.failures
    assert good.frames.num_rows == len(good.chips) == good.faces.num_rows == 8


def test_chunks_that_are_not_taken_do_not_reach_the_next_unit(decoder, short_clip):
    first = decoder.chunks(task_for(short_clip))
    next(first)
    first.close()
    assert [chunk.part for chunk in decoder.chunks(task_for(short_clip))] == [0]


def test_isolated_chunks_are_those_of_a_direct_call(decoder, short_clip):
    from functools import partial

    from featray.extract.chunks import extract_chunks
    from featray.extract.plan import open_source
    from featray.faces.detectors import open_detector

    task = task_for(short_clip)
    settings = DecodeConfig(sample=EveryNth(every=12))
    direct = extract_chunks(task, partial(open_source, task.video, {}), settings, open_detector(DetectConfig()))
    for ours, theirs in zip(decoder.chunks(task), direct, strict=True):
        assert (ours.chips == theirs.chips).all()
        assert ours.faces == theirs.faces and ours.frames == theirs.frames


@pytest.fixture
def hooked(hook_folder, monkeypatch):
    """Set the hook for decoding children that are started from now on."""
    path = os.pathsep.join([str(hook_folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    monkeypatch.setenv("PYTHONPATH", path)


def test_nine_videos_two_of_them_poisoned(hooked, hook_folder, short_clip, tmp_path):
    """Run on the local executor; test_cluster.py has poisoned videos on Ray, including one that hangs."""
    folder = tmp_path / "in"
    folder.mkdir()
    faults = {3: "abort", 6: "memory"}
    for i in range(9):
        place = folder / f"{i:02d}.mp4"
        if i in faults:
            marked(short_clip, place, faults[i])
        else:
            shutil.copy(short_clip, place)
    config = make_config(
        [f"{folder}/*.mp4"],
        tmp_path / "out",
        decode={"sample": {"every": 24}, "memory_limit_gib": 1},
        run={"max_attempts": 2},
        cluster={"max_failed_fraction": 1},
    )
    summary = run_here(config)
    assert not children(hook_folder), "no child outlives its worker"
    # Python's own MemoryError does not kill the child, so the frames decoded before it are kept.
    assert summary.videos == {"ok": 7, "partial": 1, "failed": 1}
    connection = connect(open_output(str(tmp_path / "out")))
    rows = run_sql(connection, "SELECT uri, error_code, attempt FROM errors ORDER BY uri").read_all().to_pylist()
    assert [(int(row["uri"][-6:-4]), row["error_code"], row["attempt"]) for row in rows] == [
        (i, str(CODES[fault]), 2) for i, fault in faults.items()
    ]
    (counts,) = (
        run_sql(
            connection,
            "SELECT (SELECT count(*) FROM faces) AS faces, (SELECT sum(faces) FROM frames) AS in_frames, "
            "(SELECT count(*) FROM frames) AS frames, (SELECT sum(frames_sampled) FROM videos) AS sampled",
        )
        .read_all()
        .to_pylist()
    )
    assert counts == dict.fromkeys(("faces", "in_frames", "frames", "sampled"), 7 * 4 + 3)
