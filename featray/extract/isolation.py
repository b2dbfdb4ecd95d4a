"""Extract. Keeping crashes, hangs and memory bombs of native code to the unit that caused them.

A decode worker owns one child process (`child.py`) and asks it to plan videos and to turn
units into chunks. A child that dies, or takes too long, is replaced; the unit it was on gets
a failure with a code, after the chunks that had come through. Pools such as multiprocessing's
or pebble's return one result a task and pickle it whole; a unit gives many chunks of 50 MB.

The child has no network and no credentials: the parent reads remote videos for it (`wire.py`).
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final

from featray.errors import ErrorCode, ModelError, VideoError, one_line
from featray.extract.ahead import PicturesAhead
from featray.extract.child import ChildSettings
from featray.extract.chunks import CHUNK_CHIPS, Chunk, failed_chunk
from featray.extract.devices import HEADROOM_GIB, START_SECONDS
from featray.extract.forkserver import CAN_FORK, Process, fork_child
from featray.extract.plan import Failure, Outcome, UnitTask, VideoPlan, plan_video
from featray.extract.wire import (
    MAX_MESSAGE_BYTES,
    READ,
    VIDEO,
    FilesForChild,
    Nonsense,
    read_chunk,
    read_plan,
    receive_into,
)
from featray.sources.listing import Video
from featray.store.storage import is_on_disk, locate
from featray.video.units import WHOLE_VIDEO

_LAST_WORDS_SECONDS: Final = 10
"""Within which a process ends that has closed its socket."""


class IsolatedDecoder:
    """Plans videos and extracts chunks in a child process; what kills the child becomes a failure.

    Until the first request there is no child, and it can be pickled.

    Attributes:
        settings: for the child; limits are taken from `settings.decode`.
    """

    def __init__(self, settings: ChildSettings) -> None:
        self.settings = settings
        self._process: Process | None = None
        self._connection: Connection | None = None
        self._timed_out = False
        self._waited_for = ""
        self._files = FilesForChild()

    @property
    def process_id(self) -> int | None:
        """Return the child's process id; None while there is no child."""
        return self._process.pid if self._process else None

    def open(self) -> None:
        """Start the child if it needs a GPU, so that what is missing is known before there is work.

        Raises:
            ModelError: it has none that it can use.
        """
        if self.settings.needs_gpu and self._process is None:
            self._start()

    def plan(self, video: Video) -> VideoPlan:
        """`plan_video`, isolated; of a sequence here, as only a listing is read for it."""
        if video.sequence is not None:
            settings = self.settings
            return plan_video(video, settings.decode, settings.storage_options, settings.detect.every)
        try:
            budget = _Budget(self.settings.decode.timeout_seconds)
            self._request(video)
            with self._sense():
                return read_plan(self._receive(budget))
        except VideoError as error:
            return VideoPlan(None, WHOLE_VIDEO, Failure("plan", error.code, f"{error} while planning"))

    def chunks(self, task: UnitTask) -> Iterator[Chunk]:
        """`extract_chunks`, isolated: the last chunk always comes, with the failure if there was one."""
        outcome, part = Outcome(), 0
        budget = _Budget(self.settings.decode.timeout_seconds)
        try:
            self._request(task)
            while True:
                with self._sense():
                    chunk = read_chunk(
                        partial(self._receive, budget),
                        partial(self._receive_into, budget),
                        max(CHUNK_CHIPS, self.settings.detect.max_faces),
                    )
                    if chunk.part != part:
                        raise Nonsense("a part that does not follow")
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
        self._files.close()

    def _request(self, request: Video | UnitTask) -> None:
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._process is None:
            self._start()
        assert self._connection is not None
        try:
            self._connection.send(self._for_child(request))
        except OSError:
            raise self._death() from None

    def _for_child(self, request: Video | UnitTask) -> Video | UnitTask:
        """The request without the address of a remote video, which the parent reads for the child."""
        video = request.video if isinstance(request, UnitTask) else request
        if is_on_disk(video.address):
            return request
        size_bytes = video.size_bytes if video.size_bytes >= 0 and not video.place else None
        options = self.settings.storage_options if video.takes_options else {}
        if video.sequence is not None and video.sequence.held == "folder":
            assert isinstance(request, UnitTask)
            self._files.give_pictures(VIDEO, PicturesAhead(request, options))
        else:
            self._files.give(VIDEO, partial(locate, video.address, options), size_bytes)
        video = replace(video, address="")
        return replace(request, video=video) if isinstance(request, UnitTask) else video

    @contextmanager
    def _sense(self) -> Iterator[None]:
        """Around what reads the child's answers: a child that sends what is none is ended."""
        try:
            yield
        except Nonsense as error:
            self.close()
            raise VideoError(f"the decoder sent {error}", code=ErrorCode.DECODER_CRASHED) from None

    def _start(self) -> None:
        self._timed_out = False  # a timer may have gone off over the child before, just after its last word
        ours, theirs = socket.socketpair()
        level = logging.getLogger("featray").getEffectiveLevel()
        headroom_gib = HEADROOM_GIB if self.settings.needs_gpu else 0
        memory_bytes = int((self.settings.decode.memory_limit_gib + headroom_gib) * 2**30)
        environment = {**_environment(), "PYTHONPATH": _import_path()}
        start = fork_child if CAN_FORK else _start_anew
        try:
            with theirs:
                self._process = start(environment, theirs, memory_bytes, level)
        except OSError as error:
            ours.close()
            raise VideoError(f"no decoder can be started: {one_line(error)}", code=ErrorCode.DECODER_CRASHED) from None
        self._connection = Connection(ours.detach())
        self._connection.send(self.settings.without_secrets())
        if name := self.settings.remote_boxes:
            boxes = str(self.settings.detect.boxes)
            self._files.give(name, partial(locate, boxes, self.settings.boxes_options))
        if self.settings.needs_gpu:
            self._wait_for_gpu(self._connection)

    def _wait_for_gpu(self, connection: Connection) -> None:
        """Read the child's word on its GPU, which it sends before it has met a video.

        Raises:
            ModelError: it cannot use it.
        """
        problem = f"a decoding process did not start its GPU in {START_SECONDS} s; see what `nvidia-smi` says"
        try:
            if connection.poll(START_SECONDS):
                problem = connection.recv_bytes(MAX_MESSAGE_BYTES).decode()
        except (EOFError, OSError):
            problem = f"a decoding process ended as it started its GPU: {self._death()}"
        if problem:
            self.close()
            raise ModelError(problem)

    def _receive(self, budget: _Budget) -> bytes:
        """The child's next answer; files are read for it meanwhile. A child that does not send it in time is killed."""
        deadline = time.monotonic() + budget.left_seconds
        with self._waiting(budget) as connection:
            while True:
                message = connection.recv_bytes(MAX_MESSAGE_BYTES)
                if message[:1] != READ:
                    return message[1:]
                connection.send_bytes(self._answer(message[1:], deadline))

    def _answer(self, message: bytes, deadline: float) -> bytes:
        """Read a file for the child, until the deadline: a storage may be silent for as long as its client allows.

        The read that is left behind ends with that; nobody uses its files any more.
        """
        files, answer = self._files, SimpleQueue[bytes | Exception]()
        threading.Thread(target=_put_answer, args=(files, message, answer), daemon=True).start()
        try:
            found = answer.get(timeout=max(deadline - time.monotonic(), 0))
        except Empty:
            self._files, self._waited_for = FilesForChild(), ", waiting for its storage"
            self._stop_waiting()
            raise EOFError from None
        if isinstance(found, Exception):
            raise found
        return found

    def _receive_into(self, budget: _Budget, memory: memoryview) -> None:
        """Receive bare bytes straight into memory, like `_receive`."""
        with self._waiting(budget) as connection:
            receive_into(connection, memory)

    @contextmanager
    def _waiting(self, budget: _Budget) -> Iterator[Connection]:
        assert self._connection is not None and self._process is not None
        timer = threading.Timer(budget.left_seconds, self._stop_waiting)
        start = time.monotonic()
        timer.start()
        try:
            yield self._connection
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
        try:
            status = self._process.wait(_LAST_WORDS_SECONDS)
        except subprocess.TimeoutExpired:  # it lives, and sent a message of no length that can be
            self.close()
            return VideoError("the decoder sent no message", code=ErrorCode.DECODER_CRASHED)
        timed_out, self._timed_out = self._timed_out, False
        waited_for, self._waited_for = self._waited_for, ""
        self.close()
        if timed_out:
            limit = f"decode.timeout_seconds ({self.settings.decode.timeout_seconds:g} s)"
            return VideoError(f"took longer than {limit}{waited_for}", code=ErrorCode.TIMEOUT)
        if status == -signal.SIGKILL:
            return VideoError("the system killed the decoder, most likely for memory", code=ErrorCode.OUT_OF_MEMORY)
        how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        return VideoError(f"the decoder crashed ({how})", code=ErrorCode.DECODER_CRASHED)


def _start_anew(
    environment: dict[str, str], connection: socket.socket, memory_bytes: int, level: int
) -> subprocess.Popen[bytes]:
    """Start a child like `fork_child`, where a process cannot be forked without a new program."""
    return subprocess.Popen(
        [sys.executable, "-m", "featray.extract.child", *map(str, (connection.fileno(), memory_bytes, level))],
        pass_fds=[connection.fileno()],
        stdin=subprocess.DEVNULL,
        env=environment,
    )


def _put_answer(files: FilesForChild, message: bytes, answer: SimpleQueue[bytes | Exception]) -> None:
    try:
        answer.put(files.answer(message))
    except Exception as error:  # noqa: BLE001 - raised by who waits for it
        answer.put(error)


def _import_path() -> str:
    """PYTHONPATH with this very package first: in a Ray job it lies in the job's working directory."""
    here = str(Path(__file__).parents[2])
    return os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])


_FOR_CHILD: Final = frozenset("HOME LANG LANGUAGE LD_LIBRARY_PATH PATH TEMP TMP TMPDIR TZ".split())
_FOR_CHILD_PREFIXES: Final = (
    "CUDA_", "DNNL_", "FEATRAY_", "KMP_", "LC_", "MKL_", "NVIDIA_", "OMP_", "ONEDNN_", "OPENBLAS_", "OV_", "PYTHON",
    "PYTORCH_",
)  # fmt: skip


def _environment() -> dict[str, str]:
    """Return what of the environment Python, CUDA and the libraries of numbers need; credentials are no part of it."""
    return {
        name: value for name, value in os.environ.items() if name in _FOR_CHILD or name.startswith(_FOR_CHILD_PREFIXES)
    }


class _Budget:
    """Seconds that a unit may still take; only waiting for the child counts."""

    def __init__(self, seconds: float) -> None:
        self.left_seconds = seconds
