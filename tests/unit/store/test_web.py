"""Videos behind links, from a real server over HTTP."""

import os
import tarfile

import pytest

from featray.config import DecodeConfig, InputConfig
from featray.errors import ConfigError, ErrorCode, StorageError
from featray.extract.plan import open_source, plan_video
from featray.sources.listing import list_videos
from featray.store import streamed
from tests.fixtures.web import NoLength, NoRanges, served


@pytest.fixture(scope="module")
def web(clips):
    with served(clips) as address:
        yield address


@pytest.mark.parametrize(
    "link, names",
    [
        ("face.mp4", ["face.mp4"]),
        ("face.mp4?signature=abc", ["face.mp4"]),
        ("*.mp4", ["face.mp4", "no_face.mp4"]),
        ("no_*.mp4", ["no_face.mp4"]),
        ("", ["face.mp4", "no_face.mp4"]),
    ],
)
def test_links_globs_and_index_pages_give_videos_that_open(web, clips, link, names):
    videos = list(list_videos(InputConfig(uris=[f"{web}/{link}"])))
    assert [video.uri for video in videos] == [f"{web}/{name}" for name in names]
    for video, name in zip(videos, names, strict=True):
        assert video.size_bytes == (clips / name).stat().st_size
        plan = plan_video(video, DecodeConfig(unit_frames=64), {})
        assert plan.failure is None and len(plan.units) >= 2
        assert 0 < plan.bytes_read <= video.size_bytes


def test_a_signed_link_to_a_tar_is_a_tar(clips, tmp_path):
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        tar.add(clips / "no_face.mp4", "a/no_face.mp4")
    with served(tmp_path) as web:
        (video,) = list_videos(InputConfig(uris=[f"{web}/shard.tar?signature=abc"]))
        assert (video.uri, video.member) == (f"{web}/shard.tar", "a/no_face.mp4")
        assert plan_video(video, DecodeConfig(), {}).failure is None


def test_a_link_to_nothing_is_said_without_its_signature(web):
    with pytest.raises(ConfigError, match=rf"nothing found at {web}/none\.mp4$"):
        list(list_videos(InputConfig(uris=[f"{web}/none.mp4?signature=abc"])))


def test_a_link_that_is_closed_is_said(web):
    with pytest.raises(StorageError, match=r"/closed/a\.mp4: access denied"):
        list(list_videos(InputConfig(uris=[f"{web}/closed/a.mp4"])))


def test_a_manifest_of_links_keeps_the_ones_that_fail_and_their_order(web, tmp_path):
    links = [f"{web}/face.mp4", f"{web}/none.mp4", f"{web}/closed/a.mp4", f"{web}/no_face.mp4"] * 20
    manifest = tmp_path / "links.csv"
    manifest.write_text("uri\n" + "".join(f"{link}?n={i}\n" for i, link in enumerate(links)))
    videos = list(list_videos(InputConfig(uris=[str(manifest)], manifest_places=[web])))
    assert [video.uri for video in videos] == links[:4]  # the same link again is the same video
    assert [video.problem and video.problem[0] for video in videos] == [
        None,
        ErrorCode.FETCH_FAILED,
        ErrorCode.ACCESS_DENIED,
        None,
    ]


def test_links_that_differ_only_in_their_query_are_one_video_and_that_is_said(web, tmp_path, caplog):
    links = [f"{web}/face.mp4?id={i}&token=hunter2" for i in (1, 2, 3, 3, 1)] + [f"{web}/face.mp4"]
    manifest = tmp_path / "links.csv"
    manifest.write_text("uri\n" + "\n".join(links) + "\n")
    (video,) = list_videos(InputConfig(uris=[str(manifest)], manifest_places=[web]))
    assert video.address == links[0]
    (said,) = caplog.messages
    assert said.startswith(f"3 links left out of the input, such as one to {web}/face.mp4: ") and "hunter2" not in said


def test_the_same_link_again_is_no_news(web, caplog):
    uris = [f"{web}/face.mp4?signature=abc", f"{web}/face.mp4?signature=abc", f"{web}/no_face.mp4", f"{web}/no_*.mp4"]
    assert len(list(list_videos(InputConfig(uris=uris)))) == 2
    assert caplog.messages == []


@pytest.mark.parametrize("server", [NoLength, NoRanges])
def test_a_server_without_lengths_or_ranges_is_read_all_the_same(tmp_path, clips, server):
    """For a file of several blocks and a short one; the frames equal those of the file."""
    (tmp_path / "long.mp4").write_bytes((clips / "face.mp4").read_bytes() + b"\0\0\0\x08free" * (3 << 17))
    (tmp_path / "short.mp4").write_bytes((clips / "no_face.mp4").read_bytes())
    with served(tmp_path, server) as web:
        for name in ("long.mp4", "short.mp4"):
            (near,) = list_videos(InputConfig(uris=[str(tmp_path / name)]))
            (far,) = list_videos(InputConfig(uris=[f"{web}/{name}"]))
            settings = DecodeConfig(unit_frames=64)
            plan = plan_video(far, settings, {})
            assert plan.failure is None and plan.units == plan_video(near, settings, {}).units
            with open_source(far, {}) as file:
                file.seek(-100, 2)
                assert file.read() == (tmp_path / name).read_bytes()[-100:]


def test_what_a_server_never_ends_sending_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(streamed, "MAX_STREAMED_BYTES", 3 << 20)
    (tmp_path / "a.mp4").write_bytes(bytes(4 << 20))
    with served(tmp_path, NoLength) as web:
        (video,) = list_videos(InputConfig(uris=[f"{web}/a.mp4"]))
        failure = plan_video(video, DecodeConfig(), {}).failure
    assert failure.code == ErrorCode.FETCH_FAILED and "File too large" in failure.message


def test_a_manifest_without_a_length_is_read(tmp_path, clips):
    (tmp_path / "face.mp4").write_bytes((clips / "no_face.mp4").read_bytes())
    (tmp_path / "list.csv").write_text("uri\nface.mp4\n")
    with served(tmp_path, NoLength) as web:
        (video,) = list_videos(InputConfig(uris=[f"{web}/list.csv"]))
        assert (video.uri, video.problem) == (f"{web}/face.mp4", None)


def test_a_changed_file_of_the_same_size_is_another_by_its_date(tmp_path):
    """Python's server sends a date but no ETag."""
    (tmp_path / "a.mp4").write_bytes(b"one")
    with served(tmp_path) as url:
        config = InputConfig(uris=[f"{url}/"])
        (before,) = list_videos(config)
        (tmp_path / "a.mp4").write_bytes(b"two")
        os.utime(tmp_path / "a.mp4", (1, 1))
        (after,) = list_videos(config)
    assert after.size_bytes == before.size_bytes and after.content_id != before.content_id
