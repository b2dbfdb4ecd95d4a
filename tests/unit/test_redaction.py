"""Stored text contains no secrets, and text that is not secret is unchanged."""

import pytest

from featray.identity import video_id
from featray.redaction import has_query, readable_name, redact_options, redact_uri


@pytest.mark.parametrize(
    ("uri", "safe"),
    [
        ("https://me:pw@host:8080/a/b.mp4?X-Amz-Signature=s#f", "https://host:8080/a/b.mp4"),
        ("s3://key:secret@bucket/a?b.mp4", "s3://bucket/a?b.mp4"),
        ("s3://bucket/**/*.mp4", "s3://bucket/**/*.mp4"),
        (
            "abfs://container@account.dfs.core.windows.net/a.mp4?sig=s",
            "abfs://container@account.dfs.core.windows.net/a.mp4",
        ),
        ("/local/pa?th.mp4", "/local/pa?th.mp4"),
        ("  https://me:pw@host/a.mp4?sig=s", "https://host/a.mp4"),
        ("HTTPS://me:pw@host/a.mp4?sig=s", "HTTPS://host/a.mp4"),
        ("simplecache::https://me:pw@host/a.mp4?sig=s", "simplecache::https://host/a.mp4"),
        ("filecache::simplecache::HTTPS://host/a.mp4?sig=s", "filecache::simplecache::HTTPS://host/a.mp4"),
        ("zip://a?.mp4::https://host/z.zip?sig=s", "zip://a?.mp4::https://host/z.zip"),
        ("simplecache::s3://k:s@bucket/a?b.mp4", "simplecache::s3://bucket/a?b.mp4"),
        ("https://host/a.mp4?next=x::y&sig=s", "https://host/a.mp4"),
        ("rtsp://me:pw@camera:554/1?token=s", "rtsp://camera:554/1"),
        ("unheard-of://host/a?token=s", "unheard-of://host/a"),
        ("https://[bad/x?sig=s", "https://[bad/x"),
    ],
)
def test_redact_uri(uri, safe):
    assert redact_uri(uri) == safe


def test_ids_of_uris_are_what_they_were():
    """Ids of published videos; if one changes, the video is processed again under another name."""
    expected = {
        "s3://bucket/a.mp4": "fd373ff61094d28c",
        "s3://bucket/a b?c#d.mp4": "6de84fa4337d6e1b",
        "s3://me:pw@bucket/raw/é.mp4": "b4eed1e80aeac5c9",
        "s3://bucket/a::b.mp4": "1218aaa70730bbbb",
        "gs://bucket/x/y.mov": "32e1bd9c081b9665",
        "file:///data/it's a #1?.mp4": "84fe5c1764238b60",
        "file:///data/a::b.mp4": "5286cb77d02f4e54",
        "https://me:pw@host:8080/a/b.mp4?X-Amz-Signature=s#f": "939ff18850f71a46",
        "http://host/a;v=1.mp4": "ba1d4b0fc670041c",
        "https://host?x=1": "50042e55e6869295",
        "HTTPS://host/a.mp4": "fb709c90c5803ba9",
        "abfs://c@acc.dfs.core.windows.net/a.mp4?sig=s": "e9d3a1f384f4e488",
        "az://c/a.mp4": "066c28a72c45b26f",
        "sftp://me@host/a.mp4": "f9b0e75ab2693ee5",
        "ftp://u:p@h/a%20b.mp4": "d924a11ab647f59d",
        "hdfs://n:8020/a?b.mp4": "4135a709d672364d",
        "memory://root/a.mp4": "1f60ed8867aa36fb",
        "smb://host/share/take #1.mp4": "096d2617ba2e62c9",
        "hf://datasets/u/r/a.mp4": "fe491a1cb7ddd355",
    }
    assert {uri: video_id(redact_uri(uri)) for uri in expected} == expected


def test_redact_options_keeps_what_is_no_secret():
    given = {
        "endpoint_url": "http://u:p@host:9000",
        "anon": False,
        "secret": "x",
        "client_kwargs": {"region_name": "eu"},
    }
    assert redact_options(given) == {
        "endpoint_url": "http://host:9000",
        "anon": False,
        "secret": "***",
        "client_kwargs": {"region_name": "eu"},
    }


def test_redact_options_finds_secrets_wherever_they_are():
    given = {
        "cookies": {"session": "hunter2"},
        "pwd": "hunter2",
        "client_kwargs": {"headers": {"Cookie": "hunter2", "Accept": "video/*"}, "cookies": [{"a": "hunter2"}]},
        "token": {"refresh": "hunter2", "scopes": ["hunter2"], 7: "hunter2"},
        "headers": [["Authorization", "hunter2"], {"X-Api-Key": "hunter2"}, "Cookie: a=hunter2", "Bearer hunter2"],
        "conn": "DefaultEndpointsProtocol=https;AccountKey=hunter2",
        "mirrors": ["https://me:hunter2@host/a?sig=hunter2", "eu"],
        7: "seven",
    }
    redacted = redact_options(given)
    assert "hunter2" not in str(redacted)
    assert redacted["client_kwargs"]["headers"]["Accept"] == "video/*"
    assert redacted["mirrors"] == ["https://host/a", "eu"] and redacted[7] == "seven"


@pytest.mark.parametrize(
    ("uri", "has"),
    [("https://h/a?b", True), ("simplecache::http://h/a", True), ("s3://b/a?c", False), ("/a?b", False)],
)
def test_where_a_query_may_be(uri, has):
    assert has_query(uri) is has


def test_a_readable_name_escapes_what_is_no_utf8():
    assert readable_name("é/caf\udce9 \ud800.mp4") == "é/caf\\xe9 \\ud800.mp4"
