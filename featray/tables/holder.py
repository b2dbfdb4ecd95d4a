"""Tables. The holder of a lease: one process on one machine, for one run; and whether it is still alive.

Process ids are reused and have no meaning on other machines, so a process is identified by its
id and start time, within one boot and one pid namespace.
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
    """The progress of a run.

    Attributes:
        seconds: time since its executor was ready.
        videos_done, videos_expected: videos of this run; `videos_expected` may grow until `listed_all`.
        frames, faces: numbers that have landed in this run.
        share: share of the run's bytes that is done; None until the listing is complete.
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
        """Return the average since the executor was ready."""
        return self.frames / max(self.seconds, 1e-3)

    @property
    def seconds_left(self) -> float | None:
        """Return the remaining time at the average speed; None if unknown."""
        # A share of less than a byte in a terabyte counts as none.
        return self.seconds / self.share - self.seconds if self.share and self.share > 1e-12 else None


@dataclass(frozen=True)
class Holder:
    """A stored lease.

    Attributes:
        number: number of the lease; the highest one holds the partition.
        token: random, to distinguish claims of the same number.
        machine: boot and pid namespace, within which `pid` and `pid_started` are valid.
        since_us, renewed_us: by the holder's clock, microseconds since the epoch; for display.
        released: whether the holder is done.
        standing: progress of the run at the last renewal; None before its work starts and for holders that are not
            runs.
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
        """Return a lease for this process, on behalf of a run."""
        user = "unknown"
        with contextlib.suppress(OSError, KeyError):  # a container's user may have no name
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
        """Return whether the holder is this process."""
        me = os.getpid()
        return (self.machine, self.pid, self.pid_started) == (_machine(), me, _started(me))

    def is_gone(self) -> bool:
        """Return whether the process is known to be dead; False if this machine cannot tell."""
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
    """Return an id of the scope within which process ids can be compared."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{platform.node()} {uuid.getnode():x}"


def _started(pid: int) -> str:
    """Return the start time of a process in kernel ticks; empty if it is gone or unknown."""
    try:
        # The name in parentheses may contain anything; after it come the state and, 19 fields later, the start time.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in ("Z", "X") else fields[19]
