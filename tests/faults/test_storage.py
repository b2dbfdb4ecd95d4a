"""A run over an S3 API that fails one request in twelve: nothing is lost, nothing is read twice over."""

import fsspec
import pytest

from featray.tables.layout import open_output
from featray.tables.query import connect, run_sql
from tests.fixtures import s3
from tests.fixtures.runs import make_config, run_here

KEYS = {"key": "test", "secret": "test"}
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
