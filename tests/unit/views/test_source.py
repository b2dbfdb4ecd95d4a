"""The source of a row is the file of that name and no other; credentials go only to places that the user names."""

import random
import zipfile
from dataclasses import replace

import av
import pytest

from featray.config import InputConfig
from featray.errors import UsageError
from featray.sources.listing import list_videos
from featray.sources.places import SourceOptions
from featray.views.selection import SampledFrame, VideoRow
from featray.views.source import find_source, open_source_of
from tests.fixtures.web import two_hosts

SECRET = {"headers": {"Authorization": "Bearer hunter2"}}


def row_of(uri, *places):
    (video,) = list_videos(InputConfig(uris=[str(uri)]))
    known = {"dataset": "d", "release": "r", "width": None, "height": None, "weights_trained": False, "column": None}
    found = {name: getattr(video, name) for name in ("video_id", "uri", "member", "size_bytes", "content_id")}
    return VideoRow(**known, **found, input_places=places)


@pytest.fixture
def hosts(tmp_path, clips):
    with two_hosts(tmp_path, clips / "no_face.mp4") as (mine, theirs):
        yield mine, theirs


@pytest.mark.parametrize("with_config", [True, False])
def test_options_are_for_what_the_users_own_config_names(hosts, with_config):
    mine, theirs = hosts
    options = SourceOptions(SECRET, (f"{mine}/list.csv",) if with_config else ())
    for host, gets_them in ((mine, with_config), (theirs, False)):
        row = row_of(f"{host}/a.mp4", f"{host}/list.csv")  # from the output, which anybody may have written
        host.requests.clear()
        open_source_of(row, None, options)
        assert len(host.requests) >= 2
        assert {headers.get("Authorization") == "Bearer hunter2" for _, headers in host.requests} == {gets_them}


def test_a_source_that_the_user_names_gets_them(hosts):
    mine, theirs = hosts
    row = row_of(f"{mine}/a.mp4")
    theirs.requests.clear()
    find_source(row, f"{theirs}/a.mp4", SourceOptions(SECRET))
    assert all(headers.get("Authorization") for _, headers in theirs.requests)


def test_who_gets_no_options_is_said(hosts):
    mine, _ = hosts
    row = replace(row_of(f"{mine}/a.mp4", f"{mine}/list.csv"), uri=f"{mine}/gone.mp4")
    with pytest.raises(
        UsageError, match=r"storage options were not sent to 127\.0\.0\.1\S*: to send them, give --config"
    ):
        find_source(row, None, SourceOptions(SECRET))


def test_places_whose_address_an_output_cannot_choose_get_them():
    recorded = ("s3://bucket/x", "gs://b", "az://container/x", "/data/clips", "hf://datasets/o/n")
    chosen = (
        "https://evil.example/",
        "sftp://evil.example/x",
        "abfs://container@evil.dfs.core.windows.net/x",
        "ftp://e/x",
    )
    assert SourceOptions(SECRET, ("http://mine/x",)).places_among(recorded + chosen) == ["http://mine/x", *recorded]


@pytest.mark.parametrize("chain", ["zip://x.mp4::file://{}", "zip://x.mp4::{}"])
def test_a_row_chains_filesystems_only_if_the_users_own_config_does(tmp_path, clips, chain):
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.write(clips / "no_face.mp4", "x.mp4")
    uri = chain.format(tmp_path / "z.zip")
    row = replace(row_of(clips / "no_face.mp4"), uri=uri, content_id="size:53240", input_places=(uri,))
    with pytest.raises(
        UsageError, match=r"chains filesystems \(`::`\), which is opened only if your own --config names"
    ):
        find_source(row, None, SourceOptions())
    own = SourceOptions({}, (uri.replace("x.mp4", "*.mp4"),))
    assert find_source(row, uri, SourceOptions()).uri == find_source(row, None, own).uri == uri


@pytest.mark.parametrize("name, other", [("a[1].mp4", "a1.mp4"), ("s*.mp4", "sx.mp4"), ("q?.mp4", "qx.mp4")])
def test_a_name_is_no_pattern(tmp_path, clips, name, other):
    for each in (name, other):
        (tmp_path / each).write_bytes((clips / "no_face.mp4").read_bytes())
    row = row_of(tmp_path / name)
    for source in (None, str(tmp_path / name)):
        assert find_source(row, source, SourceOptions()).uri == f"file://{tmp_path}/{name}"
    (tmp_path / name).unlink()
    for source in (None, str(tmp_path / name)):
        with pytest.raises(UsageError, match="does not exist"):
            find_source(row, source, SourceOptions())


def test_rows_of_another_size_or_time_are_damaged_if_the_content_is_the_same(clips):
    row = row_of(clips / "no_face.mp4")
    first = SampledFrame(0, 0, "ok", ())
    for damaged, frame in ((replace(row, width=2, height=2), first), (row, replace(first, pts_us=1))):
        source = open_source_of(damaged, None, SourceOptions())
        with pytest.raises(UsageError, match=r"is unchanged, so its rows are damaged: check .* with featray verify"):
            list(source.pick([frame]))


def test_frames_of_a_damaged_stream_are_found_wherever_decoding_begins(tmp_path, clips):
    """After damage FFmpeg drops and conceals other frames if it begins at another keyframe."""
    data = bytearray((clips / "face.mp4").read_bytes())
    with av.open(str(clips / "face.mp4")) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    for position, size in packets[40::20]:
        data[position + 4 : position + size] = random.Random(position).randbytes(size - 4)
    clip = tmp_path / "damaged.mp4"
    clip.write_bytes(data)
    source = open_source_of(row_of(clip), None, SourceOptions())
    every = list(source.run([], None, None, only_sampled=False))
    rows = [SampledFrame(shown.frame.index, shown.frame.time_us, "ok", ()) for shown in every]
    for chosen in (rows[::9], rows[5::40], rows[-3:]):
        found = list(source.pick(chosen))
        assert [(one.frame.index, one.frame.time_us) for one in found] == [(r.frame_index, r.pts_us) for r in chosen]
    shown = list(source.run(rows[-60:], rows[-60].pts_us, None, only_sampled=False))
    assert [one.sampled for one in shown] == rows[-60:]
