"""Random manifests and tars: for any bytes, entries are listed in bounded memory, and nothing raises.

An entry must survive all steps of a run: JSON on its way to a worker, UTF-8 in a table.
"""

import csv
import io
import json
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featray.config import InputConfig
from featray.errors import ConfigError
from featray.records import dump, load
from featray.sources.listing import Video, list_videos
from tests.fixtures.chance import examples

SCHEMES = "  file:// local:// zip:// tar:// data: data:// reference:// memory:// s3:// x://".split(" ")
PAX_RECORDS = [b"32 GNU.sparse.size=999999999999\n", b"18 path=../a.mp4\n", b"11 size=-1\n", b"99999999 path=a"]
names = st.text(max_size=30) | st.sampled_from(["a.mp4", "../a.mp4", "./a.mp4", "/etc/hostname", "a.mp4::zip://b", "~"])
uris = st.builds(str.__add__, st.sampled_from(SCHEMES), names)
plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
values = st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3))
rows = st.lists(st.dictionaries(st.sampled_from(["uri", "path", "x", ""]), uris | values, max_size=4), max_size=6)
junk = st.binary(max_size=60)
codings = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("fuzz")
    (place / "a.mp4").write_bytes(b"x")
    return place


def check(path, **options):
    """List the entries of a file, as a run does, and check them."""
    for video in list_videos(InputConfig(uris=[str(path)], path_fields="{site}/{name}", **options)):
        assert load(Video, dump(video)) == video
        for text in (video.uri, video.member, *video.fields.values(), *(video.problem or ())):
            assert text is None or len(text.encode()) < 40_000
        assert json.loads(json.dumps(video.extra, allow_nan=False)) == video.extra
        if video.problem is None and video.member is None:
            assert video.uri.startswith("file:///") and Path(video.uri.removeprefix("file://")).is_file()


def listed(path, data):
    path.write_bytes(data)
    try:
        check(path)
    except ConfigError as error:
        assert "nothing found at" in str(error), "a file without a row names nothing, and that is said"


def broken(draw, data):
    """Return the bytes, or the bytes with some of them replaced."""
    if not data or draw(st.booleans()):
        return data
    at = draw(st.integers(0, len(data)))
    return data[:at] + draw(junk) + data[at + draw(st.integers(0, 8)) :]


@st.composite
def jsonl(draw):
    lines = [json.dumps(row, ensure_ascii=draw(st.booleans())) for row in draw(rows)]
    lines.append("[" * draw(st.sampled_from([0, 1, 50, 5000])))
    return broken(draw, "\n".join(lines).encode(draw(codings), "replace"))


@st.composite
def table_of_text(draw):
    file = io.StringIO()
    writer = csv.DictWriter(file, ["uri", "x"], extrasaction="ignore", delimiter=draw(st.sampled_from(",;\t|")))
    writer.writeheader()
    writer.writerows(draw(rows))
    return broken(draw, file.getvalue().encode(draw(codings), "replace"))


@st.composite
def parquet(draw):
    count, zone = draw(st.integers(0, 5)), draw(st.sampled_from(["UTC", "Mars/Phobos", "+25:00"]))
    some = {
        "text": (uris, pa.string()),
        "bytes": (junk, pa.binary()),
        "when": (st.integers(-(2**62), 2**62), pa.timestamp("us", tz=zone)),
        "day": (st.integers(-(2**31), 2**31 - 1), pa.date32()),
        "list": (st.lists(st.text(max_size=5).filter(str.isascii), max_size=3), pa.list_(pa.string())),
        "map": (st.lists(st.tuples(st.just("k"), st.integers(0, 5)), max_size=2), pa.map_(pa.string(), pa.int8())),
        "media": (
            st.fixed_dictionaries({"bytes": st.none() | junk, "path": st.none() | st.just("a.mp4")}),
            pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        ),
        "nothing": (st.none(), pa.null()),
        "number": (st.floats(), pa.float64()),
    }
    kinds = draw(st.dictionaries(st.sampled_from(["uri", "video", "x", "y.z", "bytes"]), st.sampled_from(sorted(some))))
    columns = {}
    for name, kind in kinds.items():
        strategy, arrow = some[kind]
        found = draw(st.lists(st.none() | strategy, min_size=count, max_size=count))
        found = [value.encode("utf-8", "replace").decode() if isinstance(value, str) else value for value in found]
        columns[name] = pa.array(found, arrow)
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, row_group_size=draw(st.sampled_from([1, 1000])))
    return broken(draw, file.getvalue())


@st.composite
def headers(draw):
    """Draw a tar's blocks, with arbitrary kinds and sizes; some of the blocks are not headers."""
    kinds = st.sampled_from(b"01234567LKSxgXDMNV\0")
    blocks = b""
    for _ in range(draw(st.integers(0, 6))):
        info = tarfile.TarInfo(draw(names).replace("\0", "") or "a.mp4")
        info.type = bytes([draw(kinds)])
        data = draw(
            junk | st.sampled_from([b"30 GNU.sparse.size=999999999999\n", b"18 path=../a.mp4\n", b"9 size=-1\n"])
        )
        info.size = draw(st.sampled_from([len(data), 0, 1 << 33, 1 << 62, 513]))
        info.mtime = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp())
        blocks += info.tobuf(draw(st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])), "utf-8", "replace")
        blocks += data.ljust(-(-len(data) // 512) * 512, b"\0")
    return broken(draw, blocks + bytes(1024) * draw(st.integers(0, 2)))


@examples(60)
@given(data=jsonl())
def test_jsonl(folder, data):
    listed(folder / "list.jsonl", data)


@examples(60)
@given(data=table_of_text())
def test_csv_and_tsv(folder, data):
    listed(folder / "list.csv", data)
    listed(folder / "list.tsv", data)


@examples(60)
@given(data=parquet())
def test_parquet(folder, data):
    listed(folder / "list.parquet", data)


@examples(100)
@given(data=headers())
def test_tar_headers(folder, data):
    listed(folder / "s.tar", data)


@pytest.mark.long
@examples(100)
@given(data=st.binary(max_size=4096), kind=st.sampled_from(["tar", "csv", "tsv", "jsonl", "parquet"]))
def test_junk(folder, data, kind):
    listed(folder / f"junk.{kind}", data)
