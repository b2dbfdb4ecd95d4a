"""Graph. The executor on Ray: connect or start, stream the graph, publish in tasks, shut down."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import ray
import ray.data
import ray.exceptions

from featray.config import ClusterConfig
from featray.errors import ConfigError, FeatrayError, RunError
from featray.extract.plan import Pages
from featray.graph import metrics
from featray.graph.capacity import Capacity
from featray.graph.connection import check_session, connect, nodes
from featray.graph.feed import Feeder
from featray.graph.pipeline import receipts
from featray.graph.ray_internals import configure_context, end_stream, lead, own_error
from featray.graph.rows import Receipt
from featray.graph.stages import StageSettings
from featray.graph.stop import Terminated
from featray.graph.workers import Node, Workers, choose_workers, unplaced
from featray.redaction import redact_logs
from featray.tables.commits import Commit, ShardManifest
from featray.tables.lease import HeldPartition
from featray.tables.publish import PublishSettings, publish_shard

log = logging.getLogger(__name__)

_ALIVE_EVERY_S = 0.5
"""Interval of the checks. Ray ends this process soon after its own processes die; until then the error can be shown."""

_BROKEN_FEEDS = 2
"""Maximum broken feeds in a row without a landed part: one may be due to the memory monitor, which kills any
process."""


class RaySession:
    """A `Session` on Ray: on an existing cluster, or on Ray started on this machine for the duration of the run."""

    def __init__(self, cluster: ClusterConfig, stages: StageSettings) -> None:
        self._cluster, self._stages = cluster, stages
        self._publishing: list[Any] = []
        self._replacing: Any = None

    def __enter__(self) -> Self:
        self._started = connect()
        configure_context()
        try:
            self._choose(nodes())
        except FeatrayError:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After SIGTERM there may be only seconds: the run's row and lease come first, and Ray ends with the process.
        if self._started and not isinstance(error, Terminated):
            ray.shutdown()

    @property
    def workers(self) -> Workers:
        """Return the workers of the current stream, or of the next one."""
        return self._capacity.workers

    @property
    def gpus(self) -> str | None:
        """Return the GPU models present when workers were last chosen, sorted by name; None if Ray names none."""
        return ", ".join(sorted({node.gpu_model for node in self._nodes if node.gpu_model})) or None

    def _choose(self, there: dict[str, Node], workers: Workers | None = None) -> None:
        cluster, self._nodes = self._cluster, list(there.values())
        decode_gpus = cluster.decode_gpus if self._stages.child.needs_gpu else 0.0
        chosen = workers or choose_workers(self._nodes, cluster, decode_gpus)
        if cluster.grows and workers is None and (problem := unplaced(chosen, self._nodes)):
            self._wait_for_nodes(problem)
        self._capacity = Capacity(chosen, there, cluster)

    def _wait_for_nodes(self, problem: str) -> None:
        """Say which workers wait for nodes; raise ConfigError if none can come."""
        if self._started:
            raise ConfigError(
                f"{problem}; featray started this Ray, which no node can join: set RAY_ADDRESS "
                "to the cluster, or leave out cluster.cpus and cluster.gpus"
            )
        log.warning("%s; they wait for further nodes, up to cluster.cpus and cluster.gpus", problem)

    def stream(self, pages: Pages, unfinished: Callable[[Pages], Pages]) -> Iterator[Receipt]:
        """Feed pages of videos to the graph and yield receipts as parts land.

        If work stops because nodes were lost, the graph is rebuilt for the remaining nodes; if the process that reads
        the feed dies, it is rebuilt too. It is then fed with the pages returned by `unfinished` for those not consumed
        yet.

        Raises:
            FeatrayError: the listing, the start of a stage or the job failed; or no node came back for too long.
        """
        broken_feeds = 0
        while True:
            feed, watch, is_taken = Feeder(pages, lead, self.workers.decode), _Watch(self._capacity), False
            try:
                with watch:
                    for receipt in receipts(self._stages, self.workers, feed.queue):
                        self._capacity.heard()
                        broken_feeds = 0
                        yield receipt
                is_taken = feed.is_taken()
            except ray.exceptions.RayError as error:
                if not watch.ended:
                    raise as_own_error(error) from error
            except Exception:
                if not watch.ended:  # otherwise a consequence of ending the stream
                    raise
            finally:
                feed.stop()
            feed.raise_error()
            if watch.error is not None:
                raise watch.error
            if watch.ended:
                self._choose(watch.nodes, watch.workers)
            elif is_taken:
                return
            else:
                broken_feeds = _one_more(broken_feeds)
            feed.join()
            pages = unfinished(pages)

    def publish(self, manifest: ShardManifest, settings: PublishSettings) -> None:
        """Start publishing a shard in its own task; shards that replace rows are published one at a time."""
        settings = replace(settings, published_at_us=time.time_ns() // 1000)  # so that a retried task writes the same
        task = _publish.remote(self._stages.partition, manifest, settings, self._replacing)
        if any(video.replaces for video in manifest.videos):
            self._replacing = task
        self._publishing.append(task)

    def published(self, *, wait: bool) -> list[Commit]:
        """Return the commits of shards published since the last call; with `wait`, of all that were started."""
        if not self._publishing:
            return []
        count = len(self._publishing)
        done, self._publishing = ray.wait(self._publishing, num_returns=count, timeout=None if wait else 0)
        try:
            commits = list(ray.get(done))
        except ray.exceptions.RayError as error:
            raise as_own_error(error) from error
        metrics.record_commits(commits, self._stages.partition.dataset)
        return commits


@ray.remote(num_cpus=0.1, max_retries=3)
def _publish(partition: HeldPartition, manifest: ShardManifest, settings: PublishSettings, after: object) -> Commit:
    """Run `publish_shard` as a task; `after` is a task that must finish first."""
    redact_logs()
    return publish_shard(partition, manifest, settings)


class _Watch:
    """Watches the nodes in a thread while a stream runs, and ends the stream if it waits for lost nodes in vain.

    Attributes:
        ended: whether the stream was ended.
        workers: workers with which to rebuild the stream for `nodes`; None if the run ends.
        error: the error that ends the run, else None.
    """

    def __init__(self, capacity: Capacity) -> None:
        self.ended = False
        self.workers: Workers | None = None
        self.nodes: dict[str, Node] = {}
        self.error: RunError | None = None
        self._capacity = capacity
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="featray-nodes", daemon=True)

    def __enter__(self) -> None:
        self._capacity.heard()
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        looked = time.monotonic()
        while not self._stopped.wait(min(_ALIVE_EVERY_S, self._capacity.look_every_s)):
            try:
                check_session()
                if time.monotonic() - looked < self._capacity.look_every_s:
                    continue
                looked = time.monotonic()
                self.nodes = nodes()
                self.workers = self._capacity.look(self.nodes)
            except ray.exceptions.RayError:
                continue  # the head does not answer; if that persists, the stream fails
            except RunError as error:
                self.error = error
            if self.workers is None and self.error is None:
                continue
            self.ended = True
            if end_stream():
                return
            self.ended, self.error = False, None


def _one_more(broken_feeds: int) -> int:
    """Count a feed whose reader died; raise RunError after too many in a row."""
    if broken_feeds == _BROKEN_FEEDS:
        raise RunError(
            f"the reader of the list of videos died {broken_feeds + 1} times in a row on the driver's node, probably "
            "for lack of memory; give it more and run again: what has landed is kept"
        )
    log.warning("the reader of the list of videos died with its process; restarting the stream")
    return broken_feeds + 1


def as_own_error(error: BaseException) -> FeatrayError:
    """Return the featray error inside a Ray error, else a RunError with the last line of its text."""
    if (own := own_error(error)) is not None:
        return own
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return RunError(f"the cluster reports {type(error).__name__}: {lines[-1] if lines else 'no details'}")
