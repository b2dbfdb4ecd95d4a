"""The output of commands with --debug, from every library: collected from real commands and searched for secrets."""

from __future__ import annotations

import functools
import http.server
import os
import re
import subprocess
import sys
import threading

import fsspec
import pytest
import yaml

from featray.redaction import redact_text
from tests.fixtures.golden import HUB_SPEC
from tests.fixtures.s3 import server

pytestmark = pytest.mark.slow

KEY, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
SESSION = "FwoGZXIvYXdzEXAMPLE//session+token=="
SIGNATURE, PASSWORD = "f" * 20 + "0123456789abcdef" * 3, "hunter2-of-the-url"
HF_TOKEN = "hf_abcdefghijklmnopqrstuvwxyz012345"


QUICK = {"model": {"checkpoint": "synthetic:atto"}, "decode": {"sample": {"every": 30}}}


def debug(*arguments, **environment):
    """Return everything that a command prints with --debug."""
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), **environment}
    command = [sys.executable, "-m", "featray", "--debug", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    return done.stdout + done.stderr


def check(printed, logger, *secrets):
    """Check that a library logged something, and that it contains no secret."""
    assert f"DEBUG {logger}" in printed or f"INFO {logger}" in printed, printed[-2000:]
    for secret in secrets:
        assert secret not in printed, printed[printed.index(secret) - 300 : printed.index(secret)]
    assert not re.search(r"Signature\W{1,3}[0-9a-f]{64}", printed)


@pytest.fixture(scope="module")
def s3():
    with server() as endpoint:
        yield endpoint


@pytest.mark.parametrize("given", ["in the environment", pytest.param("as storage options", marks=pytest.mark.long)])
def test_s3(given, s3, clips, tmp_path):
    options = {"endpoint_url": s3}
    environment = {"AWS_DEFAULT_REGION": "us-east-1"}
    if given == "in the environment":
        environment |= {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": SESSION}
    else:
        options |= {"key": KEY, "secret": SECRET, "token": SESSION}
    fs = fsspec.filesystem("s3", endpoint_url=s3, key=KEY, secret=SECRET, token=SESSION, skip_instance_cache=True)
    bucket = f"bucket-{abs(hash(given))}"
    fs.mkdir(bucket)
    fs.put(str(clips / "no_face.mp4"), f"{bucket}/no_face.mp4")
    config = {
        "dataset": "d",
        "input": {"uris": [f"s3://{bucket}/*.mp4"], "storage_options": options},
        "output": {"uri": f"s3://{bucket}/out", "storage_options": options},
    } | QUICK
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    for arguments in (["run", tmp_path / "c.yaml", "--executor", "local"], ["verify", f"s3://{bucket}/none"]):
        more = [] if arguments[0] == "run" else ["--config", tmp_path / "c.yaml"]
        check(debug(*arguments, *more, **environment), "botocore", SECRET, SESSION)


def test_links(clips, tmp_path):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(clips))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{web.server_port}"
        links = [
            f"http://me:{PASSWORD}@{host}/no_face.mp4?X-Amz-Signature={SIGNATURE}",
            f"http://me:{PASSWORD}@{host}/none.mp4?X-Amz-Signature={SIGNATURE}",
        ]
        for link in links:
            config = {"dataset": "d", "input": {"uris": [link]}, "output": {"uri": str(tmp_path / "out")}} | QUICK
            (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
            check(debug("run", tmp_path / "c.yaml", "--executor", "local"), "", PASSWORD, SIGNATURE)
        web.shutdown()


def test_the_hub(hub, tmp_path):
    printed = debug(
        "models", "pull", HUB_SPEC, HF_ENDPOINT=hub.url, HF_TOKEN=HF_TOKEN, FEATRAY_CACHE=str(tmp_path),
        HF_HOME=str(tmp_path), HF_DEBUG="1", HF_HUB_VERBOSITY="debug",
    )  # fmt: skip
    assert hub.requests
    check(printed, "http", HF_TOKEN)


def test_libraries_as_they_write(tmp_path):
    """All forms in which a library, or a server's response that it logs, contains a secret."""
    said = [
        f"x-amz-security-token:{SESSION}",
        f"{{'X-Amz-Security-Token': b'{SESSION}', 'Authorization': b'AWS4-HMAC-SHA256 Credential={SECRET}/x'}}",
        f"Signature:\n{SIGNATURE}",
        f"b'<SecretAccessKey>{SECRET}</SecretAccessKey><SessionToken>{SESSION}</SessionToken>'",
        f'{{"SecretAccessKey":"{SECRET}","Token":"{SESSION}"}}',
        f'http://127.0.0.1:80 "GET /b/face.mp4?list-type=2&X-Amz-Signature={SIGNATURE} HTTP/1.1" 200 None',
        f"opening s3://{KEY}:{PASSWORD}@bucket/no_face.mp4",
        f"send_request_headers [(b'Authorization', b'Bearer {HF_TOKEN}'), (b'Cookie', b'session={SECRET}')]",
        f"> authorization: Negotiate {SESSION}",
        f"RAY_AUTH_TOKEN={SECRET}",
        f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={SECRET};EndpointSuffix=core",
        f"simplecache::https://host/a.mp4?sig={SECRET}::x",
    ]
    for text in said:
        redacted = redact_text(text)
        assert not any(one in redacted for one in (SECRET, SESSION, SIGNATURE, PASSWORD, HF_TOKEN)), redacted


@pytest.mark.parametrize("logger", ["botocore", "s3fs", "aiohttp", "urllib3", "fsspec", "huggingface_hub", "ray"])
def test_every_logger_and_handler(logger, tmp_path):
    """Libraries with their own handlers, and tracebacks, are redacted too."""
    code = f"""
import logging, sys
from featray.redaction import redact_logs
redact_logs()
log = logging.getLogger({logger!r} + ".inner")
log.setLevel(logging.DEBUG)
log.addHandler(logging.StreamHandler(sys.stdout))
log.debug("%s", {{"token": "{SESSION}"}})
try:
    raise ValueError("https://me:{PASSWORD}@host/?X-Amz-Signature={SIGNATURE}")
except ValueError:
    log.exception("failed", stack_info=True)
raise ValueError("https://me:{PASSWORD}@host/?X-Amz-Signature={SIGNATURE}")
"""
    (tmp_path / "code.py").write_text(code)
    command = [sys.executable, str(tmp_path / "code.py")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()})
    lines = [line for line in (done.stdout + done.stderr).splitlines() if "raise ValueError" not in line]
    printed = "\n".join(lines)
    assert "{'token': ***}" in printed and printed.count("https://host/?***") == 2
    assert not any(one in printed for one in (SESSION, SIGNATURE, PASSWORD))
