"""Sources. Waiting for storage at several places at once, while results keep their order and memory its bound."""

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
"""At once: at 30 ms a request a thousand objects a second, which S3 serves from one prefix without complaint."""

_ITEMS_AHEAD = 256
_LOOK_SECONDS = 0.2


def in_order(function: Callable[[T], R], items: Iterable[T], threads: int = REQUESTS) -> Iterator[R]:
    """`map`, with up to `threads` calls under way; what a call raises is raised in its turn."""
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
    """An iterator that is run in a thread of its own, some items ahead of who takes them."""

    def __init__(self, items: Iterator[T]) -> None:
        self._items = items
        self._queue: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(_ITEMS_AHEAD)
        self._unwanted = threading.Event()
        threading.Thread(target=self._run, name="featray-ahead", daemon=True).start()

    def __iter__(self) -> Iterator[T]:
        """The items; what the iterator raised is raised after those before it."""
        while (entry := self._queue.get()) is not None:
            if isinstance(entry, BaseException):
                raise entry
            yield entry[0]

    def close(self) -> None:
        """Let the thread end; no more items are wanted."""
        self._unwanted.set()

    def _run(self) -> None:
        try:
            for item in self._items:
                if not self._put((item,)):
                    return
            self._put(None)
        except BaseException as error:  # noqa: BLE001 - it is raised again by whoever takes the items
            self._put(error)

    def _put(self, entry: tuple[T] | BaseException | None) -> bool:
        while not self._unwanted.is_set():
            try:
                self._queue.put(entry, timeout=_LOOK_SECONDS)
            except queue.Full:
                continue
            return True
        return False
