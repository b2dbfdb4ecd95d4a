"""Errors of a storage: from a real S3 API where it can give them, otherwise from a server that answers like S3."""

import http.server
import threading

import pytest
import s3fs
from botocore.exceptions import EndpointConnectionError

from featray.config import DecodeConfig, InputConfig
from featray.errors import AccessDenied, ErrorCode, StorageError
from featray.extract.plan import plan_video
from featray.sources.listing import Video, list_videos
from featray.store.failures import explain
from featray.store.location import locate
from featray.store.storage import delete_folder, list_files, read_bytes, write_bytes
from tests.fixtures.s3 import Proxy, server


@pytest.fixture(scope="module")
def s3(clips):
    with server() as url:
        options = {"key": "k", "secret": "s", "endpoint_url": url}
        fs = s3fs.S3FileSystem(**options)
        fs.mkdir("videos")
        fs.pipe_file("videos/ok.mp4", (clips / "no_face.mp4").read_bytes())
        fs.pipe_file("videos/old.mp4", (clips / "no_face.mp4").read_bytes(), StorageClass="GLACIER")
        yield options


def test_an_archived_object_is_a_row_that_says_so(s3):
    config = InputConfig(uris=["s3://videos/"], storage_options=s3)
    good, archived = (plan_video(video, DecodeConfig(), s3) for video in list_videos(config))
    assert good.failure is None
    assert archived.failure.code == ErrorCode.ARCHIVED
    assert "is archived (Glacier); restore it" in archived.failure.message


def test_no_credentials_mention_anonymous_access(monkeypatch, s3):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with pytest.raises(StorageError, match=r"no credentials found.*`anon: true`"):
        read_bytes(locate("s3://videos/ok.mp4", {"endpoint_url": s3["endpoint_url"]}))


def test_an_s3_server_that_does_not_answer_brings_up_its_address():
    silent = EndpointConnectionError(endpoint_url="http://secret:9000/")
    text = explain(silent)
    assert (
        "does not answer (EndpointConnectionError)" in text and "`endpoint_url`" in text and "--storage-option" in text
    )
    assert "secret" not in text
    assert "endpoint_url" not in explain(TimeoutError()), "said only of S3"


def test_objects_that_a_store_does_not_delete_are_an_error(s3):
    proxy = Proxy(s3["endpoint_url"], every=1 << 30, stall_seconds=0)
    folder = locate("s3://videos/landed", {**s3, "endpoint_url": proxy.url})
    names = ["a & b.arrow", "c.arrow"]
    for name in names:
        write_bytes(folder.child(name), b"rows")
    try:
        proxy.undeleted, proxy.refusal, proxy.writes_let_through = "AccessDenied", (403, "AccessDenied"), 1
        with pytest.raises(AccessDenied, match="s3://videos/landed: access denied"):
            delete_folder(folder)
        assert [path.rsplit("/", 1)[-1] for path in list_files(folder)] == names
        proxy.undeleted, proxy.refusal = "InternalError", None  # of that moment only
        delete_folder(folder)
        assert list_files(folder) == []
    finally:
        proxy.close()


class Refusing(http.server.BaseHTTPRequestHandler):
    """Stands in for AWS, because moto accepts any clock and any token.

    Its answer is that of the S3 API; it cannot show that AWS gives it at the right time.
    """

    code = ""

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.send_response(400 if self.code == "400" else 200)
        self.send_header("Content-Length", "100")
        self.end_headers()

    def do_GET(self):
        data = f"<Error><Code>{self.code}</Code><Message>No.</Message></Error>".encode()
        self.send_response({"RequestTimeTooSkewed": 403, "SlowDown": 503}.get(self.code, 400))
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.mark.parametrize(
    "code, row, said",
    [
        ("RequestTimeTooSkewed", "fetch_failed", "this machine's clock differs too much from the storage's; set it"),
        ("ExpiredToken", "fetch_failed", "the credentials have expired; get new ones"),
        ("400", "fetch_failed", "check the region, and that the credentials have not expired"),
        ("SlowDown", "fetch_failed", "the storage is overloaded or down for the moment (503)"),
    ],
)
def test_a_wrong_clock_and_an_expired_token_are_no_wrong_credentials(code, row, said):
    handler = type("Refuses", (Refusing,), {"code": code})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as refusing:
        threading.Thread(target=refusing.serve_forever, daemon=True).start()
        options = {"key": "k", "secret": "s", "endpoint_url": f"http://127.0.0.1:{refusing.server_port}"}
        options["config_kwargs"] = {"retries": {"max_attempts": 1}}
        video = Video("0" * 16, "s3://videos/a.mp4", "s3://videos/a.mp4", -1, "unknown")
        failure = plan_video(video, DecodeConfig(), options).failure
        refusing.shutdown()
    assert failure.code == row and said in failure.message and "check the credentials" not in failure.message
