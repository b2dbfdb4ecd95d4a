"""Graph. Connect to Ray or start it on this machine, and query the cluster's nodes."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TextIO

import ray

from featray.errors import RunError, one_line
from featray.graph.machine import local_cpus, local_gpus
from featray.graph.ray_internals import dead_process, is_own, keep_token_private, on_loopback
from featray.graph.stop import handler_kept
from featray.graph.workers import Node

log = logging.getLogger(__name__)

_MODEL: Final = "accelerator_type:"

_ANSWER_SECONDS: Final = 10
"""A reachable machine refuses or accepts at once; the time is for slow networks."""

_SOCKET_BYTES: Final = 107 if sys.platform == "linux" else 103
"""Maximum length of a socket's path."""

_LEAST_FILES: Final = 256
_WANTED_FILES: Final = 4096
"""Open files per process: with 64, Ray's processes die; with 128, Ray runs a few workers, slowly."""

_SILENT_SECONDS: Final = 10
"""After this time a message says what is awaited; a healthy cluster answers in one or two seconds."""

_SHARED_MEMORY: Final = "/dev/shm"
_FULL_BYTES: Final = 1 << 20

_session: Path | None = None
"""Folder in which Ray keeps the sockets of this machine's processes."""


def connect() -> bool:
    """Connect to the existing cluster, or start Ray on this machine; return whether it was started."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if os.environ["RAY_USAGE_STATS_ENABLED"] == "0":
        # Even then Ray may report that reports are disabled. Send that nowhere: nothing listens on this port.
        os.environ.setdefault("RAY_USAGE_STATS_REPORT_URL", "http://127.0.0.1:9")
    # Ray's messages about its internals stay in its log files; featray's messages say what they mean for the run.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    if ray.is_initialized():
        return False
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        _raise_limit_of_files()
        keep_token_private()
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    with warnings.catch_warnings(), _native_stderr_closed() as screen, handler_kept():
        warnings.simplefilter("ignore")
        if address:
            told = f"RAY_ADDRESS={address}: cannot use this cluster: {{}}; start it, or unset RAY_ADDRESS"
            with _one_line(told), _said_if_slow(f"waiting for the Ray cluster at {address} (RAY_ADDRESS)", screen):
                _check_answers(address)
                _remember(ray.init(**quiet))
            return False
        with (
            _one_line(f"Ray did not start on this machine: {{}}; {_what_helps()}"),
            _said_if_slow("waiting for Ray to start on this machine", screen),
            on_loopback(),
        ):
            # Without "local", Ray would look for the last cluster started here, and wait long if it is gone.
            here: dict[str, Any] = {"num_cpus": local_cpus(), "num_gpus": int(local_gpus())}  # Ray ignores affinity
            _remember(ray.init(address="local", include_dashboard=False, **here, **quiet))
    return True


def _raise_limit_of_files() -> None:
    """Raise the limit of open files to what Ray needs.

    Raises:
        RunError: the system does not allow it, and Ray's processes would die one by one.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _WANTED_FILES if hard == resource.RLIM_INFINITY else min(hard, _WANTED_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < _LEAST_FILES:
        raise RunError(
            f"Ray does not start with a limit of {most} open files (`ulimit -n`); raise it to {_WANTED_FILES}, or run "
            "without Ray: --executor local"
        )


def _what_helps() -> str:
    """Return a fix for a failed start of Ray, after checking the most common reasons."""
    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        return "it needs much address space, which is limited (`ulimit -v`): lift the limit, or use --executor local"
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    longest = f"{folder}/ray/session_0000-00-00_00-00-00_000000_{os.getpid()}/sockets/plasma_store"
    if len(os.fsencode(longest)) > _SOCKET_BYTES:
        return f"the path {folder} is too long for its sockets; set RAY_TMPDIR to a short one, such as /tmp"
    if not os.access(folder, os.W_OK):
        return f"{folder} is not writable; set RAY_TMPDIR to a writable folder"
    if _shared_memory_is_full():
        return f"{_SHARED_MEMORY} is full, which holds its objects: free space there"
    return "it needs a free core and about 2 GiB of memory; `featray doctor` tries it alone"


def _remember(context: Any) -> None:
    global _session
    folder = getattr(context, "address_info", {}).get("session_dir")
    _session = Path(folder) if folder and Path(folder).is_dir() else None


def check_session() -> None:
    """Check that the Ray started by this process is intact; for an existing cluster, check only its folder.

    Raises:
        RunError: it is not, so no result would ever arrive. Also logged, since Ray may end this process at once.
    """
    if _session is not None and not _session.is_dir():
        raise RunError(
            "Ray's session folder was deleted during the run, probably by a cleaner of /tmp; set RAY_TMPDIR to a "
            "folder that is not cleaned, and run again: what has landed is kept"
        )
    text = None
    if (name := dead_process()) is not None:
        text = f"Ray's process {name} has ended, most likely {_of_what()}"
    elif is_own() and not nodes():
        text = "Ray's only node did not answer for long and was given up: the machine was suspended, or is overloaded"
    if text is not None:
        text += "; run again: what has landed is kept"
        log.error(text)
        raise RunError(text)


def _of_what() -> str:
    """Return the likely reason why a process of Ray ended: it is killed if it cannot get memory."""
    if _shared_memory_is_full():
        return f"because {_SHARED_MEMORY} is full, which holds its objects: free space there"
    return "for lack of memory"


def _shared_memory_is_full() -> bool:
    with contextlib.suppress(OSError):
        place = os.statvfs(_SHARED_MEMORY)
        return place.f_bavail * place.f_frsize < _FULL_BYTES
    return False


def _check_answers(address: str) -> None:
    """Raise OSError at once if nothing listens at the address; Ray itself would try for minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS).close()


@contextmanager
def _said_if_slow(text: str, screen: TextIO) -> Iterator[None]:
    timer = threading.Timer(_SILENT_SECONDS, print, [f"featray: {text}"], {"file": screen, "flush": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def _one_line(words: str) -> Iterator[None]:
    """Turn any error of Ray's start into a RunError; Ray itself raises many types, including plain Exception."""
    try:
        yield
    except Exception as error:
        raise RunError(words.format(one_line(error).rstrip("."))) from error


@contextmanager
def _native_stderr_closed() -> Iterator[TextIO]:
    """Suppress a line about the log level that Ray's C++ core prints; exceptions are not affected.

    Yields:
        A stream that still writes to standard error.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        with open(kept, "w", closefd=False) as screen:
            yield screen
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def cluster_gpus() -> float:
    """Connect to the cluster and return its number of GPUs."""
    connect()
    return sum(node.gpus for node in nodes().values())


def nodes() -> dict[str, Node]:
    """Return the cluster's nodes that are alive, by id."""
    alive = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
    return {
        i: Node(one.get("CPU", 0.0), one.get("GPU", 0.0), one.get("memory", 0.0), _gpu_model(one))
        for i, one in alive.items()
    }


def _gpu_model(resources: dict[str, float]) -> str | None:
    """Return the model of the GPU, as named in Ray's resources."""
    names = [name.removeprefix(_MODEL) for name in resources if name.startswith(_MODEL)]
    return names[0] if names and resources.get("GPU") else None
