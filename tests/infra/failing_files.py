"""A file system in user space (FUSE) that passes everything on to a folder, and fails on request.

    python -m tests.infra.failing_files FOLDER MOUNT ORDER

ORDER is a file with the JSON of an `Order`. It is read again when it has changed; operations are then counted from 0.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

KINDS: Final = {
    "write": ("create", "write", "truncate", "fsync", "unlink", "mkdir", "rmdir", "rename", "link"),
    "close": ("flush",),
    "read": ("open", "read", "readdir"),
}
"""Operations by kind. NFS and quotas report an error of a write only when the file is closed."""


@dataclass(frozen=True)
class Order:
    """What fails.

    Attributes:
        kind: one of KINDS; empty if nothing fails.
        at: number of the operation of this kind; -1 only counts.
        errno: the error.
        lasting: whether all later operations of this kind fail too.
    """

    kind: str = ""
    at: int = -1
    errno: int = 0
    lasting: bool = False


class FailingFiles:
    """The mounted file system; a context manager. Files are in `folder`, and seen through `place`."""

    def __init__(self, root: Path) -> None:
        self.folder, self.place, self._order = root / "folder", root / "place", root / "order.json"
        self._counted, self._failed = root / "order.json.counted", root / "order.json.failed"

    def __enter__(self) -> FailingFiles:
        self.folder.mkdir()
        self.place.mkdir()
        self.order(Order())
        words = ["-m", "tests.infra.failing_files", str(self.folder), str(self.place), str(self._order)]
        self._server = subprocess.Popen([sys.executable, *words])
        until = time.monotonic() + 30
        while not os.path.ismount(self.place):
            assert time.monotonic() < until and self._server.poll() is None, "the file system was not mounted"
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["fusermount3", "-u", "-z", str(self.place)], check=True)
        self._server.wait(30)

    def order(self, order: Order) -> None:
        """Give an order, and count from 0."""
        for told in (self._counted, self._failed):
            told.unlink(missing_ok=True)
        self._order.write_text(json.dumps(asdict(order)))
        os.utime(self._order, ns=(time.time_ns(), time.time_ns()))

    @property
    def counted(self) -> int:
        """The number of operations of the order's kind since it was given."""
        return len(self._counted.read_text().splitlines()) if self._counted.exists() else 0

    @property
    def failed(self) -> list[str]:
        """The operations that failed, each with its path."""
        return self._failed.read_text().splitlines() if self._failed.exists() else []


def _serve(folder: str, mount: str, order_path: str) -> None:
    import mfusepy  # loads libfuse, which only this program needs

    kind_of = {operation: kind for kind, operations in KINDS.items() for operation in operations}
    state: dict[str, Any] = {"seen": None, "order": Order(), "next": 0}

    def check(operation: str, path: str) -> None:
        changed = os.stat(order_path).st_mtime_ns
        if changed != state["seen"]:
            state.update({"seen": changed, "order": Order(**json.loads(Path(order_path).read_text())), "next": 0})
        order = state["order"]
        if kind_of.get(operation) != order.kind:
            return
        number = state["next"]
        state["next"] = number + 1
        hit = order.at >= 0 and (number == order.at or (order.lasting and number > order.at))
        with open(f"{order_path}.{'failed' if hit else 'counted'}", "a") as told:
            told.write(f"{operation} {path}\n")
        if hit:
            raise mfusepy.FuseOSError(order.errno)

    def real(path: str) -> str:
        return folder + path

    def entry(path: str, _: object = None) -> dict[str, int]:
        found = os.lstat(real(path))
        return {
            **{name: getattr(found, name) for name in ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_ino")},
            **{f"st_{name}": getattr(found, f"st_{name}_ns") for name in ("atime", "mtime", "ctime")},
        }

    def space(path: str) -> dict[str, int]:
        found = os.statvfs(real(path))
        return {name: getattr(found, name) for name in dir(found) if name.startswith("f_") and name != "f_fsid"}

    calls: dict[str, Any] = {
        "getattr": entry,
        "statfs": space,
        "readdir": lambda path, _: [".", "..", *os.listdir(real(path))],
        "readlink": lambda path: os.readlink(real(path)),
        "open": lambda path, flags: os.open(real(path), flags),
        "create": lambda path, mode, _=None: os.open(real(path), os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode),
        "read": lambda path, size, offset, handle: os.pread(handle, size, offset),
        "write": lambda path, data, offset, handle: os.pwrite(handle, data, offset),
        "truncate": lambda path, length, _=None: os.truncate(real(path), length),
        "flush": lambda path, handle: None,
        "fsync": lambda path, data_only, handle: os.fsync(handle),
        "release": lambda path, handle: os.close(handle),
        "unlink": lambda path: os.unlink(real(path)),
        "mkdir": lambda path, mode: os.mkdir(real(path), mode),
        "rmdir": lambda path: os.rmdir(real(path)),
        "rename": lambda old, new: os.rename(real(old), real(new)),
        "link": lambda new, old: os.link(real(old), real(new)),
        "chmod": lambda path, mode: os.chmod(real(path), mode),
        "utimens": lambda path, times=None: os.utime(real(path), ns=times),
    }

    def call(operation: str, do: Any) -> Any:
        def checked(_: object, path: str, *more: Any) -> Any:
            try:
                check(operation, path)
                return do(path, *more)
            except OSError as error:
                raise mfusepy.FuseOSError(error.errno) from None

        return checked

    methods = {operation: call(operation, do) for operation, do in calls.items()}
    passing = type("Passing", (mfusepy.Operations,), {**methods, "use_ns": True})
    # Without the kernel's caches, each operation of a process arrives here.
    options = {"attr_timeout": 0, "entry_timeout": 0, "negative_timeout": 0, "direct_io": True}
    mfusepy.FUSE(passing(), mount, foreground=True, nothreads=True, **options)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
