"""The fork server: the settings of its children, the report of their ends, and that none outlives the parent."""

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from featray.config import DecodeConfig, DetectConfig, EveryNth
from featray.errors import ErrorCode
from featray.extract import forkserver, isolation
from featray.extract.child import ChildSettings
from featray.extract.isolation import IsolatedDecoder

pytestmark = [pytest.mark.skipif(not forkserver.CAN_FORK, reason="children are forked on Linux only"), pytest.mark.slow]
SETTINGS = ChildSettings(DecodeConfig(sample=EveryNth(every=32)), DetectConfig(), {})


def faces(decoder, task):
    """Return the boxes of a unit, and the codes of its failures."""
    chunks = list(decoder.chunks(task))
    return [chunk.faces["box_x1"].to_pylist() for chunk in chunks], [f.code for f in chunks[-1].outcome.failures]


def gone(pid):
    for _ in range(200):
        try:
            if "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def open_descriptors():
    return len(os.listdir("/proc/self/fd"))


def server_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_new_child_is_the_same_servers_and_takes_no_second(decoder, task):
    calm, _ = faces(decoder, task)
    first, server = decoder.process_id, server_of(decoder.process_id)
    assert Path(f"/proc/{first}/comm").read_text().strip() == forkserver.CHILD_NAME
    decoder.close()
    assert gone(first)
    assert 30 << 20 < decoder.peak_bytes < 2 << 30
    assert faces(decoder, task) == (calm, [])
    assert server_of(decoder.process_id) == server


def test_a_child_started_anew_gives_the_same(decoder, task, monkeypatch):
    """The way used where forking is impossible. It does not show that the start works on macOS: that takes a Mac."""
    forked = faces(decoder, task)
    decoder.close()
    monkeypatch.setattr(isolation, "CAN_FORK", False)
    assert faces(decoder, task) == forked
    assert server_of(decoder.process_id) == os.getpid()


def test_ctrl_c_while_it_still_loads(capfd):
    """A terminal sends it to the whole group; the server printed a traceback when it came in its first second."""
    server = forkserver.ForkServer(dict(os.environ))
    for _ in range(20):
        os.kill(server._process.pid, signal.SIGINT)
        time.sleep(0.05)
    server.close()
    assert (server._process.wait(60), capfd.readouterr().err) == (0, "")
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_server_that_is_killed_takes_its_children_along_and_another_one_starts(decoder, task):
    calm = faces(decoder, task)
    child, server = decoder.process_id, server_of(decoder.process_id)
    os.kill(server, signal.SIGKILL)
    assert gone(child)
    assert decoder._process.wait(10) == -signal.SIGKILL  # its sockets close with the server's last thread
    assert faces(decoder, task) == calm
    assert server_of(decoder.process_id) != server


@pytest.mark.parametrize("moment", ["before the request", "before the answer"])
def test_a_server_that_ends_during_a_request_leaves_no_socket_open(moment):
    before = open_descriptors()
    server = forkserver.ForkServer(dict(os.environ))
    ours, theirs = socket.socketpair()
    if moment == "before the request":
        server._process.kill()
        server._process.wait()
    else:
        os.kill(server._process.pid, signal.SIGSTOP)
        threading.Timer(0.3, server._process.kill).start()
    with ours, theirs, pytest.raises(OSError) as error:  # it holds the frames, so no socket is closed by chance
        server.fork(theirs, 1 << 32, 30)
    server.close()
    assert (
        error.value.errno == errno.EPIPE if moment == "before the request" else "fork server ended" in str(error.value)
    )
    assert open_descriptors() == before


def test_ends_are_told_as_of_a_process_of_ones_own(decoder, task):
    faces(decoder, task)
    decoder.kill()
    codes = faces(decoder, task)[1]
    # The end may be noticed before or after the request.
    assert codes in ([], [ErrorCode.OUT_OF_MEMORY])
    faces(decoder, task)
    process = decoder._process
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.05)
    assert process.poll() is None
    os.kill(process.pid, signal.SIGSEGV)
    assert process.wait(10) == process.poll() == -signal.SIGSEGV
    process.kill()  # the process has ended: no other process is killed


def test_another_environment_is_another_servers_and_runs_meanwhile_go_on(decoder, task, monkeypatch):
    calm = faces(decoder, task)
    monkeypatch.setenv("FEATRAY_TEST_ENVIRONMENT", "1")
    other = IsolatedDecoder(SETTINGS)
    try:
        assert faces(other, task) == calm
        assert server_of(other.process_id) != server_of(decoder.process_id)
        assert faces(decoder, task) == calm, "its server has not ended with the new one's start"
    finally:
        other.close()


def test_nothing_outlives_a_killed_parent(short_clip):
    code = (
        "import sys, time; sys.path.insert(0, '.')\n"
        "from tests.unit.extract.conftest import *\n"
        "from tests.unit.extract.test_forkserver import *\n"
        "decoder = IsolatedDecoder(SETTINGS)\n"
        f"(video,) = list_videos(InputConfig(uris=[{str(short_clip)!r}]))\n"
        "list(decoder.chunks(UnitTask(video, 'key', 'shard', Unit(0), 1, 1)))\n"
        "print(decoder.process_id, server_of(decoder.process_id), flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        child, server = map(int, parent.stdout.readline().split())
        parent.kill()
    assert gone(child) and gone(server)


@pytest.fixture
def few_processes():
    """Yield a control group that limits the number of processes and threads in it."""
    group = Path(f"/sys/fs/cgroup/pids/featray-test-{os.getpid()}")
    try:
        group.mkdir()
    except OSError:
        pytest.skip("only root may limit its processes, with control groups of version 1")
    yield group
    group.rmdir()


def test_a_system_without_room_for_another_process_is_no_fault_of_the_video(few_processes, short_clip):
    """The worker reports it, and nothing lands that the next run would count as done."""
    code = (
        "import sys, time; sys.path.insert(0, '.')\n"
        "from pathlib import Path\n"
        "from featray.errors import ModelError\n"
        "from tests.unit.extract.conftest import *\n"
        "from tests.unit.extract.test_forkserver import *\n"
        f"(video,) = list_videos(InputConfig(uris=[{str(short_clip)!r}]))\n"
        f"group = Path({str(few_processes)!r})\n"
        "(group / 'cgroup.procs').write_text('0')\n"
        "(group / 'pids.max').write_text('1')\n"
        "decoder = IsolatedDecoder(SETTINGS)\n"
        "for ask in (decoder.plan, lambda video: list(decoder.chunks(UnitTask(video, 'k', 's', Unit(0), 1, 1)))):\n"
        "    try:\n"
        "        print(ask(video))\n"
        "    except ModelError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines() == 2 * [
        "no decoding process can be started: [Errno 11] Resource temporarily unavailable; see `ulimit -u`, `ulimit -n` "
        "and this machine's memory"
    ], done.stderr
