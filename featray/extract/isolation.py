"""Extract. Confine crashes, hangs and memory bombs of native code to the unit that caused them.

A decode worker owns one child process (`child.py`) and asks it to plan videos and to turn
units into chunks. A child that dies or takes too long is replaced; its unit gets a failure
with a code, after the chunks that had arrived. Pools such as multiprocessing's or pebble's
return one result per task and pickle it whole, but a unit yields many chunks of 50 MB.

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
from contextlib import contextmanager, suppress
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
from featray.extract.forkserver import CAN_FORK, Process, fork_child, interrupts_held
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
from featray.store.location import is_on_disk, locate
from featray.video.units import WHOLE_VIDEO

_LAST_WORDS_SECONDS: Final = 10
"""Time limit for a process to end after it has closed its socket."""

_SECOND_TRY_SECONDS: Final = 2
"""Pause before a second try to start a child: other programs start and end meanwhile, and a user hardly notices."""


class IsolatedDecoder:
    """Plans videos and extracts chunks in a child process; the death of the child becomes a failure.

    The child starts with the first request; before that, the decoder can be pickled.

    Attributes:
        settings: settings for the child; limits come from `settings.decode`.
        peak_bytes: peak memory of the children that were closed; 0 if the system does not tell (only Linux does).
    """

    def __init__(self, settings: ChildSettings) -> None:
        self.settings = settings
        self.peak_bytes = 0
        self._process: Process | None = None
        self._connection: Connection | None = None
        self._timed_out = False
        self._waited_for = ""
        self._files = FilesForChild()

    @property
    def process_id(self) -> int | None:
        """Return the child's process id, or None if there is no child."""
        return self._process.pid if self._process else None

    def open(self) -> None:
        """Start the child if it needs a GPU, so that problems show before the first request.

        Raises:
            ModelError: there is no usable GPU, or no process can be started.
        """
        if self.settings.needs_gpu and self._process is None:
            self._start()

    def plan(self, video: Video) -> VideoPlan:
        """Run `plan_video` in the child; a sequence is planned in this process, because that only reads a listing.

        Raises:
            ModelError: no process can be started.
        """
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
        """Run `extract_chunks` in the child; always yields a last chunk, which carries the failure if there was one.

        Raises:
            ModelError: no process can be started.
        """
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
                        raise Nonsense("a part out of order")
                outcome, part = chunk.outcome, chunk.part + 1
                yield chunk
                if chunk.last:
                    return
        except VideoError as error:
            failures = [*outcome.failures, Failure("decode", str(error.code), f"{error} in unit {task.unit.index}")]
            yield failed_chunk(part, replace(outcome, failures=failures))
        except GeneratorExit:
            self.close()  # or the next unit would receive this unit's remaining chunks
            raise

    def kill(self) -> None:
        """Kill the child, from a thread other than the one that waits for it; the waiting thread then closes."""
        if (process := self._process) is not None:
            process.kill()

    def close(self) -> None:
        """End the child."""
        if self._process is not None:
            self.peak_bytes = max(self.peak_bytes, _peak_bytes(self._process.pid))
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
        """Return the request without a remote video's address, and prepare to read the video for the child."""
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
        """End the child and raise VideoError if the block reads an invalid answer."""
        try:
            yield
        except Nonsense as error:
            self.close()
            raise VideoError(f"the decoder sent {error}", code=ErrorCode.DECODER_CRASHED) from None

    def _start(self) -> None:
        self._timed_out = False  # the previous child's timer may have fired just after its last message
        ours, theirs = socket.socketpair()
        level = logging.getLogger("featray").getEffectiveLevel()
        headroom_gib = HEADROOM_GIB if self.settings.needs_gpu else 0
        memory_bytes = int((self.settings.decode.memory_limit_gib + headroom_gib) * 2**30)
        environment = {**_environment(), "PYTHONPATH": _import_path()}
        try:
            with theirs:
                self._process = _start_process(environment, theirs, memory_bytes, level)
        except OSError as error:
            ours.close()
            raise ModelError(  # of the machine: as a failure of the video, it would be published
                f"no decoding process can be started: {one_line(error)}; see `ulimit -u`, `ulimit -n` and this "
                "machine's memory"
            ) from None
        self._connection = Connection(ours.detach())
        self._connection.send(self.settings.without_secrets())
        if name := self.settings.remote_boxes:
            boxes = str(self.settings.detect.boxes)
            self._files.give(name, partial(locate, boxes, self.settings.boxes_options))
        if self.settings.needs_gpu:
            self._wait_for_gpu(self._connection)

    def _wait_for_gpu(self, connection: Connection) -> None:
        """Wait for the child's message about its GPU, which it sends before it reads any video.

        Raises:
            ModelError: the child cannot use the GPU.
        """
        problem = f"a decoding process did not start its GPU in {START_SECONDS} s; check it with `nvidia-smi`"
        try:
            if connection.poll(START_SECONDS):
                problem = connection.recv_bytes(MAX_MESSAGE_BYTES).decode()
        except (EOFError, OSError):
            problem = f"a decoding process died while starting its GPU: {self._death()}"
        if problem:
            self.close()
            raise ModelError(problem)

    def _receive(self, budget: _Budget) -> bytes:
        """Return the child's next answer and serve its reads until then; kill the child if it takes too long."""
        deadline = time.monotonic() + budget.left_seconds
        with self._waiting(budget) as connection:
            while True:
                message = connection.recv_bytes(MAX_MESSAGE_BYTES)
                if message[:1] != READ:
                    return message[1:]
                connection.send_bytes(self._answer(message[1:], deadline))

    def _answer(self, message: bytes, deadline: float) -> bytes:
        """Read a file for the child, until the deadline: storage may hang for as long as its client's own timeout.

        An abandoned read ends with that timeout; its files are not used again.
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
        """Receive raw bytes straight into memory, with the time limit of `_receive`."""
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
        """Return the reason why the child died, as an error; the next request starts a new child."""
        assert self._process is not None
        try:
            status = self._process.wait(_LAST_WORDS_SECONDS)
        except subprocess.TimeoutExpired:  # it is alive, but sent a message with an impossible length
            self.close()
            return VideoError("the decoder sent an invalid message", code=ErrorCode.DECODER_CRASHED)
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


def _peak_bytes(pid: int) -> int:
    """Return the peak memory of a running process; 0 if the system does not tell."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def _start_process(environment: dict[str, str], connection: socket.socket, memory_bytes: int, level: int) -> Process:
    """Start a child. A second try is for a fork server that ended meanwhile, and for a short lack of processes."""
    start = fork_child if CAN_FORK else _start_anew
    try:
        return start(environment, connection, memory_bytes, level)
    except OSError:
        time.sleep(_SECOND_TRY_SECONDS)
        return start(environment, connection, memory_bytes, level)


def _start_anew(
    environment: dict[str, str], connection: socket.socket, memory_bytes: int, level: int
) -> subprocess.Popen[bytes]:
    """Start a child as a new program, like `fork_child` but for systems that cannot fork."""
    with interrupts_held():
        return subprocess.Popen(
            [sys.executable, "-m", "featray.extract.child", *map(str, (connection.fileno(), memory_bytes, level))],
            pass_fds=[connection.fileno()],
            stdin=subprocess.DEVNULL,
            env=environment,
        )


def _put_answer(files: FilesForChild, message: bytes, answer: SimpleQueue[bytes | Exception]) -> None:
    try:
        answer.put(files.answer(message))
    except Exception as error:  # noqa: BLE001 - raised in the waiting thread
        answer.put(error)


def _import_path() -> str:
    """Return PYTHONPATH with this package first: in a Ray job the package is in the job's working directory."""
    here = str(Path(__file__).parents[2])
    return os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])


_FOR_CHILD: Final = frozenset("HOME LANG LANGUAGE LD_LIBRARY_PATH PATH TEMP TMP TMPDIR TZ".split())
_FOR_CHILD_PREFIXES: Final = (
    "CUDA_", "DNNL_", "FEATRAY_", "KMP_", "LC_", "MKL_", "NVIDIA_", "OMP_", "ONEDNN_", "OPENBLAS_", "OV_", "PYTHON",
    "PYTORCH_",
)  # fmt: skip


def _environment() -> dict[str, str]:
    """Return the environment variables that Python, CUDA and the numerical libraries need, without credentials."""
    return {
        name: value for name, value in os.environ.items() if name in _FOR_CHILD or name.startswith(_FOR_CHILD_PREFIXES)
    }


class _Budget:
    """The seconds left for a unit; only time spent waiting for the child counts."""

    def __init__(self, seconds: float) -> None:
        self.left_seconds = seconds
