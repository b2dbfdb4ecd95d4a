"""Extract. Keeping crashes, hangs and memory bombs of native code to the unit that caused them.

A decode worker owns one child process (`child.py`) and asks it to plan videos and to turn
units into chunks. A child that dies, or takes too long, is replaced; the unit it was on gets
a failure with a code, after the chunks that had come through. Pools such as multiprocessing's
or pebble's return one result a task and pickle it whole; a unit gives many chunks of 50 MB.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from featray.errors import ErrorCode, VideoError
from featray.extract.child import ChildSettings
from featray.extract.chunks import Chunk, failed_chunk
from featray.extract.plan import Failure, Outcome, UnitTask, VideoPlan
from featray.names import CHIP_PX
from featray.sources.listing import Video
from featray.video.units import WHOLE_VIDEO


class IsolatedDecoder:
    """Plans videos and extracts chunks in a child process; what kills the child becomes a failure.

    Until the first request there is no child, and it can be pickled.

    Attributes:
        settings: for the child; limits are taken from `settings.decode`.
    """

    def __init__(self, settings: ChildSettings) -> None:
        self.settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._timed_out = False

    @property
    def process_id(self) -> int | None:
        """Of the child; None while there is none."""
        return self._process.pid if self._process else None

    def plan(self, video: Video) -> VideoPlan:
        """`plan_video`, isolated."""
        try:
            budget = _Budget(self.settings.decode.timeout_seconds)
            self._request(video)
            plan: VideoPlan = self._receive(budget)
            return plan
        except VideoError as error:
            return VideoPlan(None, WHOLE_VIDEO, Failure("plan", error.code, f"{error} while planning"))

    def chunks(self, task: UnitTask) -> Iterator[Chunk]:
        """`extract_chunks`, isolated: the last chunk always comes, with the failure if there was one."""
        outcome, part = Outcome(), 0
        budget = _Budget(self.settings.decode.timeout_seconds)
        try:
            self._request(task)
            while True:
                chunk = self._receive_chunk(budget)
                outcome, part = chunk.outcome, chunk.part + 1
                yield chunk
                if chunk.last:
                    return
        except VideoError as error:
            failures = [*outcome.failures, Failure("decode", str(error.code), f"{error} in unit {task.unit.index}")]
            yield failed_chunk(part, replace(outcome, failures=failures))
        except GeneratorExit:
            self.close()  # chunks that nobody wants any more would be taken for the next unit's
            raise

    def kill(self) -> None:
        """End the child from another thread than the one that waits for it; that one then closes."""
        if (process := self._process) is not None:
            process.kill()

    def close(self) -> None:
        """End the child."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._connection is not None:
            self._connection.close()
        self._process = self._connection = None

    def _request(self, request: Video | UnitTask) -> None:
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._process is None:
            self._start()
        assert self._connection is not None
        try:
            self._connection.send(request)
        except OSError:
            raise self._death() from None

    def _start(self) -> None:
        self._timed_out = False  # a timer may have gone off over the child before, just after its last word
        ours, theirs = socket.socketpair()
        memory_bytes = int(self.settings.decode.memory_limit_gib * 2**30)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "featray.extract.child", str(theirs.fileno()), str(memory_bytes)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": _import_path()},
            )
        self._connection = Connection(ours.detach())
        self._connection.send(self.settings)

    def _receive_chunk(self, budget: _Budget) -> Chunk:
        chunk, count = self._receive(budget)
        chips = np.empty((count, CHIP_PX, CHIP_PX, 3), np.uint8)
        if count:
            self._receive(budget, into=chips.data.cast("B"))
        whole: Chunk = replace(chunk, chips=chips)
        return whole

    def _receive(self, budget: _Budget, into: memoryview | None = None) -> Any:
        """The child's next message; a child that does not send it in time is killed."""
        assert self._connection is not None and self._process is not None
        timer = threading.Timer(budget.left_seconds, self._stop_waiting)
        start = time.monotonic()
        timer.start()
        try:
            return self._connection.recv() if into is None else self._connection.recv_bytes_into(into)
        except (EOFError, OSError):
            raise self._death() from None
        finally:
            timer.cancel()
            budget.left_seconds -= time.monotonic() - start

    def _stop_waiting(self) -> None:
        self._timed_out = True
        if self._process is not None:
            self._process.kill()

    def _death(self) -> VideoError:
        """Why the child is gone, as an error; a new one is started for the next request."""
        assert self._process is not None
        status = self._process.wait()
        timed_out, self._timed_out = self._timed_out, False
        self.close()
        if timed_out:
            limit = self.settings.decode.timeout_seconds
            return VideoError(f"took longer than decode.timeout_seconds ({limit:g} s)", code=ErrorCode.TIMEOUT)
        if status == -signal.SIGKILL:
            return VideoError("the system killed the decoder, most likely for memory", code=ErrorCode.OUT_OF_MEMORY)
        how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        return VideoError(f"the decoder crashed ({how})", code=ErrorCode.DECODER_CRASHED)


def _import_path() -> str:
    """PYTHONPATH with this very package first: in a Ray job it lies in the job's working directory."""
    here = str(Path(__file__).parents[2])
    return os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])


class _Budget:
    """Seconds that a unit may still take; only waiting for the child counts."""

    def __init__(self, seconds: float) -> None:
        self.left_seconds = seconds
