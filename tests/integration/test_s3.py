"""The main job over a real S3 API: an HTTP server in its own process."""

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

import fsspec
import imageio_ffmpeg
import pytest

import featray
from featray.config import DecodeConfig, InputConfig
from featray.errors import FeatrayError, StorageError
from featray.extract.plan import open_source, plan_video
from featray.run.runner import run
from featray.sources.listing import list_videos
from featray.store.location import locate
from featray.store.storage import fetched_bytes, list_files, read_bytes, write_bytes
from featray.tables.layout import open_output
from featray.tables.query import connect, run_sql
from featray.video.decode import DecodeAccount, decode_pyav
from tests.fixtures import s3
from tests.fixtures.runs import make_config, silent


@pytest.fixture(scope="module")
def endpoint():
    os.environ.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="hunter2", AWS_DEFAULT_REGION="us-east-1")
    with s3.server() as url:
        yield url


@pytest.fixture(scope="module")
def options(endpoint):
    return {"endpoint_url": endpoint, **s3.KEYS}


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


def test_a_record_that_another_process_wrote_after_the_last_listing_is_read(bucket, options):
    """s3fs keeps listings, and answers from them that there is no such object."""
    folder = locate("s3://tables/records", options)
    write_bytes(folder.child("mine.json"), b"mine")
    assert list_files(folder) == [folder.child("mine.json").path]
    fsspec.filesystem("s3", skip_instance_cache=True, **options).pipe_file(folder.child("later.json").path, b"later")
    assert read_bytes(folder.child("later.json")) == b"later"


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
    assert left == {"commits", "leases", "output.json"}


def test_open_reads_from_the_bucket(cluster, bucket, options):
    with featray.open("s3://tables/facial", storage_options=options) as out:
        assert out.faces.aggregate("site, count(*) AS n", "site").order("site").fetchall() == [
            ("berlin", 4),
            ("oslo", 4),
        ]
        assert len(out.features.to_arrow_table()) == 8
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(lambda: len(out.videos)).result() == 4
    with pytest.raises(FeatrayError, match="s3://no-such-bucket/facial: ") as caught:
        featray.open("s3://no-such-bucket/facial", storage_options=options)
    assert "hunter2" not in str(caught.value) and "\n" not in str(caught.value)


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


def test_a_listing_of_several_pages(bucket, options):
    """1,300 keys are two pages; order and count are correct, and the first video is available after one request."""
    bucket.mkdir("many")
    bucket.pipe({f"many/flat/{i:05d}.mp4": b"x" for i in range(1100)})
    bucket.pipe({f"many/deep/{i % 7}/{i:05d}.mp4": b"x" for i in range(200)})

    def uris(pattern):
        return [video.uri for video in list_videos(InputConfig(uris=[pattern], storage_options=options))]

    everything = uris("s3://many/")
    assert len(everything) == 1300 and everything == sorted(everything)
    assert uris("s3://many/flat/0000?.mp4") == [f"s3://many/flat/{i:05d}.mp4" for i in range(10)]
    assert len(uris("s3://many/deep/3/*.mp4")) == len(range(3, 200, 7))


@pytest.mark.parametrize("uri", ["s3://odd/", "s3://odd/a::b.mp4"])
def test_two_colons_in_a_key_are_part_of_the_key(endpoint, options, uri):
    store = fsspec.filesystem("s3", **options)
    store.makedirs("odd", exist_ok=True)
    store.pipe({"odd/a": b"another object", "odd/a::b.mp4": b"the video"})
    (video,) = list_videos(InputConfig(uris=[uri], storage_options=options))
    assert (video.uri, video.size_bytes) == ("s3://odd/a::b.mp4", 9)
    with open_source(video, options) as file:
        assert file.read() == b"the video"


def moov_last(clip, place):
    """Write the same video with its index after the data, as cameras write it."""
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-v",
        "error",
        "-i",
        str(clip),
        "-c",
        "copy",
        "-movflags",
        "0",
        str(place),
    ]
    subprocess.run(command, check=True)
    data = place.read_bytes()
    assert data.find(b"moov") > data.find(b"mdat")
    return place


@pytest.fixture(scope="module")
def long_clip(face_clip, tmp_path_factory):
    """Return thirteen minutes of the face clip, index last: some 19 MB."""
    folder = tmp_path_factory.mktemp("long")
    (folder / "list.txt").write_text(f"file '{face_clip}'\n" * 40)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "concat", "-safe", "0", "-i", "list.txt"]
    subprocess.run([*command, "-c", "copy", "joined.mp4"], check=True, cwd=folder)
    return moov_last(folder / "joined.mp4", folder / "long.mp4")


def test_an_index_at_the_end_costs_few_requests_and_a_unit_few_bytes(bucket, endpoint, long_clip):
    bucket.mkdir("long")
    bucket.put_file(str(long_clip), "long/long.mp4")
    size = long_clip.stat().st_size
    proxy = s3.Proxy(endpoint, every=1 << 30, stall_seconds=0)
    options = {"endpoint_url": proxy.url, **s3.KEYS}
    settings = DecodeConfig(unit_frames=64)
    try:
        (video,) = list_videos(InputConfig(uris=["s3://long/long.mp4"], storage_options=options))
        proxy.counts.clear()
        plan = plan_video(video, settings, options)
        assert len(plan.units) > 50
        assert proxy.counts["all"] <= 5
        assert 0 < plan.bytes_read <= 3 << 20
        middle = plan.units[len(plan.units) // 2]
        before = sum(proxy.bytes_sent.values())
        account = DecodeAccount()
        with open_source(video, options) as file:
            frames = list(decode_pyav(file, middle, settings, account))
            fetched = fetched_bytes(file)
        assert 0 < len(frames) <= 64
        sent = sum(proxy.bytes_sent.values()) - before
        assert sent < size / 3
        assert 0 <= fetched - sent < 1 << 20, "counted to the block"
    finally:
        proxy.close()


def test_bytes_read_are_reported(cluster, bucket, options):
    output = open_output("s3://tables/facial", options)
    rows = run_sql(connect(output), "SELECT uri, size_bytes, bytes_read FROM videos WHERE status = 'ok'").read_all()
    for row in rows.to_pylist():
        assert row["size_bytes"] <= row["bytes_read"] <= 2 * row["size_bytes"], "once to plan, once to decode"
