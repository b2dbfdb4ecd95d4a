"""Run. The executor without Ray: stages run in threads of this process, decoding in child processes.

    videos -> [plan, decode + detect: a thread and a child process each] -> chunks
           -> [infer: one engine on all CPUs, or a GPU] -> features -> [land] -> receipts

The queues between stages are short, so a slow stage applies backpressure to the stages before it. If a child dies, only
its unit is lost, as with Ray; an error of the storage or of the network ends the run. Shards are published in parallel
with the work, one at a time.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

import pyarrow as pa

from featray.config import ClusterConfig
from featray.extract.isolation import IsolatedDecoder
from featray.extract.plan import Pages, VideoTask
from featray.graph.machine import gpu_model, local_cpus
from featray.graph.rows import Receipt
from featray.graph.stages import DecodeDetect, Infer, LandParts, PlanVideos, StageSettings
from featray.graph.workers import Workers, local_workers
from featray.records import dump
from featray.tables.commits import Commit, ShardManifest
from featray.tables.publish import PublishSettings, publish_shard

_Item = TypeVar("_Item")

_CHUNKS_WAITING: Final = 2
"""Chunks of 50 MB each: one ready for the engine, one in transit."""

_ROWS_WAITING: Final = 8
"""Queued features and receipts, which are small."""


class LocalSession:
    """A `Session` in this process.

    Attributes:
        decode_bytes: peak memory of the decoding processes that have ended; 0 if unknown.
    """

    def __init__(self, cluster: ClusterConfig, stages: StageSettings) -> None:
        self._stages = stages
        decode_gpus = cluster.decode_gpus if stages.child.needs_gpu else 0.0
        self.workers: Workers = local_workers(local_cpus(), stages.infer.gpu, cluster, decode_gpus)
        self.decode_bytes = 0
        self._infer: Infer | None = None
        self._flow: _Flow | None = None
        self._publisher = ThreadPoolExecutor(1, "featray-publish")
        self._publishing: deque[Future[Commit]] = deque()

    @property
    def gpus(self) -> str | None:
        """Return the model of the GPU that the network or decoding runs on; None without."""
        return gpu_model() if self._stages.infer.gpu or self._stages.child.needs_gpu else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._flow is not None:
            self._flow.stop()
        self._infer = None  # frees its threads and memory
        self._publisher.shutdown(wait=True, cancel_futures=True)

    def stream(self, pages: Pages, unfinished: Callable[[Pages], Pages]) -> Iterator[Receipt]:
        """See `Session`; a local stream never has to restart."""
        self._flow = flow = _Flow()
        stages = self._stages
        work, land = _Work(pages, flow), LandParts(stages.partition, stages.run_id, stages.max_attempts)
        chunks = _Line[pa.Table](flow, self.workers.decode, _CHUNKS_WAITING)
        features = _Line[pa.Table](flow, 1, _ROWS_WAITING)
        receipts = _Line[pa.Table](flow, self.workers.land, _ROWS_WAITING)
        for _ in range(self.workers.decode):
            decoder = IsolatedDecoder(stages.child)
            flow.start(chunks, self._decode, work, decoder, closing=partial(self._end, decoder), stopping=decoder.kill)
        flow.start(features, self._run_network, chunks, stopping=self._stop_network)
        for _ in range(self.workers.land):
            flow.start(receipts, map, land, features)
        try:
            for table in receipts:
                for row in table.to_pylist():
                    yield Receipt(**row)
        except _Stopped:
            flow.raise_error()
        finally:
            flow.stop()

    def _decode(self, work: _Work, decoder: IsolatedDecoder) -> Iterator[pa.Table]:
        plan, decode = PlanVideos(self._stages.partition, decoder), DecodeDetect(decoder)
        while (task := work.next()) is not None:
            if isinstance(task, VideoTask):
                for units in plan(pa.table({"task": [dump(task).decode()]})):
                    work.add(units.slice(i, 1) for i in range(units.num_rows))
            else:
                yield from decode(task)

    def _end(self, decoder: IsolatedDecoder) -> None:
        decoder.close()
        self.decode_bytes = max(self.decode_bytes, decoder.peak_bytes)

    def _run_network(self, chunks: Iterable[pa.Table]) -> Iterator[pa.Table]:
        if self._infer is None:  # kept for the next attempt
            infer = self._stages.infer
            self._infer = Infer(infer if infer.gpu else replace(infer, threads=self.workers.infer))
        for chunk in chunks:
            yield from self._infer(chunk)
            del chunk

    def _stop_network(self) -> None:
        if self._infer is not None:
            self._infer.stop()

    def publish(self, manifest: ShardManifest, settings: PublishSettings) -> None:
        """See `Session`; one shard at a time."""
        settings = replace(settings, published_at_us=time.time_ns() // 1000)
        partition = self._stages.partition
        self._publishing.append(self._publisher.submit(publish_shard, partition, manifest, settings))

    def published(self, *, wait: bool) -> list[Commit]:
        """See `Session`."""
        commits = []
        while self._publishing and (wait or self._publishing[0].done()):
            commits.append(self._publishing.popleft().result())
        return commits


class _Work:
    """The work list of decode workers: units of planned videos first, then the next video to plan."""

    def __init__(self, pages: Pages, flow: _Flow) -> None:
        self._videos = (task for page in pages for task in page)
        self._listing = threading.Lock()
        self._flow = flow
        self._units: deque[pa.Table] = deque()
        self._being_planned = 0
        self._listed_all = False

    def next(self) -> VideoTask | pa.Table | None:
        """Return a video to plan, the row of a unit to decode, or None at the end of the work."""
        while True:
            with self._flow.changed:
                self._flow.wait_for(lambda: self._units or not self._listed_all or not self._being_planned)
                if self._units:
                    return self._units.popleft()
                if self._listed_all:
                    return None
            with self._listing:  # a separate lock, since listing a storage can be slow
                task = next(self._videos, None)
            with self._flow.changed:
                self._listed_all = task is None
                self._being_planned += task is not None
                self._flow.changed.notify_all()
            if task is not None:
                return task

    def add(self, units: Iterable[pa.Table]) -> None:
        """Add the units of a planned video."""
        with self._flow.changed:
            self._units.extend(units)
            self._being_planned -= 1
            self._flow.changed.notify_all()


class _Flow:
    """Threads and the queues between them, which end together: when all work is done, on an error, or when stopped."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self._stopped = False
        self._threads: list[threading.Thread] = []
        self._stopping: dict[int, Callable[[], object]] = {}
        self._error: BaseException | None = None

    def wait_for(self, holds: Callable[[], object]) -> None:
        """Wait, holding `changed`, until the condition `holds`; raise _Stopped if the flow ends first."""
        self.changed.wait_for(lambda: self._stopped or holds())
        if self._stopped:
            raise _Stopped

    def start(
        self,
        out: _Line[pa.Table],
        work: Callable[..., Iterable[pa.Table]],
        *arguments: object,
        closing: Callable[[], object] = lambda: None,
        stopping: Callable[[], object] = lambda: None,
    ) -> None:
        """Start a thread that puts the items of `work` into `out`.

        Args:
            out: the queue.
            work: called with the arguments; its items are queued.
            arguments: arguments of `work`.
            closing: called by the thread when it ends.
            stopping: called when the flow is stopped, to make `work` end soon.
        """

        def run() -> None:
            try:
                try:
                    for item in work(*arguments):
                        out.put(item)
                finally:
                    with self.changed:
                        self._stopping.pop(number, None)
                    closing()
            except _Stopped:
                pass
            except BaseException as error:  # noqa: BLE001 - raised where receipts are taken
                self._error = self._error or error
                self._end()
            finally:
                out.close()  # whatever happened: the next stage waits for it

        number = len(self._threads)
        self._stopping[number] = stopping
        self._threads.append(threading.Thread(target=run, name="featray-stage", daemon=True))
        self._threads[-1].start()

    def raise_error(self) -> None:
        """Raise the exception that ended a thread, if any."""
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Stop all threads and wait for them; only batches and writes in progress are finished."""
        self._end()
        for thread in self._threads:
            thread.join()

    def _end(self) -> None:
        with self.changed:
            self._stopped = True
            stopping, self._stopping = self._stopping, {}
            self.changed.notify_all()
        for stop in stopping.values():
            stop()


class _Stopped(BaseException):
    """The flow has ended."""


class _Line(Generic[_Item]):
    """A bounded queue that ends once all threads that fill it have ended."""

    def __init__(self, flow: _Flow, fillers: int, size: int) -> None:
        self._flow, self._fillers, self._size = flow, fillers, size
        self._items: deque[_Item] = deque()

    def put(self, item: _Item) -> None:
        with self._flow.changed:
            self._flow.wait_for(lambda: len(self._items) < self._size)
            self._items.append(item)
            self._flow.changed.notify_all()

    def close(self) -> None:
        with self._flow.changed:
            self._fillers -= 1
            self._flow.changed.notify_all()

    def __iter__(self) -> Iterator[_Item]:
        while True:
            with self._flow.changed:
                self._flow.wait_for(lambda: self._items or not self._fillers)
                if not self._items:
                    return
                item = self._items.popleft()
                self._flow.changed.notify_all()
            yield item
            del item  # otherwise 50 MB would be kept until the next item arrives
