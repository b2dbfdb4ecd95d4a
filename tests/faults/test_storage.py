"""A run over an S3 API that fails one request in twelve; a server that stops answering."""

import json
import shutil
import threading
from datetime import UTC, datetime, timedelta

import fsspec
import pytest

from featray.config import DecodeConfig, DetectConfig, EveryNth
from featray.errors import ErrorCode
from featray.extract.child import ChildSettings
from featray.extract.isolation import IsolatedDecoder
from featray.extract.plan import UnitTask
from featray.sources.listing import list_videos
from featray.tables.layout import open_output
from featray.tables.query import connect, run_sql
from featray.video.units import Unit
from tests.fixtures import s3
from tests.fixtures.runs import make_config, run_here
from tests.fixtures.web import Ranges, served

KEYS = s3.KEYS
IMPATIENT = {"connect_timeout": 5, "read_timeout": 3, "retries": {"max_attempts": 8, "mode": "standard"}}
VIDEOS = 5


@pytest.fixture(scope="module")
def endpoint():
    with s3.server() as url:
        yield url


@pytest.fixture(scope="module")
def bucket(endpoint, clips):
    store = fsspec.filesystem("s3", endpoint_url=endpoint, **KEYS)
    for name in ("videos", "calm", "stormy"):
        store.mkdir(name)
    for i in range(VIDEOS):
        store.put_file(str(clips / "face.mp4"), f"videos/raw/{i}.mp4")
    return store


def options(url):
    return {"endpoint_url": url, "config_kwargs": IMPATIENT, **KEYS}


def run_over(url, out):
    return run_here(
        make_config(
            [],
            out,
            input={"uris": ["s3://videos/raw/*.mp4"], "storage_options": options(url)},
            output={"uri": out, "storage_options": options(url)},
            decode={"sample": {"every": 118}},
        )
    )


def rows(url, out, table):
    columns = "* EXCLUDE (run_id)" if table != "videos" else "* EXCLUDE (run_id, published_at)"
    sql = f"SELECT {columns} FROM {table} ORDER BY ALL"
    return run_sql(connect(open_output(out, options(url))), sql).read_all().to_pylist()


def test_a_stormy_bucket_gives_the_tables_of_a_calm_one(bucket, endpoint):
    calm = run_over(endpoint, "s3://calm/out")
    assert calm.videos == {"ok": VIDEOS, "partial": 0, "failed": 0}
    storm = s3.Proxy(endpoint, every=12, stall_seconds=5)
    try:
        stormy = run_over(storm.url, "s3://stormy/out")
    finally:
        storm.close()
    assert stormy.videos == calm.videos
    assert all(storm.counts[fault] > 0 for fault in ("503", "reset", "cut", "stall")), storm.counts
    for table in ("faces", "mesh", "frames", "videos"):
        assert rows(endpoint, "s3://stormy/out", table) == rows(endpoint, "s3://calm/out", table)


@pytest.mark.long
def test_credentials_that_are_renewed_in_the_middle(bucket, endpoint, tmp_path, monkeypatch):
    """The store's library renews them, by a command that also prints their expiry."""

    def give(key):
        until = (datetime.now(UTC) + timedelta(minutes=1)).isoformat()
        known = {"Version": 1, "AccessKeyId": key, "SecretAccessKey": "s", "SessionToken": "t", "Expiration": until}
        (tmp_path / "new.json").write_text(json.dumps(known))
        (tmp_path / "new.json").rename(tmp_path / "credentials.json")

    def renew():
        for number in range(1, 4):
            seen = proxy.counts["all"]
            while proxy.counts["all"] < seen + 40:
                if over.wait(0.02):
                    return
            proxy.keys.add(f"KEY{number}")  # the old key stays valid while the new one is being distributed
            give(f"KEY{number}")
            while not proxy.keys_seen[f"KEY{number}"]:
                if over.wait(0.02):
                    return
            over.wait(1)
            proxy.keys.discard(f"KEY{number - 1}")

    (tmp_path / "config").write_text(f"[default]\ncredential_process = cat {tmp_path}/credentials.json\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    proxy, over = s3.Proxy(endpoint, every=10**9, stall_seconds=0), threading.Event()
    proxy.keys = {"KEY0"}
    give("KEY0")
    renewing = threading.Thread(target=renew)
    renewing.start()
    told = {"endpoint_url": proxy.url, "config_kwargs": IMPATIENT}
    try:
        uris = {"uris": ["s3://videos/raw/*.mp4"], "storage_options": told}
        out = {"uri": "s3://stormy/renewed", "storage_options": told}
        summary = run_here(make_config([], "", input=uris, output=out, decode={"sample": {"every": 118}}))
    finally:
        over.set()
        renewing.join()
        proxy.close()
    assert summary.videos == {"ok": VIDEOS, "partial": 0, "failed": 0}
    assert proxy.keys_seen["KEY1"] and "KEY0" not in proxy.keys


class Silent(Ranges):
    """Sends no data of hangs.mp4 until `go_on` is set."""

    go_on = threading.Event()

    def do_GET(self):
        if "hangs" in self.path:
            self.go_on.wait()
        super().do_GET()


def test_a_server_that_stops_to_answer_costs_its_unit_and_not_the_next(clips, tmp_path):
    for name in ("hangs.mp4", "b.mp4"):
        shutil.copy(clips / "no_face.mp4", tmp_path / name)
    decode = DecodeConfig(sample=EveryNth(every=48), timeout_seconds=25)
    with served(tmp_path, Silent) as host:
        hangs, good = list_videos(make_config([f"{host}/{n}.mp4" for n in ("hangs", "b")], "unused").input)
        decoder = IsolatedDecoder(ChildSettings(decode, DetectConfig(), {}))
        try:
            decoder.plan(good)
            failure = decoder.plan(hangs).failure
            assert failure.code == ErrorCode.TIMEOUT and "waiting for its storage" in failure.message
            (chunk,) = decoder.chunks(UnitTask(good, "key", "shard", Unit(0), 1, 1))
            assert not chunk.outcome.failures and chunk.frames.num_rows == 2
        finally:
            Silent.go_on.set()  # only now: the abandoned reads are still waiting
            decoder.close()
