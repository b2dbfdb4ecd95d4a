"""Command line. The standard streams: open from the start, and no reason to end a run when nobody reads them."""

from __future__ import annotations

import errno
import io
import logging
import os
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def fill_streams() -> None:
    """Open /dev/null in place of closed standard streams (`>&-`, some service managers).

    Otherwise the next file opened, such as a table being written, would be standard output to native code and children.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest free number: this one
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:  # libraries, such as Rich, ask whether it is a terminal
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))


def outlive_terminal() -> None:
    """Let standard output and error drop what is printed once their terminal has been closed."""
    _outlive(os.isatty)


def outlive_reader() -> None:
    """Let them drop what is printed once the reader of a pipe has ended: `featray run ... | head` goes on.

    For runs alone: commands that only print end with their reader.
    """
    _outlive(lambda number: stat.S_ISFIFO(os.fstat(number).st_mode))


class _Left(io.FileIO):
    """A terminal or a pipe. When it has been closed at the other side, what is printed is dropped."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in (errno.EIO, errno.EPIPE):
                raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        return super().write(data)


def _outlive(concerns: Callable[[int], bool]) -> None:
    for name in ("stdout", "stderr"):
        before = getattr(sys, name)
        with suppress(AttributeError, OSError, ValueError):  # no stream of the system
            if concerns(before.fileno()):
                before.flush()
                how = {"encoding": before.encoding, "errors": before.errors, "line_buffering": True}
                raw = _Left(before.fileno(), "w", closefd=False)
                stream = io.TextIOWrapper(io.BufferedWriter(raw), **how)
                setattr(sys, name, stream)
                for handler in logging.getLogger().handlers:
                    if isinstance(handler, logging.StreamHandler) and handler.stream is before:
                        handler.setStream(stream)
