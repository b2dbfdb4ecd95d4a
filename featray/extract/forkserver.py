"""Extract. A fork server: it loads the decoding libraries once and forks the decoding processes.

Loading takes 1.5 s of a core and 100 MB; a fork takes milliseconds and shares that memory. A worker whose child has
crashed therefore continues at once, and sixteen workers of one process load everything once. The standard library's
fork server would run the user's main module again and pass on its environment, including credentials.

The server holds no secrets and reads no video. It ends with the process that started it, and its children end with it.
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
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final, NoReturn, Protocol

from featray.extract.child import OF_TERMINALS, ignore_terminals, serve

CAN_FORK = sys.platform == "linux"
"""On other systems the system libraries do not survive a fork without exec, so each child is a new program."""

_REQUEST: Final = struct.Struct("=qi")
"""Memory limit in bytes, log level. Descriptors sent with it: the child's socket, its status socket, stdout, stderr."""
_STATUS: Final = struct.Struct("=i")
_PR_SET_NAME: Final = 15
CHILD_NAME: Final = "featray.child"
"""Name of a decoding process in `top` and `ps -o comm`."""


class Process(Protocol):
    """The part of `subprocess.Popen` that featray uses, also for a child of the fork server."""

    @property
    def pid(self) -> int:
        """The process id."""

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal; None while the process runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the process to end and return its exit status.

        Raises:
            subprocess.TimeoutExpired: it has not ended within `timeout` seconds.
        """

    def kill(self) -> None:
        """Send SIGKILL if the process is running."""


class Forked:
    """A child of the fork server. Its process id is not reused until `wait` or `poll` has reported its end."""

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
                # A closed socket without a status: the server is gone, and its children were killed with it.
                self._code = _STATUS.unpack(told)[0] if told else -signal.SIGKILL
                self._status.close()
        return self._code


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Start programs on which Ctrl-C and a closed terminal have no effect from their first instruction on.

    A terminal sends both to them as well, and until they have loaded their modules they could not ignore them. The
    blocked signals are inherited, and are discarded once they are ignored.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, OF_TERMINALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class ForkServer:
    """The parent's handle on a fork server.

    Args:
        environment: environment variables of the server and its children.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair()
        with ExitStack() as unless_started, theirs, interrupts_held():
            unless_started.callback(self._socket.close)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "featray.extract.forkserver", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=environment,
            )
            unless_started.pop_all()

    def fork(self, connection: socket.socket, memory_bytes: int, level: int) -> Process:
        """Start a child that serves on a socket; see `child.serve`.

        Raises:
            OSError: the server is gone, or the system refuses another process.
        """
        ours, theirs = socket.socketpair()
        with ExitStack() as unless_started:
            unless_started.callback(ours.close)
            with theirs, self._lock:
                request = _REQUEST.pack(memory_bytes, level)
                socket.send_fds(self._socket, [request], [connection.fileno(), theirs.fileno(), 1, 2])
            told = ours.recv(_STATUS.size)
            if not told:
                raise OSError(f"the fork server ended ({self._process.wait()})")
            pid = _STATUS.unpack(told)[0]
            if pid < 0:
                raise OSError(-pid, os.strerror(-pid))
            unless_started.pop_all()
        return Forked(pid, ours)

    def close(self) -> None:
        """Stop forking; the server ends with its last child."""
        self._socket.close()

    def is_alive(self) -> bool:
        """Return whether the server is running."""
        return self._process.poll() is None


_current: ForkServer | None = None
_current_lock = threading.Lock()


def fork_child(environment: dict[str, str], connection: socket.socket, memory_bytes: int, level: int) -> Process:
    """Start a child through this process's fork server.

    The server starts with the first child, and again if it has ended or `environment` changes.

    Raises:
        OSError: the system refuses another process.
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
    """The server: one thread that waits for requests, for children that end, and for the parent to release them."""

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
        """Fork until the parent closes the socket, then wait until the last child is gone."""
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
        self._tell_of_the_dead()  # the new child may have died already
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
        except BaseException:  # noqa: BLE001 - the child must not continue as a server
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _tell_of_the_dead(self) -> None:
        """Report children that have ended. They are reaped later, so a kill cannot hit a process that reuses the id."""
        for pid in list(self._alive):
            found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is not None:
                status = self._dead[pid] = self._alive.pop(pid)
                _send(status, found.si_status if found.si_code == os.CLD_EXITED else -found.si_status)

    def _reap(self, pid: int) -> None:
        """Reap a child whose status socket the parent closed: it knows of the end, dropped the child, or is gone."""
        status = self._alive.pop(pid, None) or self._dead.pop(pid)
        self._ready.unregister(status)
        status.close()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _send(status: socket.socket, number: int) -> None:
    with suppress(OSError):  # the parent is gone; the next read from this socket reports it
        status.send(_STATUS.pack(number))


def main() -> None:
    """Serve on the socket whose number is the argument."""
    ignore_terminals()
    import featray.faces.retinaface_mnv1  # noqa: F401 - the default detector, and OpenVINO with it

    gc.collect()
    gc.freeze()  # or a garbage collection in a child would copy the pages it touches
    _Server(socket.socket(fileno=int(sys.argv[1]))).serve()


if __name__ == "__main__":
    main()
