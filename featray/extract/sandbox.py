"""Extract. Forbid the decoding process to open sockets, start programs or inspect other processes.

This is a seccomp filter: it needs no privileges and works in containers, where namespaces mostly do not. It applies to
the process and all its threads until they end. Numbers and layouts: linux/seccomp.h, linux/filter.h, asm/unistd.h.
"""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import struct
import sys
from typing import Final, NamedTuple

_log = logging.getLogger(__name__)

_PR_SET_NO_NEW_PRIVS: Final = 38
_SET_MODE_FILTER: Final = 1
_ALL_THREADS: Final = 1
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER_AT, _MACHINE_AT = 0, 4
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000 | 13, 0x80000000  # 13: EACCES
_X32: Final = 0x40000000
"""x86 has a second set of system call numbers from here on."""


class _Machine(NamedTuple):
    audit: int
    seccomp: int
    refused: tuple[int, ...]


_MACHINES: Final = {
    # socket, connect, execve, execveat, ptrace, process_vm_readv, process_vm_writev, io_uring_setup, pidfd_getfd
    "x86_64": _Machine(0xC000003E, 317, (41, 42, 59, 322, 101, 310, 311, 425, 438)),
    "aarch64": _Machine(0xC00000B7, 277, (198, 203, 221, 281, 117, 270, 271, 425, 438)),
}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def confine() -> None:
    """Permanently deny this process the system calls that use the network or other processes, or start a program.

    Open files and sockets stay open. If the filter cannot be installed, a debug message says so.
    """
    machine = _MACHINES.get(platform.machine()) if sys.platform == "linux" else None
    if machine is None:
        _log.debug("the decoding process keeps network access: there is no filter for %s", platform.machine())
        return
    code = _filter(machine)
    libc = ctypes.CDLL(None, use_errno=True)
    program = _Program(len(code) // 8, code)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.syscall(
        ctypes.c_long(machine.seccomp), ctypes.c_ulong(_SET_MODE_FILTER), ctypes.c_ulong(_ALL_THREADS),
        ctypes.byref(program),
    ):  # fmt: skip
        _log.debug("the decoding process keeps network access: %s", os.strerror(ctypes.get_errno()))


def _filter(machine: _Machine) -> bytes:
    count = len(machine.refused)
    steps = [
        (_LOAD, 0, 0, _MACHINE_AT),
        (_IF_EQUAL, 1, 0, machine.audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_IF_AT_LEAST, count + 1, 0, _X32),
        *((_IF_EQUAL, count - i, 0, number) for i, number in enumerate(machine.refused)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)
