"""Model. Run batches on several streams at once. Results do not depend on the number of streams."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Generic, TypeVar

_Stream = TypeVar("_Stream")


class EngineStopped(Exception):
    """An engine was stopped while it was running."""


class Streams(Generic[_Stream]):
    """Distributes batches over idle streams.

    Args:
        streams: each runs one batch at a time, on one CPU thread.
    """

    def __init__(self, streams: Sequence[_Stream]) -> None:
        self._idle: SimpleQueue[_Stream] = SimpleQueue()
        for stream in streams:
            self._idle.put(stream)
        # Native code releases the GIL while it computes, so threads are enough.
        self._pool = ThreadPoolExecutor(len(streams), "featray-stream") if len(streams) > 1 else None

        self._stopped = False

    def stop(self) -> None:
        """Start no more batches."""
        self._stopped = True

    def run(self, batch: Callable[[_Stream, int], None], starts: Iterable[int]) -> None:
        """Call `batch` with a stream and a start, for each start; raise the error of the first batch that fails."""

        def on_idle(start: int) -> None:
            if self._stopped:
                raise EngineStopped
            stream = self._idle.get()
            try:
                batch(stream, start)
            finally:
                self._idle.put(stream)

        for _ in map(on_idle, starts) if self._pool is None else self._pool.map(on_idle, starts):
            pass
