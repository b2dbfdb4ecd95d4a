"""View an output in one bucket with its videos in another; each command gets its storage options by flags or config."""

from __future__ import annotations

import json
import re

import duckdb
import fsspec
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from featray.cli import main
from featray.config import parse_config
from featray.model.synth import SYNTHETIC_VARIANTS, write_synthetic
from tests.fixtures import s3
from tests.fixtures.corpus import run_ffmpeg
from tests.fixtures.runs import run_here

pytestmark = pytest.mark.slow

OUT = "s3://tables/facial"
SECRET = "hunter2"


@pytest.fixture(scope="module")
def options():
    with pytest.MonkeyPatch.context() as patch, s3.server() as url:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield {"endpoint_url": url, "key": "1234567890", "secret": SECRET}
        fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture(scope="module")
def store(options, face_clip, tmp_path_factory):
    """Return a store with one second of a face in one bucket, and the output made from it in another."""
    folder = tmp_path_factory.mktemp("s3")
    clip, checkpoint, store = folder / "face.mp4", folder / "atto.safetensors", fsspec.filesystem("s3", **options)
    run_ffmpeg("-t", "1", "-i", str(face_clip), *"-an -vf scale=320:180 -c:v libx264 -g 12".split(), str(clip))
    write_synthetic(checkpoint, config=SYNTHETIC_VARIANTS["atto"])
    for bucket in ("videos", "tables"):
        store.mkdir(bucket)
    store.put_file(str(clip), "videos/raw/face.mp4")
    config = {
        "dataset": "far",
        "input": {"uris": ["s3://videos/raw/*.mp4"], "storage_options": options},
        "output": {"uri": OUT, "storage_options": options},
        "decode": {"sample": {"every": 4}},
        "model": {"checkpoint": str(checkpoint), "engine": "torch", "precision": "fp32", "batch_size": 8},
    }
    run_here(parse_config(config))
    (folder / "run.yaml").write_text(json.dumps(config))
    store.config_file = folder / "run.yaml"
    return store


def plain(page):
    """Return a page without the time it was made and without the running numbers of its plots."""
    return re.sub(r"plot\d+-|· made [^<]* with", "", page)


@pytest.fixture
def featray(store, options):
    """Return a function that runs a command, with the options as flags or from the run's config."""

    on_line = [f"--storage-option={key}={value}" for key, value in options.items()]

    def call(*words, flags=on_line, code=0):
        done = CliRunner().invoke(main, [*map(str, words), *flags])
        assert done.exit_code == code, done.output
        assert SECRET not in done.output
        return done.output

    return call


def test_a_report_with_thumbnails_from_the_bucket(featray, store, tmp_path):
    printed = featray("report", OUT, "--out", tmp_path / "r.html")
    assert "far, release atto-" in printed and ", 1 of 1 thumbnail" in printed
    page = (tmp_path / "r.html").read_text()
    assert "s3://videos/raw/face.mp4" in page and OUT in page and SECRET not in page
    # Written into the bucket of the tables, with the options of a run's config.
    featray("report", OUT, "--out", "s3://tables/r.html", flags=(f"--config={store.config_file}",))
    there = store.cat_file("tables/r.html").decode()
    assert plain(there) == plain(page)


def test_previews_from_and_into_the_bucket(featray, store, tmp_path):
    assert "4 frames of s3://videos/raw/face.mp4" in featray(
        "preview", OUT, "--video", "face.mp4", "--frames", 4, "--out", tmp_path / "s.png"
    )
    assert np.asarray(Image.open(tmp_path / "s.png")).std() > 20
    featray("preview", OUT, "--video", "face.mp4", "--frames", 4, "--out", "s3://tables/s.png")
    with store.open("tables/s.png") as file:
        assert Image.open(file).size == Image.open(tmp_path / "s.png").size


def test_export_status_query_and_doctor(featray, tmp_path):
    featray("export", OUT, "--video", "face.mp4", "--format", "csv", "--out", tmp_path / "f.csv")
    rows = json.loads(featray("query", OUT, "SELECT frame_index, AU12 FROM faces ORDER BY 1", "--format", "json"))
    frame = pd.read_csv(tmp_path / "f.csv")
    assert len(rows) == len(frame) == 6
    assert frame["AU12"].tolist() == pytest.approx([row["AU12"] for row in rows], abs=1e-7)
    assert "faces   6" in featray("status", OUT)
    release = json.loads(featray("query", OUT, "SELECT max(release) AS r FROM videos", "--format", "json"))[0]["r"]
    assert "6 matched: 100.0 % and 100.0 %" in featray("diff", OUT, release, release)
    assert f"{OUT}: wrote, read back and deleted" in featray("doctor", "--no-ray", "--write", OUT)
    fresh = featray("doctor", "--no-ray", "--write", "s3://tables/fresh")
    assert "s3://tables/fresh: is empty or does not exist yet" in fresh and "fresh: wrote, read back" in fresh


def test_duckdb_reads_the_bucket_through_fsspec(featray, store):
    with duckdb.connect() as connection:
        connection.register_filesystem(store)
        rows = connection.sql(f"""
            SELECT dataset, video_id, avg(AU12) FROM read_parquet('{OUT}/faces/**/*.parquet',
                union_by_name = true, hive_types_autocast = false) GROUP BY ALL
        """).fetchall()
    assert len(rows) == 1


def test_without_the_options_it_says_what_is_missing(featray, options, tmp_path):
    said = featray("report", OUT, "--out", tmp_path / "r.html", flags=(), code=1)
    assert said.count("\n") == 1 and "s3://tables/facial" in said and "--storage-option" in said
    endpoint = f"--storage-option=endpoint_url={options['endpoint_url']}"
    said = featray("status", "s3://tables/nothing", flags=(endpoint, "--storage-option=anon=true"), code=1)
    assert said.count("\n") == 1
