"""Videos behind links, from a real server over HTTP."""

import contextlib
import functools
import http.server
import re
import tarfile
import threading
from pathlib import Path

import pytest

from featray.config import DecodeConfig, InputConfig
from featray.errors import ConfigError, ErrorCode, StorageError
from featray.extract.plan import plan_video
from featray.sources.listing import list_videos


class Ranges(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, its index pages, and ranges of its files; answers 403 below /closed/."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        path = Path(self.translate_path(self.path))
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if "/closed/" in self.path:
            self.send_error(403)
        elif not path.is_file() or not wanted:
            super().do_GET()
        else:
            data = path.read_bytes()
            first, last = int(wanted[1]), min(int(wanted[2]), len(data) - 1)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
            self.send_header("Content-Length", str(last + 1 - first))
            self.end_headers()
            self.wfile.write(data[first : last + 1])


@contextlib.contextmanager
def served(folder):
    handler = functools.partial(Ranges, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


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
    assert said.startswith(f"3 left out of the input, such as one to {web}/face.mp4: ") and "hunter2" not in said


def test_the_same_link_again_is_no_news(web, caplog):
    uris = [f"{web}/face.mp4?signature=abc", f"{web}/face.mp4?signature=abc", f"{web}/no_face.mp4", f"{web}/no_*.mp4"]
    assert len(list(list_videos(InputConfig(uris=uris)))) == 2
    assert caplog.messages == []
