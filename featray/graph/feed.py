"""Graph. The feed: both ends of a bounded queue that passes listed videos to the running graph.

The driver lists and feeds. When the cluster is busy, the size of the queue and the lead of planning apply backpressure.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pyarrow as pa
import ray
import ray.exceptions
from ray.data import DataContext, Datasource, ReadTask
from ray.data.block import BlockMetadata
from ray.util.queue import Full, Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from featray.extract.plan import VideoTask
from featray.graph import metrics
from featray.graph.ray_internals import Lead
from featray.records import dump

_QUEUED_PAGES = 64
"""Maximum pages of videos in the queue."""

_LEAST_AHEAD = 256
_AHEAD_OF_EACH = 32
"""Maximum blocks that wait for a worker before the feed pauses: per decode worker, and a lower bound. This is seconds
of work even if units are tiny. Each block takes 9 kB of the driver's memory, and a dataset may have millions."""

_LOOK_EVERY_SECONDS = 0.2
"""Interval between checks of the lead while the feed pauses; Ray Data updates it ten times per second."""

_DEPTH_EVERY_SECONDS = 5


class Feeder:
    """Moves pages from the listing into the graph's queue, in a thread, as the work proceeds.

    Args:
        pages: pages of the listing.
        lead: returns how far planning is ahead of the work.
        decode_workers: number of decode workers of the stream.
    """

    def __init__(self, pages: Iterator[list[VideoTask]], lead: Callable[[], Lead], decode_workers: int) -> None:
        placed = {"num_cpus": 0, "scheduling_strategy": beside_driver()}
        self.queue = Queue(maxsize=_QUEUED_PAGES, actor_options=placed)
        self._pages, self._lead = pages, lead
        self._most_ahead = max(_LEAST_AHEAD, _AHEAD_OF_EACH * decode_workers)
        self._stopped = threading.Event()
        self._error: Exception | None = None
        self._is_done = False
        self._thread = threading.Thread(target=self._feed, name="featray-feed", daemon=True)
        self._thread.start()

    def _feed(self) -> None:
        fed = 0
        try:
            for page in self._pages:
                while not self._has_room(fed):
                    if self._stopped.wait(_LOOK_EVERY_SECONDS):
                        return
                if not self._put([dump(task).decode() for task in page]):
                    return
                fed += len(page)
        except ray.exceptions.RayError:
            return  # the queue is gone; its reader notices that too
        except Exception as error:  # noqa: BLE001 - after any error: a stream whose feed never ends waits forever
            self._error = error
        self._is_done = True
        with suppress(ray.exceptions.RayError):
            self._put(None)
            while not self._stopped.wait(_DEPTH_EVERY_SECONDS):
                metrics.record(metrics.QUEUE_DEPTH, self.queue.qsize())

    def _has_room(self, fed: int) -> bool:
        ahead = self._lead()
        return max(fed - ahead.videos_planned, ahead.blocks_waiting) < self._most_ahead

    def _put(self, page: list[str] | None) -> bool:
        while not self._stopped.is_set():
            try:
                self.queue.put(page, timeout=1)
                metrics.record(metrics.QUEUE_DEPTH, self.queue.qsize())
                return True
            except Full:
                continue
        return False

    def is_taken(self) -> bool:
        """Return whether all pages were fed and consumed by the stream.

        If not, after the stream has ended, the reading task has died with its process: Ray Data then continues without
        it, as if there were no more pages.
        """
        try:
            return self._is_done and self.queue.empty()
        except ray.exceptions.RayError:
            return False

    def stop(self) -> None:
        """End the thread and the queue."""
        self._stopped.set()
        self._thread.join(timeout=10)
        self.queue.shutdown(force=True)
        metrics.record(metrics.QUEUE_DEPTH, 0)

    def join(self) -> None:
        """Wait until the thread no longer uses the listing, however slow that is; another feeder may then take over."""
        self._thread.join()

    def raise_error(self) -> None:
        """Raise the exception that ended the listing, if any."""
        if self._error is not None:
            raise self._error


class VideoFeed(Datasource):
    """A dataset that grows while it is read: pages of VideoTasks from a `Feeder`'s queue, until None arrives."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def estimate_inmemory_data_size(self) -> int | None:
        """Return None: the size is unknown while the listing continues."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: DataContext | None = None
    ) -> list[ReadTask]:
        """Return one task that yields a block per page as pages arrive."""
        queue = self._queue

        def read() -> Iterator[pa.Table]:
            while (page := queue.get()) is not None:
                yield pa.table({"task": page})

        return [ReadTask(read, BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None))]


def beside_driver() -> NodeAffinitySchedulingStrategy:
    """Return a strategy that keeps an actor or task on the driver's node, so that it is lost only with the driver.

    The feed delivers each page once: if it were read again after the loss of another node, it would wait forever.
    """
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
