"""Run. What a run is given to work with, whatever works: its executor, and how that is chosen.

`LocalSession` works in this process, `RaySession` on a Ray cluster or on Ray started here. Both run the same stages,
land and publish the same, and give equal tables; which it is, is no part of a release.
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
"""Up to so many videos to do, a run with `executor: auto` works in this process; see `ClusterConfig.executor`."""


class Session(Protocol):
    """An executor for the length of a run; a context manager.

    Attributes:
        workers: of the stream that runs, or runs next.
        gpus: models of its GPUs, by name; None without any.
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
        """Put videos through all stages and yield a receipt for each part that has landed.

        Args:
            pages: of videos, taken as the work gets on.
            unfinished: makes, of the pages that were not asked for yet, those of a stream that has to begin again.

        Raises:
            FeatrayError: what ended the listing, a stage's start or the storage.
        """
        ...

    def publish(self, manifest: ShardManifest, settings: PublishSettings) -> None:
        """Start publishing a shard; of shards that replace rows, one after the other."""
        ...

    def published(self, *, wait: bool) -> list[Commit]:
        """Return the commits of the shards that are published by now, or (wait) of all that were started."""
        ...


def choose_executor(cluster: ClusterConfig, count: Callable[[], int]) -> tuple[Executor, str]:
    """Return which executor a run takes, and why, for people.

    Args:
        cluster: what the user wants.
        count: returns the videos to do, where it is asked; it may stop at `LOCAL_VIDEOS + 1`.
    """
    if cluster.executor != "auto":
        return cluster.executor, f"cluster.executor: {cluster.executor}"
    if on_cluster():
        return "ray", "a Ray cluster is there"
    if (gpus := local_gpus()) > 1:
        return "ray", counted(gpus, "GPU")
    if (videos := count()) > LOCAL_VIDEOS:
        return "ray", f"more than {LOCAL_VIDEOS} videos to do"
    return "local", f"{counted(videos, 'video')} to do on this machine"


def available_gpus(cluster: ClusterConfig) -> float:
    """Return the GPUs that a run will have: of the cluster it connects to, or of this machine."""
    if cluster.executor != "local" and on_cluster():
        from featray.graph.connection import cluster_gpus

        return cluster_gpus()
    return local_gpus()


def open_session(executor: Executor, cluster: ClusterConfig, stages: StageSettings) -> Session:
    """Return the session of an executor, not yet entered; loads Ray only for `ray`."""
    if executor == "ray":
        from featray.graph.ray_session import RaySession

        return RaySession(cluster, stages)
    from featray.run.local_session import LocalSession

    return LocalSession(cluster, stages)
