"""`ray job submit`, as the README shows it, on a cluster started here."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import duckdb
import pytest

from tests.fixtures.infra_files import QUIET
from tests.fixtures.network import attempts, watched

pytestmark = pytest.mark.ray

REPOSITORY = Path(__file__).parents[2]
RAY = Path(sys.executable).parent / "ray"


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def watch(tmp_path_factory):
    """Return the folder of the log of network attempts by the cluster's processes."""
    return tmp_path_factory.mktemp("watch")


@pytest.fixture(scope="module")
def environment(tmp_path_factory, kept_cache, watch):
    token = tmp_path_factory.mktemp("auth") / "token"
    token.write_text(secrets.token_hex(32))
    # Without this one, the job and its workers would have the lowest priority beside other tests.
    kept = ("RAY_worker_niceness",)
    plain = {name: value for name, value in watched(watch).items() if name in kept or not name.startswith("RAY_")}
    path = f"{RAY.parent}{os.pathsep}{os.environ['PATH']}"
    return plain | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        **QUIET,
        "FEATRAY_CACHE": str(kept_cache),
        "PATH": path,
    }


@pytest.fixture(scope="module")
def head(environment, tmp_path_factory):
    """Yield the address of a head node with its own process group and folder; it is killed by its id."""
    folder = tempfile.mkdtemp(prefix="fr-")
    port, dashboard, agent = free_ports(3)  # several clusters may run on this machine
    log = tmp_path_factory.mktemp("head") / "log"
    command = [RAY, "start", "--head", "--block", "--num-cpus=2", f"--port={port}", f"--dashboard-port={dashboard}"]
    command += [f"--temp-dir={folder}", f"--dashboard-agent-listen-port={agent}"]
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    address = f"http://127.0.0.1:{dashboard}"
    for _ in range(360):  # on a busy machine it takes more than a minute
        try:
            urlopen(f"{address}/api/version", timeout=1).close()
            break
        except URLError as error:
            if getattr(error, "code", None) in (401, 403):
                break  # it is up, and asks for the token
            assert process.poll() is None, log.read_text()
            time.sleep(0.5)
        except TimeoutError:
            continue
    yield address
    os.killpg(process.pid, signal.SIGKILL)  # a regular shutdown of Ray takes half a minute
    process.wait(60)
    shutil.rmtree(folder, ignore_errors=True)


def submit(address, environment, *arguments):
    command = [RAY, "job", "submit", "--working-dir", ".", "--", "python", "jobs/extract.py", *arguments]
    env = environment | {"RAY_API_SERVER_ADDRESS": address}
    try:
        return subprocess.run(command, cwd=REPOSITORY, env=env, capture_output=True, text=True, timeout=400)
    except subprocess.TimeoutExpired as error:
        raise AssertionError(f"the job does not end: {error.stdout!r}\n{_jobs_of(env)}") from None


def _jobs_of(env):
    """Return the cluster's jobs and the processes that use its CPUs, for the message of a job that does not end."""
    asked = (["list", "jobs"], ["list", "actors", "--detail"], ["list", "workers"], ["status"])
    said = [subprocess.run([RAY, *words], env=env, capture_output=True, text=True, timeout=60) for words in asked]
    return "\n".join(one.stdout + one.stderr for one in said)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Return the folder of the demo's tables, and its arguments; a third of the frames leaves time to stop it."""
    out = tmp_path_factory.mktemp("demo") / "out"
    settings = ("decode.sample={every: 3}", "decode.unit_frames=16", f"output.uri={out}")
    return out, ("--config", "configs/demo.yaml", *(word for setting in settings for word in ("--set", setting)))


STOP = """
import sys
from ray.job_submission import JobSubmissionClient

client = JobSubmissionClient(sys.argv[1])
sys.stdin.readline()
client.stop_job("to-stop")
"""
"""Does what `ray job stop` does. It is loaded beforehand: loading takes ten seconds, in which the job could end."""


def test_a_job_that_is_stopped_gives_its_lease_back(head, environment, demo, report):
    out, arguments = demo
    env = environment | {"RAY_API_SERVER_ADDRESS": head}
    command = [RAY, "job", "submit", "--no-wait", "--submission-id", "to-stop", "--working-dir", ".", "--"]
    command += ["python", "jobs/extract.py", *arguments]
    begun = subprocess.run(command, cwd=REPOSITORY, env=env, capture_output=True, text=True, timeout=120)
    assert begun.returncode == 0, begun.stdout + begun.stderr
    stop = subprocess.Popen([sys.executable, "-c", STOP, head], env=env, stdin=subprocess.PIPE)
    for _ in range(3000):
        if len(list(out.glob("_featray/landing/**/*-last.arrow"))) >= 2:  # parts of units are processed again
            break
        time.sleep(0.1)
    began = time.monotonic()
    stop.communicate(b"now\n", timeout=60)
    (lease,) = out.glob("_featray/leases/**/*.json")
    while not json.loads(lease.read_text())["released"]:
        assert time.monotonic() - began < 30, "the lease is given back"
        time.sleep(0.1)
    report(f"ray job stop: lease given back after {time.monotonic() - began:.1f} s")
    (row,) = duckdb.connect().sql(f"SELECT status FROM '{out}/runs/**/*.parquet'").fetchall()
    assert row == ("interrupted",)


def test_the_demo_as_a_job(head, environment, demo):
    out, arguments = demo
    done = submit(head, environment, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 videos: 2 ok, 0 partial, 0 failed" in done.stdout
    connection = duckdb.connect()
    assert connection.sql(f"SELECT count(*) FROM '{out}/faces/**/*.parquet'").fetchall() == [(158,)]
    runs = connection.sql(f"SELECT status FROM '{out}/runs/**/*.parquet' ORDER BY started_at").fetchall()
    assert runs == [("interrupted",), ("done",)]
    used = connection.sql(f"SELECT count(DISTINCT run_id) FROM '{out}/frames/**/*.parquet'").fetchall()
    assert used == [(2,)], "what the stopped job had landed was used"


def test_a_job_with_a_wrong_config_fails_with_its_one_line(head, environment):
    done = submit(head, environment, "--config", "configs/demo.yaml", "--set", "nonsense=1")
    assert done.returncode == 1
    assert "featray: configs/demo.yaml: nonsense: unknown key" in done.stdout + done.stderr


def test_the_cluster_reports_to_nobody(head, watch):
    """The head and both jobs run in the environment of the image and the manifests."""
    time.sleep(2)  # the dashboard reports soon after its start, which was two jobs ago
    assert attempts(watch) == []
