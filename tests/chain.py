"""The whole chain without Ray: the real runner with a session that works in this process.

Everything but the scheduling is the product's own code: planning, decoding, detection,
inference, landing, publishing. Outputs for tests of the tables are made with it.
"""

from __future__ import annotations

import io
from contextlib import ExitStack
from unittest import mock

from rich.console import Console

from featray.config import Config, parse_config
from featray.extract.child import ChildSettings
from featray.graph.rows import Receipt
from featray.graph.stages import DecodeDetect, Infer, LandParts, PlanVideos
from featray.graph.workers import Workers
from featray.run import runner
from featray.run.progress import Progress
from featray.tables.publish import publish_shard

_ENGINES: dict[str, Infer] = {}


class LocalSession:
    """A `Session` that does the stages' work one after the other, and publishes at once."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._commits = []

    def __enter__(self):
        self.workers = Workers(plan=1, decode=1, decode_cpus=1, infer=1, land=1, infer_cpus=1, infer_gpus=0)
        return self

    def __exit__(self, *_):
        pass

    def stream(self, partition, run_id, engine, detector, pages, unfinished):
        import pyarrow as pa

        child = ChildSettings(
            self._config.decode, self._config.detect, self._config.input.storage_options, detector_sha256=detector
        )
        plan, decode = PlanVideos(partition, child), DecodeDetect(child)
        if repr(engine) not in _ENGINES:
            _ENGINES[repr(engine)] = Infer(engine)
        infer = _ENGINES[repr(engine)]
        try:
            for page in pages:
                for task in page:
                    for units in plan(pa.table({"task": [task.to_json()]})):
                        for chunk in decode(units):
                            for row in infer(chunk):
                                (receipt,) = LandParts(partition, run_id, 1)(row).to_pylist()
                                yield Receipt(**receipt)
        finally:
            plan._decoder.close()
            decode._decoder.close()

    def publish(self, partition, manifest, settings):
        self._commits.append(publish_shard(partition, manifest, settings))

    def published(self, *, wait):
        done, self._commits = self._commits, []
        return done


class KilledSession(LocalSession):
    """One whose driver is gone when a shard is complete: everything has landed, nothing is published."""

    def publish(self, partition, manifest, settings):
        raise Killed


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def run_here(config: Config, session: type[LocalSession] = LocalSession) -> runner.Summary:
    """`runner.run` without Ray. With a KilledSession it raises Killed, and no row of the run's end is written."""
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(runner, "Session", session))
        if session is KilledSession:
            stack.enter_context(mock.patch.object(runner, "end_run", lambda *_: None))
        return runner.run(config, Progress(Console(file=io.StringIO()), quiet=True))


def small_config(uris, out, checkpoint, **sections) -> Config:
    """A config with the small synthetic network, few frames and several units a video."""
    data = {
        "dataset": "test",
        "input": {"uris": [str(uri) for uri in uris]},
        "output": {"uri": str(out)},
        "decode": {"sample": {"every": 24}, "unit_frames": 16},
        "model": {"checkpoint": str(checkpoint)},
        "cluster": {"gpus_per_worker": 0},
        **sections,
    }
    return parse_config(data)
