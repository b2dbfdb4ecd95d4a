"""Ceph's RADOS gateway on this machine: a monitor, a store in memory and the gateway, from Debian's packages."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGES = ("ceph-common", "ceph-mon", "ceph-osd", "libfaketime", "radosgw")
START_SECONDS = 120

CONFIG = """
[global]
fsid = {fsid}
mon host = v2:127.0.0.1:{mon}
mon initial members = a
public addr = 127.0.0.1
public network = 127.0.0.0/8
ms bind msgr1 = false
keyring = {folder}/keyring
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
ms type = async+posix
run dir = {folder}
admin socket = {folder}/$name.asok
pid file = {folder}/$name.pid
log file = {folder}/$name.log
osd objectstore = memstore
memstore device bytes = 4294967296
osd class dir = {classes}

[mon.a]
mon data = {folder}/mon

[osd.0]
osd data = {folder}/osd

[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{rgw}
rgw data = {folder}/rgw
rgw sts key = abcdefghijklmnop
rgw s3 auth use sts = true
rgw enable usage log = false
rgw enable apis = s3, sts, iam, admin
rgw thread pool size = 64
"""
"""The store lies in memory and nothing of it is safe; nobody but this machine's own processes can reach it."""

CAPS = {
    "mon.": {"mon": "allow *"},
    "client.admin": {"mon": "allow *", "osd": "allow *", "mgr": "allow *"},
    "client.rgw": {"mon": "allow *", "osd": "allow *"},
    "osd.0": {"mon": "allow *", "osd": "allow *"},
}


@dataclass(frozen=True)
class Gateway:
    """A gateway that is up.

    Attributes:
        url: where it answers.
        folder: of its processes: configuration, logs.
        version: as its daemon says it.
    """

    url: str
    folder: Path
    version: str

    def admin(self, *arguments: str) -> Any:
        """What `radosgw-admin` answers, as JSON."""
        done = _command(self.folder, "radosgw-admin", "-n", "client.rgw", "--admin-socket=", *arguments)
        return json.loads(done) if done.strip().startswith(("{", "[")) else done

    def user(self, name: str, *arguments: str) -> dict[str, str]:
        """A new user's key, as fsspec's options."""
        made = self.admin("user", "create", f"--uid={name}", f"--display-name={name}", *arguments)
        key = made["keys"][0]
        return {"endpoint_url": self.url, "key": key["access_key"], "secret": key["secret_key"]}


def install() -> None:
    """Install the packages that are missing, which takes root and minutes."""
    commands = ("ceph", "ceph-mon", "ceph-osd", "radosgw", "radosgw-admin")
    if all(map(shutil.which, commands)) and any(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")):
        return
    quiet = {"stdout": subprocess.DEVNULL, "env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}}
    subprocess.run(["apt-get", "update"], check=True, timeout=300, **quiet)
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *PACKAGES]
    subprocess.run(command, check=True, timeout=1200, **quiet)


@contextmanager
def behind(gateway: Gateway, seconds: int) -> Iterator[str]:
    """Another gateway of the same store whose clock is so many seconds behind: what it gives expires so much earlier."""
    (port,) = _free_ports(1)
    (preload,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    clock = {"LD_PRELOAD": str(preload), "FAKETIME": f"-{seconds}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    options = [f"--rgw-frontends=beast endpoint=127.0.0.1:{port}", "--admin-socket=", "--pid-file="]
    with ExitStack() as stack:
        _start(stack, gateway.folder, "radosgw", "-n", "client.rgw", *options, environment=clock, log="behind.out")
        _wait_for(port, gateway.folder)
        yield f"http://127.0.0.1:{port}"


@contextmanager
def gateway(folder: Path) -> Iterator[Gateway]:
    """A gateway for the time of the block; `folder` is empty and has a short name, since sockets lie in it."""
    with ExitStack() as stack:
        ports = _free_ports(2)
        classes = next(Path("/usr/lib").glob("*/rados-classes"), Path("/usr/lib/rados-classes"))
        names = {"fsid": uuid.uuid4(), "folder": folder, "mon": ports[0], "rgw": ports[1], "classes": classes}
        (folder / "ceph.conf").write_text(CONFIG.format(**names))
        for name in ("mon", "osd", "rgw"):
            (folder / name).mkdir()
        for entity, caps in CAPS.items():
            allowed = [word for kind, cap in caps.items() for word in ("--cap", kind, cap)]
            create = [] if (folder / "keyring").exists() else ["--create-keyring"]
            keyring = str(folder / "keyring")
            _command(folder, "ceph-authtool", *create, keyring, "--gen-key", "-n", entity, *allowed)
        monmap = ["--create", "--clobber", "--addv", "a", f"[v2:127.0.0.1:{ports[0]}]"]
        _command(folder, "monmaptool", *monmap, "--fsid", str(names["fsid"]), str(folder / "monmap"))
        _command(folder, "ceph-mon", "-i", "a", "--mkfs", "--monmap", str(folder / "monmap"), "--keyring", keyring)
        _start(stack, folder, "ceph-mon", "-i", "a")
        osd = str(uuid.uuid4())
        _command(folder, "ceph", "osd", "new", osd, "0")
        _command(folder, "ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        _start(stack, folder, "ceph-osd", "-i", "0")
        _start(stack, folder, "radosgw", "-n", "client.rgw")
        _wait_for(ports[1], folder)
        yield Gateway(f"http://127.0.0.1:{ports[1]}", folder, _command(folder, "radosgw", "--version").strip())


def _start(
    stack: ExitStack, folder: Path, name: str, *arguments: str, environment: dict[str, str] | None = None, log: str = ""
) -> None:
    out = stack.enter_context((folder / (log or f"{name}.out")).open("wb"))
    command = [name, "-f", "-c", str(folder / "ceph.conf"), *arguments]
    process = subprocess.Popen(command, stdout=out, stderr=out, cwd=folder, env={**os.environ, **(environment or {})})

    def end() -> None:
        process.kill()  # nothing of the store is kept
        process.wait(30)

    stack.callback(end)


def _command(folder: Path, name: str, *arguments: str) -> str:
    command = [name, "-c", str(folder / "ceph.conf"), *arguments]
    if name in ("monmaptool", "ceph-authtool"):
        command = [name, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=START_SECONDS, cwd=folder, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def _wait_for(port: int, folder: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        with socket.socket() as one:
            if not one.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.2)
    raise RuntimeError(f"the gateway does not answer after {START_SECONDS} s; its logs are in {folder}")


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in taken:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in taken]
