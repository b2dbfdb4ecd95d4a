"""Places that a manifest may name, and places that get credentials, checked by the requests that real servers get."""

import base64
import json

import pytest

from featray.config import DecodeConfig, DetectConfig, InputConfig
from featray.errors import ErrorCode
from featray.extract.child import ChildSettings
from featray.extract.isolation import IsolatedDecoder
from featray.extract.plan import UnitTask, open_source, plan_video
from featray.faces.detectors import detector_sha256
from featray.records import dump, load
from featray.sources.listing import Video, find_video, list_videos
from featray.sources.places import options_apply, place_of
from featray.video.units import Unit
from tests.fixtures.runs import make_config
from tests.fixtures.web import two_hosts

SECRET = {"headers": {"Authorization": "Bearer hunter2", "X-Api-Key": "hunter2"}}


@pytest.fixture
def hosts(tmp_path, clips):
    """Yield two servers: one from the config, with a manifest that names videos of both, and another one."""
    with two_hosts(tmp_path, clips / "no_face.mp4") as (mine, theirs):
        rows = [{"uri": "a.mp4"}, {"uri": f"{theirs}/a.mp4"}]
        (tmp_path / "mine" / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
        yield mine, theirs


def authorized(host):
    return {headers.get("Authorization") == "Bearer hunter2" for _, headers in host.requests}


def test_options_go_to_the_hosts_of_the_config_and_to_no_other(hosts):
    mine, theirs = hosts
    config = InputConfig(uris=[f"{mine}/list.jsonl"], storage_options=SECRET)
    for video in list_videos(config):
        video = load(Video, dump(video))  # serialised, as on its way to a worker
        assert plan_video(video, DecodeConfig(), SECRET).failure is None
        assert find_video(video.uri, None, config).problem is None
    assert authorized(mine) == {True}
    assert len(theirs.requests) >= 3 and "hunter2" not in str(theirs.requests)


@pytest.mark.parametrize(
    "options",
    [
        SECRET,
        {"client_kwargs": SECRET},
        {"client_kwargs": {"headers": {"Cookie": "session=hunter2"}}},
        {"headers": {"Authorization": f"Basic {base64.b64encode(b'me:hunter2').decode()}"}},
    ],
)
def test_a_redirect_leads_on_without_them(hosts, options):
    mine, theirs = hosts
    port = theirs.rpartition(":")[2]
    config = InputConfig(uris=[f"{mine}/moved/{port}/a.mp4"], storage_options=options)
    (video,) = list_videos(config)
    with open_source(video, options) as file:
        assert len(file.read()) == video.size_bytes
    names = {name for given in (options, options.get("client_kwargs", {})) for name in given.get("headers", {})}
    assert all(headers.get(name) for _, headers in mine.requests for name in names)
    assert theirs.requests and not any(headers.get(name) for _, headers in theirs.requests for name in names)


def test_a_place_that_the_config_names_gets_them_too(hosts):
    mine, theirs = hosts
    config = InputConfig(uris=[f"{mine}/list.jsonl"], storage_options=SECRET, manifest_places=[theirs])
    assert [video.problem for video in list_videos(config)] == [None, None]
    assert authorized(theirs) == {True}


def test_a_file_of_boxes_gets_those_of_its_host(hosts, tmp_path):
    for name, host in zip(("mine", "theirs"), hosts, strict=True):
        (tmp_path / name / "boxes.csv").write_text("video,frame_index,x1,y1,x2,y2\na.mp4,0,10,10,60,60\n")
        detect = DetectConfig(detector="boxes", boxes=f"{host}/boxes.csv")
        given = InputConfig(uris=[f"{hosts[0]}/a.mp4"], storage_options=SECRET)
        config = make_config(
            [], tmp_path / "out", input=given.model_dump(), detect=detect.model_dump(exclude_unset=True)
        )
        (video,) = list_videos(config.input)
        child = ChildSettings.of(config)
        assert len(detector_sha256(child.detect, child.detector_files)) == 64
        decoder = IsolatedDecoder(child)
        try:
            (chunk,) = decoder.chunks(UnitTask(video, "key", "shard", Unit(0), 1, 1))
        finally:
            decoder.close()
        assert chunk.faces.num_rows == 1
        assert len(host.requests) > 2 and authorized(host) == ({True} if name == "mine" else {False})


def test_what_is_not_open_says_that_options_were_held_back(hosts, tmp_path):
    mine, theirs = hosts
    (tmp_path / "mine" / "list.csv").write_text(f"uri\n{theirs}/closed/a.mp4\n")
    (video,) = list_videos(InputConfig(uris=[f"{mine}/list.csv"], storage_options=SECRET))
    assert video.problem[0] == ErrorCode.ACCESS_DENIED
    assert f"add {theirs} to input.manifest_places to use them there" in video.problem[1]


@pytest.mark.parametrize(
    "uri, place",
    [
        ("HTTPS://me:pw@Host.org:443/a?b=://x", ("https", "host.org")),
        ("http://host.org:8080", ("http", "host.org:8080")),
        ("s3a://bucket/a::b.mp4", ("s3", "bucket")),
        ("simplecache::s3://bucket/x", ("s3", "bucket")),
        ("zip://x.mp4::https://host/z.zip", ("https", "host")),
        ("abfss://box@account.dfs.core.windows.net/x", ("az", "box@account.dfs.core.windows.net")),
        ("/data/a.mp4", ("file", "")),
        ("local:///data", ("file", "")),
    ],
)
def test_the_place_of_a_uri(uri, place):
    assert place_of(uri) == place


@pytest.mark.parametrize(
    "uri, own",
    [
        ("https://host.org/x", True),
        ("http://host.org/x", False),
        ("https://host.org.evil.org/x", False),
        ("https://host.org@evil.org/x", False),
        ("https://evil.org/https://host.org/x", False),
        ("https://host.org:444/x", False),
        ("s3://host.org/x", False),
    ],
)
def test_options_are_for_one_scheme_and_host(uri, own):
    assert options_apply(uri, InputConfig(uris=["https://host.org/list.csv"])) is own


def test_a_server_that_the_options_name_gets_them_for_every_bucket():
    minio = {"endpoint_url": "http://minio:9000", "key": "k", "secret": "s"}
    config = InputConfig(uris=["s3://lists/list.csv"], storage_options=minio)
    assert options_apply("s3://videos/a.mp4", config) and not options_apply("https://videos/a.mp4", config)
    aws = InputConfig(uris=["s3://lists/list.csv"], storage_options={"key": "k", "secret": "s"})
    assert not options_apply("s3://videos/a.mp4", aws)


HOSTILE = [
    "zip://x::notzip",
    "tar://",
    "reference://a::data:",
    "data://,x",
    "simplecache::file:///etc/hostname",
    "github://owner:repo@/a.mp4",
    "file:///etc/hostname",
    "local:///etc/hostname",
    "/etc/hostname",
    "FILE:///etc/hostname",
    "memory://x.mp4",
    "ftp://host/a.mp4",
    "dir://a::file:///etc",
    "\tlocal:///etc/hostname",
]


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_manifest_from_the_network_names_no_file_of_this_machine_and_no_chain(hosts, tmp_path, kind):
    mine, _ = hosts
    text = "\n".join(json.dumps({"uri": uri}) for uri in [*HOSTILE, "a.mp4"])
    if kind == "csv":
        text = "uri\n" + "\n".join(f'"{uri}"' for uri in [*HOSTILE, "a.mp4"])
    (tmp_path / "mine" / f"bad.{kind}").write_text(text)
    *bad, good = list_videos(InputConfig(uris=[f"{mine}/bad.{kind}"]))
    assert (good.uri, good.problem) == (f"{mine}/a.mp4", None)
    assert [video.problem[0] for video in bad] == [ErrorCode.BAD_MANIFEST_ROW] * len(bad)
    # One file under four names is one video.
    assert len(bad) >= len(HOSTILE) - 4


def test_what_the_config_allows_may_be_named(hosts, tmp_path):
    mine, _ = hosts
    (tmp_path / "mine" / "bad.csv").write_text(f"uri\n{tmp_path}/mine/a.mp4\nfile://{tmp_path}/theirs/a.mp4\n")
    config = InputConfig(uris=[f"{mine}/bad.csv"], manifest_places=["file:///"])
    assert [video.problem for video in list_videos(config)] == [None, None]


def test_a_manifest_on_disk_names_files_and_what_the_config_names(hosts, tmp_path):
    mine, _ = hosts
    rows = [f"{tmp_path}/mine/a.mp4", f"file://{tmp_path}/theirs/a.mp4", f"{mine}/a.mp4", *HOSTILE[:6]]
    (tmp_path / "list.csv").write_text("uri\n" + "\n".join(rows))
    found = list(list_videos(InputConfig(uris=[str(tmp_path / "list.csv")])))
    assert [video.problem is None for video in found] == [True, True] + [False] * 7
    assert found[2].problem[0] == ErrorCode.BAD_MANIFEST_ROW
    assert f"does not name {mine}; if you trust it, add it to input.manifest_places" in found[2].problem[1]
    found = list(list_videos(InputConfig(uris=[str(tmp_path / "list.csv")], manifest_places=["http://"])))
    assert [video.problem is None for video in found] == [True] * 3 + [False] * 6
