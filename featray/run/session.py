"""Run. The interface of an executor, and how one is chosen.

`LocalSession` runs in this process, `RaySession` on a Ray cluster or on Ray started on this machine. Both run the same
stages and produce equal tables; the executor is not part of a release.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Final, Literal, Protocol, Self

from featray.config import ClusterConfig
from featray.errors import counted
from featray.extract.plan import Pages
from featray.graph.machine import local_gpus, on_cluster
from featray.graph.rows import Receipt
from featray.graph.stages import StageSettings
from featray.graph.workers import Workers
from featray.tables.commits import Commit, ShardManifest
from featray.tables.publish import PublishSettings

Executor = Literal["ray", "local"]

LOCAL_VIDEOS: Final = 1000
"""Maximum videos for which `executor: auto` runs in this process; see `ClusterConfig.executor`."""


class Session(Protocol):
    """An executor for the duration of a run; a context manager.

    Attributes:
        workers: workers of the current stream, or of the next one.
        gpus: names of its GPU models; None without GPUs.
    """

    @property
    def workers(self) -> Workers: ...  # noqa: D102

    @property
    def gpus(self) -> str | None: ...  # noqa: D102

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def stream(self, pages: Pages, unfinished: Callable[[Pages], Pages]) -> Iterator[Receipt]:
        """Run videos through all stages and yield a receipt for each landed part.

        Args:
            pages: pages of videos, consumed as the work proceeds.
            unfinished: returns the pages for a stream that has to restart, given the pages not consumed yet.

        Raises:
            FeatrayError: the listing, the start of a stage or the storage failed.
        """
        ...

    def publish(self, manifest: ShardManifest, settings: PublishSettings) -> None:
        """Start publishing a shard; shards that replace rows are published one at a time."""
        ...

    def published(self, *, wait: bool) -> list[Commit]:
        """Return the commits of shards published since the last call; with `wait`, of all that were started."""
        ...


def choose_executor(cluster: ClusterConfig, count: Callable[[], int]) -> tuple[Executor, str]:
    """Return the executor of a run, and the reason in words.

    Args:
        cluster: the user's settings.
        count: returns the number of videos to do, called only if needed; it may stop at `LOCAL_VIDEOS + 1`.
    """
    if cluster.executor != "auto":
        return cluster.executor, f"cluster.executor: {cluster.executor}"
    if on_cluster():
        return "ray", "a Ray cluster was found"
    if (gpus := local_gpus()) > 1:
        return "ray", counted(gpus, "GPU")
    if (videos := count()) > LOCAL_VIDEOS:
        return "ray", f"more than {LOCAL_VIDEOS} videos to do"
    return "local", f"{counted(videos, 'video')} to do on this machine"


def available_gpus(cluster: ClusterConfig) -> float:
    """Return the number of GPUs that a run will have, on its cluster or on this machine."""
    if cluster.executor != "local" and on_cluster():
        from featray.graph.connection import cluster_gpus

        return cluster_gpus()
    return local_gpus()


def open_session(executor: Executor, cluster: ClusterConfig, stages: StageSettings) -> Session:
    """Return the session of an executor, not yet entered; imports Ray only for `ray`."""
    if executor == "ray":
        from featray.graph.ray_session import RaySession

        return RaySession(cluster, stages)
    from featray.run.local_session import LocalSession

    return LocalSession(cluster, stages)
