"""infra/compose as far as possible without Docker: parsed by docker-compose, and its store killed and restarted."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import fsspec
import pytest
import yaml

from tests.infra.rados_gateway import gateway, install

FOLDER = Path(__file__).parents[2] / "infra/compose"

pytestmark = [
    pytest.mark.infra,
    pytest.mark.skipif(
        os.environ.get("FEATRAY_INFRA") != "1",
        reason="installs docker-compose and Ceph as root from Debian: set FEATRAY_INFRA=1",
    ),
    pytest.mark.timeout(1800),
]


def test_docker_compose_reads_it():
    """Debian's docker-compose is too old for `name`, but supports everything else in the file; it needs no daemon."""
    if shutil.which("docker-compose") is None:
        command = ["apt-get", "install", "--yes", "--no-install-recommends", "docker-compose"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=900)
    text = "".join(line for line in (FOLDER / "compose.yaml").open() if not line.startswith("name:"))
    command = ["docker-compose", "--project-name=featray", f"--project-directory={FOLDER}", "--file=-", "config"]
    read = yaml.safe_load(subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout)
    written = yaml.safe_load(text)
    assert read["services"].keys() == written["services"].keys() and read["volumes"].keys() == written["volumes"].keys()
    assert read["services"]["clips"]["depends_on"] == {"storage": {"condition": "service_healthy"}}
    assert read["services"]["head"]["environment"]["AWS_ENDPOINT_URL"] == "http://storage:9000"


def test_the_store_keeps_what_it_has_when_it_is_killed():
    install()
    folder = Path(tempfile.mkdtemp(prefix="fr-"))
    try:
        for start in range(2):
            with gateway(folder) as here:
                store = fsspec.filesystem("s3", skip_instance_cache=True, **here.options)
                if not start:
                    store.mkdir("videos")
                    store.pipe_file("videos/a.mp4", b"kept")
                assert store.cat_file("videos/a.mp4") == b"kept"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
