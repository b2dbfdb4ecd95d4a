"""Graph. Detect that a run waits for lost nodes. This module does not use Ray: the caller looks up the nodes.

Ray Data's pools have a fixed size and their actors restart without limit. When a node is lost, its actors restart on
other nodes, or wait for room, each with its current task: without a new node, forever. The remaining actors continue in
the meantime, so there is no hurry. Once nothing lands any more, the stream is rebuilt for the nodes that are left.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from featray.config import ClusterConfig
from featray.errors import RunError
from featray.graph.workers import Node, Workers, choose_again, unplaced

log = logging.getLogger(__name__)

_PATIENCES: Final = 6
"""A run waits this many times its patience for nodes that it cannot do without: an hour by default."""

_LOOK_EVERY_S: Final = 5.0


class Capacity:
    """Compares the workers that a run was planned for with the nodes that are alive.

    Args:
        workers: the run's workers.
        nodes: the nodes that they were chosen for, by id.
        config: settings, including the patience.
        clock: returns the time in seconds; replaced in tests.
    """

    def __init__(
        self,
        workers: Workers,
        nodes: Mapping[str, Node],
        config: ClusterConfig,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.workers = workers
        self._known = set(nodes)
        self._config = config
        self._clock = clock
        self._heard = clock()
        self._short_since: float | None = None
        self._said = False

    @property
    def look_every_s(self) -> float:
        """Return the interval in seconds at which to call `look`."""
        return min(_LOOK_EVERY_S, self._config.lost_node_patience_s / 4)

    def heard(self) -> None:
        """Note that something has landed, or that a stream begins."""
        self._heard = self._clock()

    def look(self, nodes: Mapping[str, Node]) -> Workers | None:
        """Compare with the nodes that are alive, by id.

        Returns:
            Workers to rebuild the stream with, or None if it may continue. Waiting for nodes is logged once.

        Raises:
            RunError: the remaining nodes cannot do the work, and no node came back for too long.
        """
        lost = self._known - set(nodes)
        self._known |= set(nodes)
        problem = unplaced(self.workers, list(nodes.values()), light=True) if lost else None
        if problem is None:
            self._short_since, self._said = None, False
            return None
        self._short_since = self._clock() if self._short_since is None else self._short_since
        waited = self._clock() - max(self._short_since, self._heard)
        patience = self._config.lost_node_patience_s
        if waited < patience:
            return None
        after = f"{len(lost)} node{'s' * (len(lost) > 1)} lost, nothing has landed for {waited:.0f} s"
        if workers := choose_again(
            list(nodes.values()), self._config, self.workers.infer_gpus, self.workers.decode_gpus
        ):
            log.warning(
                "%s: continuing with %d decode and %d inference workers on %d nodes",
                *(after, workers.decode, workers.infer, len(nodes)),
            )
            return workers
        if waited >= _PATIENCES * patience:
            raise RunError(f"{after}: {problem}; what has landed is kept; run again when there are nodes")
        if not self._said:
            self._said = True
            log.warning("%s: waiting %.0f s for nodes: %s", after, _PATIENCES * patience - waited, problem)
        return None
