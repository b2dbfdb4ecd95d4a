"""Pictures in a bucket or on a web server: the child has no network, so the parent reads them for it."""

import fsspec
import pytest

from featray.config import DecodeConfig, DetectConfig, InputConfig
from featray.errors import ErrorCode
from featray.extract.child import ChildSettings
from featray.extract.isolation import IsolatedDecoder
from featray.extract.plan import VideoTask
from featray.sources.listing import find_video, list_videos
from tests.fixtures import s3
from tests.fixtures.sequences import bad_pictures, odd_pictures, write_tar
from tests.fixtures.web import served

ODD = odd_pictures()
FILES = {f"{i}.png": ODD["plain.png"][0] for i in (1, 2, 10, 11)} | {"3.png": bad_pictures()["bomb.png"]}


@pytest.fixture(scope="module")
def options():
    with pytest.MonkeyPatch.context() as patch, s3.server() as url:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
            patch.delenv(name, raising=False)
        given = {"endpoint_url": url, "key": "1234567890", "secret": "hunter2"}
        store = fsspec.filesystem("s3", **given)
        store.mkdir("pictures")
        for name, data in FILES.items():
            store.pipe_file(f"pictures/a/{name}", data)
        store.pipe_file("pictures/a/below/1.png", FILES["1.png"])
        yield given
        fsspec.get_filesystem_class("s3").clear_instance_cache()


def decoder(options):
    return IsolatedDecoder(ChildSettings(DecodeConfig(), DetectConfig(), options))


def frames_of(decoder, video):
    """Return the names and states of a sequence's frames, and the outcome."""
    plan = decoder.plan(video)
    assert plan.failure is None
    (task,) = VideoTask(video, "", "").units(plan, {})
    chunks = list(decoder.chunks(task))
    rows = [row for chunk in chunks for row in chunk.frames.to_pylist()]
    return {row["source_name"]: row["status"] for row in rows}, chunks[-1].outcome


def test_a_bucket(options, tmp_path):
    store = fsspec.filesystem("s3", **options)
    write_tar(tmp_path / "a.tar", FILES.items())
    store.put_file(str(tmp_path / "a.tar"), "pictures/t/a.tar")
    inputs = InputConfig(uris=["s3://pictures/"], storage_options=options, sequence_fps=5)
    found = {video.uri: video for video in list_videos(inputs)}
    assert list(found) == ["s3://pictures/t/a.tar", "s3://pictures/a/", "s3://pictures/a/below/"]
    reading = decoder(options)
    try:
        for name in ("s3://pictures/a/", "s3://pictures/t/a.tar"):
            assert find_video(name, None, inputs) == found[name]
            statuses, outcome = frames_of(reading, found[name])
            assert list(statuses) == ["1.png", "2.png", "3.png", "10.png", "11.png"]
            assert [name for name, status in statuses.items() if status == "decode_error"] == ["3.png"]
            assert [failure.code for failure in outcome.failures] == [ErrorCode.TOO_LARGE]
            assert outcome.bytes_read >= sum(map(len, FILES.values()))
        plan = reading.plan(found["s3://pictures/a/"])
        store.rm_file("pictures/a/2.png")
        (task,) = VideoTask(found["s3://pictures/a/"], "", "").units(plan, {})
        (chunk,) = reading.chunks(task)
        assert [row["status"] == "decode_error" for row in chunk.frames.to_pylist()] == [
            False,
            True,
            True,
            False,
            False,
        ]
        assert chunk.outcome.failures[0].message == "2.png: does not exist"
        assert "changed after they were listed" in reading.plan(found["s3://pictures/a/"]).failure.message
    finally:
        reading.close()


def test_a_web_server(tmp_path):
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    with served(tmp_path) as url:
        (video,) = list_videos(InputConfig(uris=[f"{url}/"], sequence_fps=5))
        assert find_video(video.uri, None, InputConfig(uris=[f"{url}/"], sequence_fps=5)) == video
        reading = decoder({})
        try:
            statuses, _ = frames_of(reading, video)
        finally:
            reading.close()
    assert list(statuses.values()) == ["no_face", "no_face", "decode_error", "no_face", "no_face"]
