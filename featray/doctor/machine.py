"""Doctor. Check the machine: processors, memory, disk, and whether Ray answers."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from featray.config import cache_dir
from featray.doctor.check import Check, shortened
from featray.graph.machine import local_cpus

_LEAST_MEMORY_GIB: Final = 4
"""A decode worker, an inference worker and Ray itself together use about 3 GiB."""

_LEAST_DISK_GIB: Final = 5
"""Files are written to this disk before upload, several of 256 MiB at a time, and Ray spills objects to it."""

_CLUSTER_SECONDS: Final = 60
"""Time limit for an existing cluster; if the cluster is gone, Ray itself would wait for minutes."""

_START_SECONDS: Final = 150
"""Time limit for starting Ray. It takes about ten seconds, or minutes if all processors are busy."""

_START_RAY: Final = """
from featray.graph.connection import connect, nodes
connect()
there = nodes().values()
print(f"{sum(node.cpus for node in there):g} CPUs, {sum(node.gpus for node in there):g} GPUs")
"""


def machine() -> Iterator[Check]:
    """Check Python, processors, memory and disks."""
    python = ".".join(map(str, sys.version_info[:3]))
    yield Check("machine", "Python", "ok", f"{python} at {sys.prefix}")
    here, there = local_cpus(), os.cpu_count()
    yield Check("machine", "processors", "ok", f"{here}" if here == there else f"{here} of {there} usable")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    enough = memory >= _LEAST_MEMORY_GIB
    fix = "" if enough else f"a machine with at least {_LEAST_MEMORY_GIB} GiB"
    yield Check("machine", "memory", "ok" if enough else "missing", f"{memory:.0f} GiB", fix)
    for name, folder, variable in (
        ("temporary files", tempfile.gettempdir(), "TMPDIR"),
        ("cache of weights", str(cache_dir()), "FEATRAY_CACHE"),
    ):
        place = _existing(Path(folder))
        free = shutil.disk_usage(place).free / 2**30
        writable = os.access(place, os.W_OK)
        fine = writable and free >= _LEAST_DISK_GIB
        found = f"{folder}: {free:.0f} GiB free" + ("" if writable else ", not writable")
        fix = "" if fine else f"export {variable}=FOLDER, on a disk with {_LEAST_DISK_GIB} GiB free"
        yield Check("machine", name, "ok" if fine else "missing", found, fix)


def _existing(path: Path) -> Path:
    """Return the folder, or its nearest existing parent."""
    return next(place for place in (path, *path.parents) if place.exists())


def ray() -> Iterator[Check]:
    """Connect to the cluster named by RAY_ADDRESS, or start and stop Ray on this machine, in a separate process."""
    address = os.environ.get("RAY_ADDRESS")
    name = "the cluster of RAY_ADDRESS" if address else "Ray on this machine"
    if address:
        fix = "ray status --address $RAY_ADDRESS; unset RAY_ADDRESS to run here"
    elif importlib.util.find_spec("ray") is None:
        fix = "pip install 'ray[data,default]'"
    else:
        fix = "`ray start --head` shows more; `featray run --executor local` needs no Ray"
    patience = _CLUSTER_SECONDS if address else _START_SECONDS
    try:
        done = subprocess.run(
            [sys.executable, "-c", _START_RAY], capture_output=True, text=True, timeout=patience, check=False
        )
    except subprocess.TimeoutExpired:
        yield Check("ray", name, "missing", f"no answer in {patience} s", fix)
        return
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it exited without a message"])[-1]
        yield Check("ray", name, "missing", shortened(last), fix)
    else:
        yield Check("ray", name, "ok", f"answers: {done.stdout.strip().splitlines()[-1]}")
