"""Sources. Run storage requests concurrently, with results in order and bounded memory."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

REQUESTS: Final = 32
"""Concurrent requests: at 30 ms each, about a thousand objects per second, a rate that S3 supports for one prefix."""

_ITEMS_AHEAD = 256
_LOOK_SECONDS = 0.2


def in_order(function: Callable[[T], R], items: Iterable[T], threads: int = REQUESTS) -> Iterator[R]:
    """Like `map`, with up to `threads` concurrent calls; an error is raised in the place of its result."""
    with ThreadPoolExecutor(threads, thread_name_prefix="featray-request") as pool:
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


class Ahead(Generic[T]):
    """An iterator that runs in its own thread, some items ahead of its consumer."""

    def __init__(self, items: Iterator[T]) -> None:
        self._items = items
        self._queue: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(_ITEMS_AHEAD)
        self._unwanted = threading.Event()
        threading.Thread(target=self._run, name="featray-ahead", daemon=True).start()

    def __iter__(self) -> Iterator[T]:
        """Yield the items; raise the iterator's error after the items before it."""
        while (entry := self._queue.get()) is not None:
            if isinstance(entry, BaseException):
                raise entry
            yield entry[0]

    def close(self) -> None:
        """End the thread; no more items are needed."""
        self._unwanted.set()

    def _run(self) -> None:
        try:
            for item in self._items:
                if not self._put((item,)):
                    return
            self._put(None)
        except BaseException as error:  # noqa: BLE001 - raised again in the consumer
            self._put(error)

    def _put(self, entry: tuple[T] | BaseException | None) -> bool:
        while not self._unwanted.is_set():
            try:
                self._queue.put(entry, timeout=_LOOK_SECONDS)
            except queue.Full:
                continue
            return True
        return False
