"""Extract. A process that has loaded what decoding needs, and forks the children that decode.

Loading takes a second and a half of a core and 100 MB; a fork takes milliseconds and shares that memory. So a worker
whose child has crashed goes on at once, and sixteen workers on one machine load everything once. The standard library's
fork server would run the user's main module again, and hand its environment on, credentials and all.

The server knows no secrets and reads no video. It ends when the process that started it does, and its children with it.
"""

from __future__ import annotations

import ctypes
import gc
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import traceback
from contextlib import suppress
from typing import Final, NoReturn, Protocol

from featray.extract.child import serve

CAN_FORK = sys.platform == "linux"
"""Elsewhere system libraries do not take a fork without a new program, and each child is started anew."""

_REQUEST: Final = struct.Struct("=qi")
"""Bytes of memory and level of the log. With it come the child's socket, the one for its status, its output."""
_STATUS: Final = struct.Struct("=i")
_PR_SET_NAME: Final = 15
CHILD_NAME: Final = "featray.child"
"""Of a decoding process, as `top` and `ps -o comm` show it."""


class Process(Protocol):
    """The part of `subprocess.Popen` that is used, also for a child of another process."""

    @property
    def pid(self) -> int:
        """Its process id."""

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal; None while it lives."""

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status once it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not, after so many seconds.
        """

    def kill(self) -> None:
        """End it with SIGKILL, if it lives."""


class Forked:
    """A child of the fork server, which keeps its process id taken until `wait` or `poll` has told of its end."""

    def __init__(self, pid: int, status: socket.socket) -> None:
        self.pid = pid
        self._status = status
        self._code: int | None = None
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """See `Process`."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """See `Process`."""
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(CHILD_NAME, timeout or 0)
        return code

    def kill(self) -> None:
        """See `Process`."""
        with self._lock:
            if self._code is None:
                os.kill(self.pid, signal.SIGKILL)

    def _ended(self, timeout: float | None) -> int | None:
        if self._code is None:
            with selectors.DefaultSelector() as ready:
                ready.register(self._status, selectors.EVENT_READ)
                if not ready.select(timeout):
                    return None
            told = self._status.recv(_STATUS.size)
            with self._lock:
                # Without a last word the server itself is gone, and has taken its children along.
                self._code = _STATUS.unpack(told)[0] if told else -signal.SIGKILL
                self._status.close()
        return self._code


class ForkServer:
    """The server as its parent sees it.

    Args:
        environment: of the server and so of its children.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "featray.extract.forkserver", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=environment,
            )

    def fork(self, connection: socket.socket, memory_bytes: int, level: int) -> Process:
        """Start a child that serves on a socket; see `child.serve`.

        Raises:
            OSError: the server is gone, or the system has no room for another process.
        """
        ours, theirs = socket.socketpair()
        with theirs, self._lock:
            request = _REQUEST.pack(memory_bytes, level)
            socket.send_fds(self._socket, [request], [connection.fileno(), theirs.fileno(), 1, 2])
        told = ours.recv(_STATUS.size)
        if not told:
            raise OSError(f"the fork server ended ({self._process.wait()})")
        pid = _STATUS.unpack(told)[0]
        if pid < 0:
            ours.close()
            raise OSError(-pid, os.strerror(-pid))
        return Forked(pid, ours)

    def close(self) -> None:
        """Fork no more; the server ends with its last child."""
        self._socket.close()

    def is_alive(self) -> bool:
        """Return whether it can fork."""
        return self._process.poll() is None


_current: ForkServer | None = None
_current_lock = threading.Lock()


def fork_child(environment: dict[str, str], connection: socket.socket, memory_bytes: int, level: int) -> Process:
    """Start a child, by this process's fork server, which starts with the first one and when `environment` changes.

    Raises:
        OSError: there is no room for another process, or none can be started here.
    """
    global _current
    with _current_lock:
        if _current is None or _current.environment != environment or not _current.is_alive():
            if _current is not None:
                _current.close()
            _current = ForkServer(environment)
        server = _current
    return server.fork(connection, memory_bytes, level)


class _Server:
    """The server itself: one thread, which waits for requests, for deaths, and for the parent's letting go."""

    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests
        self._alive: dict[int, socket.socket] = {}
        self._dead: dict[int, socket.socket] = {}
        self._woken, wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wakes)
        self._own = [self._woken, wakes, requests.fileno()]
        self._ready = selectors.DefaultSelector()
        self._ready.register(requests, selectors.EVENT_READ)
        self._ready.register(self._woken, selectors.EVENT_READ)

    def serve(self) -> None:
        """Fork until nobody is there to ask for it, and then wait until the last child is gone."""
        asked = True
        while asked or self._alive or self._dead:
            for key, _ in self._ready.select():
                if key.fileobj is self._requests:
                    asked = self._answer()
                elif key.fd == self._woken:
                    os.read(self._woken, 1 << 16)
                    self._tell_of_the_dead()
                else:
                    self._reap(key.data)

    def _answer(self) -> bool:
        try:
            request, descriptors, _, _ = socket.recv_fds(self._requests, _REQUEST.size, 4)
        except ConnectionError:
            request = b""
        if not request:
            self._ready.unregister(self._requests)
            return False
        connection, status, *streams = descriptors
        try:
            pid = os.fork()
        except OSError as error:
            pid = -(error.errno or 1)
        if pid == 0:
            os.close(status)
            self._be_child(connection, streams, *_REQUEST.unpack(request))
        for descriptor in (connection, *streams):
            os.close(descriptor)
        told = socket.socket(fileno=status)
        _send(told, pid)
        if pid < 0:
            told.close()
            return True
        self._alive[pid] = told
        self._ready.register(told, selectors.EVENT_READ, pid)
        self._tell_of_the_dead()  # it may be one already
        return True

    def _be_child(self, connection: int, streams: list[int], memory_bytes: int, level: int) -> NoReturn:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._ready.close()
            for status in (*self._alive.values(), *self._dead.values()):
                status.close()
            for descriptor in self._own:
                os.close(descriptor)
            for number, stream in enumerate(streams, 1):
                os.dup2(stream, number)
                os.close(stream)
            ctypes.CDLL(None).prctl(_PR_SET_NAME, CHILD_NAME.encode())
            serve(connection, memory_bytes, level)
            code = 0
        except BaseException:  # noqa: BLE001 - it must not go on as a server
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _tell_of_the_dead(self) -> None:
        """They are not reaped yet: their process ids stay taken, so that who kills one of them hits nobody else."""
        for pid in list(self._alive):
            found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is not None:
                status = self._dead[pid] = self._alive.pop(pid)
                _send(status, found.si_status if found.si_code == os.CLD_EXITED else -found.si_status)

    def _reap(self, pid: int) -> None:
        """The parent knows of its end, or wants it no more, or is gone itself."""
        status = self._alive.pop(pid, None) or self._dead.pop(pid)
        self._ready.unregister(status)
        status.close()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _send(status: socket.socket, number: int) -> None:
    with suppress(OSError):  # the parent is gone, which the next look at this socket tells
        status.send(_STATUS.pack(number))


def main() -> None:
    """Serve on the socket whose number is the argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    import featray.faces.retinaface_mnv1  # noqa: F401 - the default detector, and OpenVINO with it

    gc.collect()
    gc.freeze()  # or collections in a child would copy what they look at
    _Server(socket.socket(fileno=int(sys.argv[1]))).serve()


if __name__ == "__main__":
    main()
