"""The executor without Ray: threads, queues between them, and how they end."""

import contextlib
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from featray.errors import ModelError, StorageError
from featray.extract.forkserver import CHILD_NAME
from featray.extract.plan import VideoTask
from featray.graph.stages import Infer
from featray.run import local_session
from featray.run.job import describe
from featray.run.local_session import LocalSession, _Flow, _Line, _Stopped, _Work
from featray.sources.listing import list_videos
from featray.tables.layout import Partition, open_output
from featray.tables.lease import UnheldPartition
from featray.tables.publish import PublishSettings
from tests.fixtures.runs import run_here, small_config


@pytest.fixture
def work(short_clip, clips, small_network, tmp_path):
    """Return a session over two clips, and the pages of their tasks."""
    config = small_config(
        [short_clip, clips / "no_face.mp4"],
        tmp_path / "out",
        small_network,
        decode={"sample": {"every": 5}, "unit_frames": 16},
        cluster={"decode_workers": 2},
    )
    job = describe(config)
    output = open_output(config.output.uri, create=True)
    partition = UnheldPartition(Partition(output, config.dataset, job.release))
    tasks = [VideoTask(video, "f" * 64, "shard") for video in list_videos(config.input)]
    return LocalSession(config.cluster, job.stage_settings(partition)), iter([tasks])


def same(rest):
    return rest


def stage_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith(("featray-stage", "featray-publish"))]


def forked_here():
    """Return the decoding processes of this process's fork server; none of them is a direct child of this process."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
            parents[int(status.parent.name)] = fields["Name"], int(fields["PPid"])
    return [
        pid
        for pid, (name, parent) in parents.items()
        if name == CHILD_NAME and parents.get(parent, ("", 0))[1] == os.getpid()
    ]


def test_every_unit_gives_its_receipts_and_nothing_is_left_running(work):
    session, pages = work
    with session:
        receipts = list(session.stream(pages, same))
    assert {(r.unit, r.units) for r in receipts if r.units == 2} == {(0, 2), (1, 2)}
    assert sum(r.frames for r in receipts) == 20 + 19 and sum(r.faces for r in receipts) == 20
    assert all(r.last and not r.failed for r in receipts)
    assert stage_threads() == []


def test_who_stops_listening_ends_threads_and_children(work):
    session, pages = work
    with session:
        stream = session.stream(pages, same)
        next(stream)
        assert forked_here()
        stream.close()
        assert stage_threads() == []
    until = time.monotonic() + 10  # a killed process is there until its parent has been told
    while forked_here() and time.monotonic() < until:
        time.sleep(0.05)
    assert forked_here() == []


def test_an_engine_that_is_lost_ends_the_run_and_says_why(work, monkeypatch):
    class Lost:
        def __call__(self, chips):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

        def is_usable(self):
            return False

        def stop(self):
            pass

    monkeypatch.setattr(Infer, "_start", lambda self, settings: setattr(self, "engine", Lost()))
    monkeypatch.setattr(Infer, "checkpoint_config", None, raising=False)
    session, pages = work
    with session, pytest.raises(ModelError, match="no longer usable: RuntimeError: CUDA error: an illegal memory"):
        list(session.stream(pages, same))
    assert stage_threads() == []


def test_a_ledger_that_cannot_be_written_ends_the_run(work):
    session, pages = work
    landing = session._stages.partition.landing().path
    os.makedirs(os.path.dirname(landing))
    with open(landing, "w") as file:
        file.write("in the way")
    with session, pytest.raises(StorageError, match="landing"):
        list(session.stream(pages, same))
    assert stage_threads() == []


def test_what_ends_the_listing_ends_the_run(work):
    session, pages = work

    def broken():
        yield next(pages)
        raise StorageError("s3://videos: access denied")

    with session, pytest.raises(StorageError, match="access denied"):
        list(session.stream(broken(), same))
    assert stage_threads() == []


def test_a_second_attempt_uses_the_same_network(work, monkeypatch):
    session, pages = work
    opened, start = [], Infer._start

    def counted(self, settings):
        opened.append(settings.threads)
        start(self, settings)

    monkeypatch.setattr(Infer, "_start", counted)
    (tasks,) = pages
    with session:
        first = list(session.stream(iter([tasks]), same))
        again = list(session.stream(iter([[replace(task, attempt=2) for task in tasks]]), same))
    assert opened == [session.workers.infer]
    assert [r.faces for r in again] and sum(r.faces for r in again) == sum(r.faces for r in first)


def test_workers_wait_for_the_units_of_a_video_that_is_being_planned():
    """Otherwise one worker would get all units of a single long video, because the others would find nothing to do."""
    flow = _Flow()
    work, taken = _Work(iter([["video"]]), flow), []
    assert work.next() == "video"
    waiting = threading.Thread(target=lambda: taken.append(work.next()))
    waiting.start()
    time.sleep(0.1)
    assert waiting.is_alive() and not taken
    work.add([pa.table({"task": [name]}) for name in ("one", "two")])
    waiting.join(5)
    assert taken[0]["task"].to_pylist() == ["one"]
    assert work.next()["task"].to_pylist() == ["two"]
    assert work.next() is None


def test_a_full_line_holds_back_who_fills_it():
    flow = _Flow()
    line, put = _Line(flow, 1, 2), []

    def fill():
        for item in range(4):
            line.put(item)
            put.append(item)
        line.close()

    threading.Thread(target=fill, daemon=True).start()
    time.sleep(0.1)
    assert put == [0, 1]
    assert list(line) == [0, 1, 2, 3]


def test_a_thread_that_cannot_be_closed_ends_what_waits_for_it():
    def fails():
        raise OSError("no such process")

    flow = _Flow()
    line = _Line(flow, 1, 1)
    flow.start(line, iter, [1], closing=fails)
    with pytest.raises(_Stopped):
        list(line)
    with pytest.raises(OSError, match="no such process"):
        flow.raise_error()
    flow.stop()


def test_shards_are_published_one_after_the_other(work, monkeypatch):
    running, most = [0], [0]

    def publish(partition, manifest, settings):
        running[0] += 1
        most[0] = max(most[0], running[0])
        time.sleep(0.05)
        running[0] -= 1
        assert settings.published_at_us
        return manifest

    monkeypatch.setattr(local_session, "publish_shard", publish)
    session, _ = work
    with session:
        for name in "abc":
            session.publish(name, PublishSettings("run", (), ()))
        assert session.published(wait=True) == ["a", "b", "c"]
    assert most == [1]


def test_a_hostile_video_costs_its_own_rows_only(short_clip, small_network, tmp_path):
    (tmp_path / "in").mkdir()
    whole = short_clip.read_bytes()
    for name, data in (("whole", whole), ("cut", whole[: len(whole) // 2]), ("text", b"no video\n" * 99)):
        (tmp_path / "in" / f"{name}.mp4").write_bytes(data)
    summary = run_here(small_config([f"{tmp_path}/in/*.mp4"], tmp_path / "out", small_network))
    assert summary.videos == {"ok": 1, "partial": 1, "failed": 1}
