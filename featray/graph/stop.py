"""Graph. Handle SIGTERM, from a scheduler or `ray job stop`, like Ctrl-C: the run ends in order and can be resumed.

SIGHUP, of a terminal that is closed, is handled too, unless it is ignored, as under nohup.
"""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

EXIT_INTERRUPTED: Final = 128 + signal.SIGINT


class Terminated(KeyboardInterrupt):
    """The process received SIGTERM or SIGHUP.

    Attributes:
        exit_code: 128 and the signal's number.
    """

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.exit_code = 128 + number


@contextmanager
def terminable() -> Iterator[None]:
    """Raise Terminated in the main thread on SIGTERM and SIGHUP; further signals do not disturb the cleanup."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    hangs_up = signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    numbers = [signal.SIGTERM, signal.SIGHUP] if hangs_up else [signal.SIGTERM]
    before = {number: signal.signal(number, _terminate) for number in numbers}
    try:
        yield
    except Exception as error:
        if (stop := _stop_behind(error)) is None:
            raise
        raise stop from error
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is _terminate:  # otherwise one arrived, and the process is about to end
                signal.signal(number, handler)


@contextmanager
def handler_kept() -> Iterator[None]:
    """Wrap `ray.init`, which replaces featray's SIGTERM handler by its own, and restore the handler.

    Ray's processes would die of a closed terminal before the run has ended in order; they inherit the blocked signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    except SystemExit as error:
        if before is _terminate and error.code in (1, signal.SIGTERM):  # raised by Ray's two handlers
            raise Terminated from None
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _stop_behind(error: BaseException | None) -> KeyboardInterrupt | None:
    """Return the stop that DuckDB or Arrow replaced by an error of its own while a query ran; None for other errors."""
    while error is not None:
        if not isinstance(error, KeyboardInterrupt) and _INTERRUPTED.match(str(error)):
            return Terminated(_received[-1]) if _received else KeyboardInterrupt()
        error = error.__cause__ or error.__context__
    return None


_INTERRUPTED: Final = re.compile("Query interrupted|INTERRUPT Error")

_received: list[int] = []


def _terminate(number: int, frame: FrameType | None) -> None:
    _received.append(number)
    for one in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, signal.SIG_IGN)
    raise Terminated(number)
