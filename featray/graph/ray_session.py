"""Graph. The executor on Ray: connect or start, stream the graph, publish in tasks, shut down."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import ray
import ray.data
import ray.exceptions

from featray.config import ClusterConfig
from featray.errors import FeatrayError, RunError, one_line
from featray.extract.plan import Pages
from featray.graph import metrics
from featray.graph.capacity import Capacity
from featray.graph.feed import Feeder
from featray.graph.machine import local_gpus
from featray.graph.pipeline import receipts
from featray.graph.ray_internals import (
    configure_context,
    end_stream,
    keep_token_private,
    lead,
    on_loopback,
    own_error,
)
from featray.graph.rows import Receipt
from featray.graph.stages import StageSettings
from featray.graph.stop import Terminated, handler_kept
from featray.graph.workers import Node, Workers, choose_workers
from featray.redaction import redact_logs
from featray.tables.commits import Commit, ShardManifest
from featray.tables.lease import HeldPartition
from featray.tables.publish import PublishSettings, publish_shard

log = logging.getLogger(__name__)

_MODEL = "accelerator_type:"

_BROKEN_FEEDS = 2
"""In a row, with nothing landed in between: the first may be the memory monitor's, which takes the easiest process."""


def connect() -> bool:
    """Connect to the cluster that is there, or start Ray on this machine; whether it was started."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if os.environ["RAY_USAGE_STATS_ENABLED"] == "0":
        # Even then Ray may report that its reports are off. It is to tell nobody: no one listens at that port.
        os.environ.setdefault("RAY_USAGE_STATS_REPORT_URL", "http://127.0.0.1:9")
    # Ray's own messages about its insides go to its log files; ours tell what they mean for the run.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    if ray.is_initialized():
        return False
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        keep_token_private()
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    with warnings.catch_warnings(), _native_stderr_closed(), handler_kept():
        warnings.simplefilter("ignore")
        if address:
            with _one_line(f"RAY_ADDRESS={address}: no cluster that can be worked with: {{}}; start it, or unset it"):
                ray.init(**quiet)
            return False
        with _one_line(
            "Ray did not start on this machine: {}; it takes a free core and some 2 GiB of memory; "
            "`featray doctor` tries it alone"
        ):
            # Without "local", Ray would look for the last cluster started here, and wait long for one that is gone.
            with on_loopback():
                ray.init(address="local", include_dashboard=False, num_gpus=int(local_gpus()), **quiet)
    return True


@contextmanager
def _one_line(words: str) -> Iterator[None]:
    """Why Ray did not start, as a RunError; Ray itself raises whatever it likes, a plain Exception among it."""
    try:
        yield
    except Exception as error:
        raise RunError(words.format(one_line(error).rstrip("."))) from error


@contextmanager
def _native_stderr_closed() -> Iterator[None]:
    """Keep Ray's C++ core from greeting users with a line about its log level; exceptions still come through."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def cluster_gpus() -> float:
    """Return the GPUs of the cluster, to which it connects."""
    connect()
    return sum(node.gpus for node in nodes().values())


def nodes() -> dict[str, Node]:
    """What the nodes of the cluster that are alive have, by id."""
    alive = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
    return {
        i: Node(one.get("CPU", 0.0), one.get("GPU", 0.0), one.get("memory", 0.0), _gpu_model(one))
        for i, one in alive.items()
    }


def _gpu_model(resources: dict[str, float]) -> str | None:
    """As Ray names it, which makes a resource of it."""
    names = [name.removeprefix(_MODEL) for name in resources if name.startswith(_MODEL)]
    return names[0] if names and resources.get("GPU") else None


class RaySession:
    """A `Session` on Ray: the cluster that is there, or Ray started on this machine for the length of the run."""

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
        # Told to end, there may be seconds left: the run's row and lease come first, Ray shuts down with the process.
        if self._started and not isinstance(error, Terminated):
            ray.shutdown()

    @property
    def workers(self) -> Workers:
        """Of the stream that runs, or runs next."""
        return self._capacity.workers

    @property
    def gpus(self) -> str | None:
        """The models of the GPUs there were when workers were last chosen, by name; None if Ray names none."""
        return ", ".join(sorted({node.gpu_model for node in self._nodes if node.gpu_model})) or None

    def _choose(self, there: dict[str, Node], workers: Workers | None = None) -> None:
        cluster, self._nodes = self._cluster, list(there.values())
        self._capacity = Capacity(workers or choose_workers(self._nodes, cluster), there, cluster)

    def stream(self, pages: Pages, unfinished: Callable[[Pages], Pages]) -> Iterator[Receipt]:
        """Feed pages of videos to the graph and yield receipts as parts land.

        Where nodes are lost that nothing goes on without, the graph is built again for those that are left, and so it
        is where the process dies that reads the feed: it is then fed with what `unfinished` makes of the pages that
        were not asked for yet.

        Raises:
            FeatrayError: what ended the listing, a stage's start or the job; or no node came back for too long.
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
                    raise _own_error(error) from error
            except Exception:
                if not watch.ended:  # else it is what the stream left behind
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
        """Start publishing a shard in a task of its own; shards that replace rows, one after the other."""
        settings = replace(settings, published_at_us=time.time_ns() // 1000)  # a task that is retried writes the same
        task = _publish.remote(self._stages.partition, manifest, settings, self._replacing)
        if any(video.replaces for video in manifest.videos):
            self._replacing = task
        self._publishing.append(task)

    def published(self, *, wait: bool) -> list[Commit]:
        """Commits of the shards that are published by now, or (wait) of all that were started."""
        if not self._publishing:
            return []
        count = len(self._publishing)
        done, self._publishing = ray.wait(self._publishing, num_returns=count, timeout=None if wait else 0)
        try:
            commits = list(ray.get(done))
        except ray.exceptions.RayError as error:
            raise _own_error(error) from error
        metrics.record_commits(commits, self._stages.partition.dataset)
        return commits


@ray.remote(num_cpus=0.1, max_retries=3)
def _publish(partition: HeldPartition, manifest: ShardManifest, settings: PublishSettings, after: object) -> Commit:
    """`publish_shard` as a task; `after` is a task that has to be done first."""
    redact_logs()
    return publish_shard(partition, manifest, settings)


class _Watch:
    """Looks at the nodes while a stream runs, in a thread, and ends the stream if it waits for lost ones in vain.

    Attributes:
        ended: the stream was ended, either for
        workers: to be built again with these, for `nodes`, or for
        error: with which the run ends.
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
        while not self._stopped.wait(self._capacity.look_every_s):
            try:
                self.nodes = nodes()
                self.workers = self._capacity.look(self.nodes)
            except ray.exceptions.RayError:
                continue  # the head does not answer; the stream finds out if that stays
            except RunError as error:
                self.error = error
            if self.workers is None and self.error is None:
                continue
            self.ended = True
            if end_stream():
                return
            self.ended, self.error = False, None


def _one_more(broken_feeds: int) -> int:
    """Count a feed whose reader died; RunError if that is too many in a row."""
    if broken_feeds == _BROKEN_FEEDS:
        raise RunError(
            f"what reads the list of videos died {broken_feeds + 1} times in a row on the driver's node, most likely "
            "for lack of memory; what has landed is kept"
        )
    log.warning("what reads the list of videos died with its process: going on behind it")
    return broken_feeds + 1


def _own_error(error: BaseException) -> FeatrayError:
    """The featray error inside a Ray error, or the last line of what happened."""
    if (own := own_error(error)) is not None:
        return own
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return RunError(f"the cluster reports {type(error).__name__}: {lines[-1] if lines else 'no details'}")
