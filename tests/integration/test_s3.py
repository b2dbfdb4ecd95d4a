"""The main job over a real S3 API: a server of its own, spoken to by HTTP."""

import os

import fsspec
import pytest

from featray.errors import FeatrayError, StorageError
from featray.runner import run
from featray.tables.layout import open_output
from featray.tables.query import connect, run_sql
from tests import s3
from tests.integration.conftest import make_config, silent


@pytest.fixture(scope="module")
def endpoint():
    os.environ.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="hunter2", AWS_DEFAULT_REGION="us-east-1")
    with s3.server() as url:
        yield url


@pytest.fixture(scope="module")
def options(endpoint):
    return {"endpoint_url": endpoint, "key": "test", "secret": "hunter2"}


@pytest.fixture(scope="module")
def bucket(options, clips):
    store = fsspec.filesystem("s3", **options)
    store.mkdir("videos")
    store.mkdir("tables")
    for site in ("berlin", "oslo"):
        store.put_file(str(clips / "face.mp4"), f"videos/raw/{site}/face.mp4")
    store.put_file(str(clips / "no_face.mp4"), "videos/raw/oslo/no_face.mp4")
    store.pipe_file("videos/raw/oslo/notes.mp4", b"no video at all")
    return store


def s3_config(options, **sections):
    return make_config(
        [],
        "s3://tables/facial",
        input={"uris": ["s3://videos/raw/**/*.mp4"], "path_fields": "{site}/{name}", "storage_options": options},
        output={"uri": "s3://tables/facial", "storage_options": options},
        decode={"sample": {"every": 118}},
        **sections,
    )


def test_bucket_to_bucket(cluster, bucket, options):
    summary = run(s3_config(options), silent())
    assert summary.videos == {"ok": 3, "partial": 0, "failed": 1}
    output = open_output("s3://tables/facial", options)
    rows = run_sql(connect(output), "SELECT site, count(*) AS n FROM faces GROUP BY site ORDER BY site").read_all()
    assert rows.to_pylist() == [{"site": "berlin", "n": 4}, {"site": "oslo", "n": 4}]
    videos = (
        run_sql(connect(output), "SELECT uri, content_id, size_bytes FROM videos ORDER BY uri").read_all().to_pylist()
    )
    assert videos[0]["uri"] == "s3://videos/raw/berlin/face.mp4"
    assert videos[0]["content_id"].startswith("etag:")
    assert videos[0]["size_bytes"] == bucket.size("videos/raw/berlin/face.mp4")
    left = {path.split("/")[3] for path in bucket.find("tables/facial/_featray")}
    assert left == {"commits", "output.json"}


def test_a_second_run_does_nothing(cluster, bucket, options):
    assert run(s3_config(options), silent()).status == "nothing_to_do"


def test_no_secret_is_stored(cluster, bucket, options):
    bucket.invalidate_cache()
    for path in bucket.find("tables/facial"):
        assert b"hunter2" not in bucket.cat_file(path), path
    output = open_output("s3://tables/facial", options)
    (row,) = run_sql(connect(output), "SELECT config FROM runs").read_all().to_pylist()
    assert "secret: '***'" in row["config"]


@pytest.mark.parametrize(
    ("uri", "message"),
    [("s3://no-such-bucket/*.mp4", "no-such-bucket"), ("s3://videos/none/*.mp4", "nothing found at s3://videos/none/")],
)
def test_what_is_not_there_is_one_line(options, uri, message, tmp_path):
    config = make_config([], tmp_path / "out", input={"uris": [uri], "storage_options": options})
    with pytest.raises(FeatrayError, match=message) as caught:
        run(config, silent())
    assert "\n" not in str(caught.value) and "hunter2" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_bucket_that_refuses_us_is_one_line(bucket, endpoint, tmp_path, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    options = {"endpoint_url": endpoint}
    config = make_config([], tmp_path / "out", input={"uris": ["s3://videos/raw/*.mp4"], "storage_options": options})
    with pytest.raises(StorageError, match="no credentials found") as caught:
        run(config, silent())
    assert "\n" not in str(caught.value)
