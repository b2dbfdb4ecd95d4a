"""An output on another host's disk, over SSHFS: a run is killed, or the host goes away, and the next run resumes.

SSHFS is used instead of NFS, which needs kernel support: both create, rename and list files over a network, through a
server that may disappear. NFS's attribute caches are not covered.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from featray.tables.layout import open_output
from featray.upkeep.verify import verify
from tests.fixtures.outputs import tables_of
from tests.fixtures.runs import make_config, run_here
from tests.fixtures.s3 import free_port

pytestmark = pytest.mark.infra("sshd", "sshfs", "fusermount3")

DECODE = {"sample": {"every": 2}, "unit_frames": 16}
CONFIG = """
dataset: d
input: {{uris: ["{clips}/*.mp4"]}}
output: {{uri: {out}}}
decode: {{sample: {{every: 2}}, unit_frames: 16}}
model: {{checkpoint: "synthetic:atto"}}
cluster: {{executor: local}}
"""


class Host:
    """An SSH server with a folder, and the mount of this folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.disk, self.port = folder, folder / "disk", free_port()
        for place in (folder / "remote", self.disk):
            place.mkdir()
        for key in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
        Path("/run/sshd").mkdir(exist_ok=True)
        settings = {
            "Port": self.port, "ListenAddress": "127.0.0.1", "HostKey": folder / "host", "UsePAM": "no",
            "AuthorizedKeysFile": folder / "user.pub", "StrictModes": "no", "PermitRootLogin": "prohibit-password",
            "PidFile": "none", "Subsystem": "sftp internal-sftp",
        }  # fmt: skip
        (folder / "sshd.conf").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))

    def start(self) -> None:
        """Start the server and mount its folder."""
        command = ["/usr/sbin/sshd", "-D", "-f", self.folder / "sshd.conf"]
        self._server = subprocess.Popen(command, start_new_session=True)
        options = (
            f"port={self.port},IdentityFile={self.folder}/user,StrictHostKeyChecking=no,UserKnownHostsFile=/dev/null"
        )
        mount = ["sshfs", "-o", options, f"root@127.0.0.1:{self.folder}/remote", self.disk]
        for _ in range(50):
            if subprocess.run(mount, capture_output=True).returncode == 0:
                return
            time.sleep(0.2)
        subprocess.run(mount, check=True)

    def go_away(self) -> None:
        """Kill the server and its connections, if it is running."""
        if self._server.poll() is not None:
            return
        for child in Path(f"/proc/{self._server.pid}/task/{self._server.pid}/children").read_text().split():
            os.killpg(os.getpgid(int(child)), signal.SIGKILL)
        self._server.kill()
        self._server.wait()

    def unmount(self) -> None:
        """Unmount the folder. SSHFS has already done so if it noticed the end of its server."""
        subprocess.run(["fusermount3", "-u", "-z", self.disk], capture_output=True)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    (tmp_path / "host").mkdir()
    made = Host(tmp_path / "host")
    made.start()
    yield made
    made.go_away()
    made.unmount()


@pytest.fixture(scope="module")
def calm(clips, tmp_path_factory):
    out = tmp_path_factory.mktemp("calm") / "out"
    run_here(make_config([f"{clips}/*.mp4"], out, dataset="d", decode=DECODE))
    return tables_of(out)


@pytest.fixture
def started(host, clips, tmp_path) -> subprocess.Popen[str]:
    """Start a run onto that disk, and return it once something has landed."""
    out = host.disk / "out"
    (tmp_path / "config.yaml").write_text(CONFIG.format(clips=clips, out=out))
    command = [sys.executable, "-m", "featray", "run", str(tmp_path / "config.yaml"), "--quiet"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    for _ in range(1200):
        if len(list((host.folder / "remote" / "out").glob("_featray/landing/**/*.arrow"))) >= 2:
            return run
        assert run.poll() is None, run.communicate()[0]
        time.sleep(0.1)
    raise AssertionError("nothing has landed in two minutes")


def check_goes_on(host, clips, calm):
    out = host.disk / "out"
    summary = run_here(make_config([f"{clips}/*.mp4"], out, dataset="d", decode=DECODE))
    assert summary.videos == {"ok": 2, "partial": 0, "failed": 0}
    found = tables_of(out)
    assert found.keys() == calm.keys() and all(found[table].equals(calm[table]) for table in calm)
    assert verify(open_output(str(out))).problems == []


def test_a_run_that_is_killed(host, started, clips, calm):
    os.killpg(started.pid, signal.SIGKILL)
    started.communicate(timeout=60)
    check_goes_on(host, clips, calm)


def test_a_host_that_goes_away(host, started, clips, calm):
    host.go_away()
    printed = started.communicate(timeout=300)[0]
    assert started.returncode == 1, printed
    (line,) = (line for line in printed.splitlines() if line.startswith("featray: "))
    assert str(host.disk) in line and "Traceback" not in printed
    host.unmount()
    host.start()
    check_goes_on(host, clips, calm)
