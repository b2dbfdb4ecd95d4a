"""Graph. SIGTERM, from a scheduler or `ray job stop`, ends a run as Ctrl-C does: in order, and to be gone on with."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

EXIT_INTERRUPTED: Final = 128 + signal.SIGINT
EXIT_TERMINATED: Final = 128 + signal.SIGTERM


class Terminated(KeyboardInterrupt):
    """SIGTERM has come."""


@contextmanager
def terminable() -> Iterator[None]:
    """Raise Terminated in the main thread where SIGTERM comes; further ones do not disturb the tidying up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is _terminate:  # else SIGTERM has come, and the process is about to end
            signal.signal(signal.SIGTERM, before)


@contextmanager
def handler_kept() -> Iterator[None]:
    """Around `ray.init`, which puts a SIGTERM handler of its own in place of ours."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as error:
        if before is _terminate and error.code in (1, signal.SIGTERM):  # how Ray's two handlers say it
            raise Terminated from None
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated
