"""Ceph's RADOS gateway on this machine, from Debian's packages, started by the script that compose uses."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from tests.fixtures.s3 import KEYS, free_port

PACKAGES = ("ceph-common", "ceph-mon", "ceph-osd", "libfaketime", "radosgw")
START_SECONDS = 180
SCRIPT = Path(__file__).parents[2] / "infra/compose/storage.sh"


@dataclass(frozen=True)
class Gateway:
    """A running gateway with a user of `KEYS`, who may grant permissions to others.

    Attributes:
        url: endpoint.
        folder: folder of its processes, with configuration and logs.
    """

    url: str
    folder: Path

    @property
    def options(self) -> dict[str, str]:
        """Return options for fsspec, for the user of `KEYS`."""
        return {"endpoint_url": self.url, **KEYS}

    def admin(self, *arguments: str) -> Any:
        """Return the answer of `radosgw-admin`, parsed as JSON; None if it is empty or not JSON."""
        command = ["radosgw-admin", "-c", str(self.folder / "ceph.conf"), "-n", "client.rgw", "--admin-socket="]
        done = subprocess.run(
            [*command, *arguments], capture_output=True, text=True, timeout=START_SECONDS, check=False
        )
        if done.returncode:
            raise RuntimeError(f"radosgw-admin {' '.join(arguments)}: {done.stderr[-2000:]}")
        return json.loads(done.stdout) if done.stdout.startswith(("{", "[")) else None

    def user(self, name: str) -> dict[str, str]:
        """Create a user, and return its fsspec options."""
        (key,) = self.admin("user", "create", f"--uid={name}", f"--display-name={name}")["keys"]
        return {"endpoint_url": self.url, "key": key["access_key"], "secret": key["secret_key"]}


def install() -> None:
    """Install the missing packages, which takes root and minutes."""
    commands = ("ceph", "ceph-mon", "ceph-osd", "radosgw", "radosgw-admin")
    if all(map(shutil.which, commands)) and any(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")):
        return
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}}
    subprocess.run(["apt-get", "update"], check=True, timeout=300, **quiet)
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *PACKAGES]
    subprocess.run(command, check=True, timeout=1200, **quiet)


@contextmanager
def gateway(folder: Path) -> Iterator[Gateway]:
    """Run a gateway during the block; `folder` must have a short name, because it contains sockets."""
    conf = folder / "ceph.conf"
    before = re.search(r"endpoint=\S+:(\d+)", conf.read_text()) if conf.exists() else None
    port = int(before[1]) if before else free_port()  # a store that was started here before keeps its ports
    variables = {
        "AWS_ACCESS_KEY_ID": KEYS["key"],
        "AWS_SECRET_ACCESS_KEY": KEYS["secret"],
        "STORAGE_DATA": str(folder),
        "STORAGE_LISTEN": "127.0.0.1",
        "STORAGE_MONITOR_PORT": str(free_port()),
        "STORAGE_PORT": str(port),
    }
    with _running(["sh", str(SCRIPT)], variables, folder.with_suffix(".out"), port):
        yield Gateway(f"http://127.0.0.1:{port}", folder)


@contextmanager
def behind(gateway: Gateway, seconds: int) -> Iterator[str]:
    """Run another gateway of the same store with a clock `seconds` behind: its tokens expire that much earlier."""
    port = free_port()
    (preload,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    clock = {"LD_PRELOAD": str(preload), "FAKETIME": f"-{seconds}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    command = ["radosgw", "-f", "-c", str(gateway.folder / "ceph.conf"), "-n", "client.rgw", "--admin-socket="]
    listen = f"--rgw-frontends=beast endpoint=127.0.0.1:{port}"
    with _running([*command, listen, "--log-file="], clock, gateway.folder.with_suffix(".behind"), port):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def _running(command: list[str], variables: dict[str, str], log: Path, port: int) -> Iterator[None]:
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env={**os.environ, **variables}, start_new_session=True
        )
    try:
        _wait_for(port, process, log)
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with the monitor and the store, as when a container ends
        process.wait(30)


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            urlopen(f"http://127.0.0.1:{port}/", timeout=10).close()
            return
        except HTTPError:
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"the gateway does not answer: {log.read_text(errors='replace')[-2000:]}")
