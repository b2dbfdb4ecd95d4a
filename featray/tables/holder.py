"""Tables. Who holds a lease: one process on one machine, for one run; and whether it is still there.

Process ids are given again, and mean nothing elsewhere: a process is told by its id and the time
it started, within one boot and one pid namespace.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import platform
import secrets
import socket
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from featray.records import Count, Micros, RecordName


@dataclass(frozen=True)
class Standing:
    """How far a run is.

    Attributes:
        seconds: since its executor was there.
        videos_done, videos_expected: of this run; more may be expected until `listed_all`.
        frames, faces: that have landed in this run.
        share: of the run's bytes that is done; None until the listing is through.
    """

    seconds: Annotated[float, Field(ge=0, lt=1e12)]
    videos_done: Count
    videos_expected: Count
    listed_all: bool
    frames: Count
    faces: Count
    share: Annotated[float, Field(ge=0, lt=1e6)] | None

    @property
    def frames_per_s(self) -> float:
        """Since the executor was there."""
        return self.frames / max(self.seconds, 1e-3)

    @property
    def seconds_left(self) -> float | None:
        """At the speed so far; None if that is not known yet."""
        # A share of less than a byte in a terabyte is none.
        return self.seconds / self.share - self.seconds if self.share and self.share > 1e-12 else None


@dataclass(frozen=True)
class Holder:
    """A lease as it is stored.

    Attributes:
        number: of the lease; the highest holds.
        token: random, so that a claim can be told from another of the same number.
        machine: within which `pid` and `pid_started` mean something: boot and pid namespace.
        since_us, renewed_us: by the holder's clock, microseconds since the epoch; for people to read.
        released: whether the holder is done.
        standing: how far its run was when it renewed; None before it works, and of what is no run.
    """

    number: Count
    token: str
    run_id: RecordName
    host: str
    user: str
    machine: str
    pid: Annotated[int, Field(ge=1, lt=1 << 31)]
    pid_started: str
    since_us: Micros
    renewed_us: Micros
    released: bool = False
    standing: Standing | None = None

    @classmethod
    def myself(cls, number: int, run_id: str) -> Holder:
        """This process, on behalf of a run."""
        user = "unknown"
        with contextlib.suppress(OSError, KeyError):  # a container's user need not have a name
            user = getpass.getuser()
        now_us = time.time_ns() // 1000
        return cls(
            number=number,
            token=secrets.token_hex(8),
            run_id=run_id,
            host=socket.gethostname(),
            user=user,
            machine=_machine(),
            pid=os.getpid(),
            pid_started=_started(os.getpid()),
            since_us=now_us,
            renewed_us=now_us,
        )

    def is_this_process(self) -> bool:
        """Return whether it was this process."""
        me = os.getpid()
        return (self.machine, self.pid, self.pid_started) == (_machine(), me, _started(me))

    def is_gone(self) -> bool:
        """Return whether the process is known to be dead; False if it cannot be known from here."""
        if self.machine != _machine():
            return False
        if self.pid_started:
            return _started(self.pid) != self.pid_started
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False


def _machine() -> str:
    """Within which process ids can be compared."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{platform.node()} {uuid.getnode():x}"


def _started(pid: int) -> str:
    """When a process started, in the kernel's ticks; empty if it is gone, or cannot be asked."""
    try:
        # The name in parentheses may hold anything; after it come the state and, 19 further on, the start.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in ("Z", "X") else fields[19]
