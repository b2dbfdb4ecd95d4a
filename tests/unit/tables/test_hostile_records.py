"""Records in an output that anyone may have written: they are read in full or refused, never in part."""

import json
import os
from copy import deepcopy
from dataclasses import asdict
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featray.errors import OutputError
from featray.extract.plan import parse_plan
from featray.records import load
from featray.store.location import locate
from featray.tables.commits import parse_commit, parse_manifest
from featray.tables.holder import Holder
from featray.tables.landing import PartHeader
from featray.tables.layout import Output, Partition
from featray.tables.person_edits import parse_edits
from featray.tables.runs import marker, parse_marker
from featray.tables.tombstones import parse_erasures
from featray.video.container import parse_time_base
from tests.fixtures.chance import examples

VIDEO, KEY = "0123456789abcdef", "ab" * 32
PARTITION = Partition(Output(locate("/nowhere/out")), "test", "v28-01234567")
FILE = {
    "table": "faces",
    "path": "faces/dataset=test/release=v28-01234567/site=a%2Fb/part-0a1b-000.parquet",
    "rows": 3,
    "size_bytes": 5,
    "sha256": KEY,
}
COUNTS = {"video_id": VIDEO, "uri": "file:///a.mp4", "work_key": KEY, "status": "ok", "frames": 3, "faces": 3}
TRACKS = FILE | {
    "table": "tracks",
    "path": "tracks/dataset=test/release=v28-01234567/derivation=d-89abcdef/site=a%2Fb/part-derive-0a1b-000.parquet",
}
COMMIT = {
    "name": "0a1b",
    "run_id": "r-1",
    "published_at_us": 7,
    "files": [FILE, TRACKS],
    "videos": [COUNTS],
    "derived": {"d-89abcdef": 7},
}
MANIFEST = {
    "shard": "0a1b",
    "run_id": "r-1",
    "fields": {"site": "a/b"},
    "videos": [{"video_id": VIDEO, "uri": "u", "work_key": KEY, "fields": {"site": "a/b"}, "replaces": "0c"}],
}
MARKER = {
    "run_id": "r-1",
    "dataset": "test",
    "release": "v28-01234567",
    "started_at": "2026-01-01T00:00:00+00:00",
    "config": "x",
    "weights_trained": False,
    "frames": 3,
}
ERASURE = {"erasure_id": "e1", "video_id": VIDEO, "track_id": 3, "release": None, "at_us": 7, "reason": "asked"}
ERASURES = {"video_id": VIDEO, "erasures": [ERASURE]}
EDITS = {
    "edits": [
        {"kind": "merge", "tracks": [{"video_id": VIDEO, "track_id": 3}, {"video_id": VIDEO, "track_id": 4}]},
        {"kind": "split", "tracks": [{"video_id": VIDEO, "track_id": 3}], "stays": {"video_id": VIDEO, "track_id": 5}},
    ]
}
HOLDER = asdict(Holder.myself(3, "r-1"))


def places_of_commit(text):
    commit = parse_commit(PARTITION, "0a1b", text)
    for one in (commit, *commit.rewrites):
        yield PARTITION.commit(one.name)
        yield from (PARTITION.output.root.child(file.path) for file in one.files)
        yield from (PARTITION.landing(video.video_id, video.work_key) for video in one.videos)
        yield from (PARTITION.folder("tracks", {"derivation": name}) for name in one.derived)


def places_of_manifest(text):
    manifest = parse_manifest("0a1b", text)
    yield PARTITION.shard(manifest.shard)
    yield PARTITION.folder("faces", manifest.fields).child(f"part-{manifest.shard}-000.parquet")
    for video in manifest.videos:
        yield PARTITION.folder("faces", video.fields)
        yield PARTITION.landing(video.video_id, video.work_key)
        yield PARTITION.commit(video.replaces or "x")


def places_of_marker(text):
    row = parse_marker(PARTITION, "r-1", text)
    yield marker(PARTITION, row["run_id"])
    yield PARTITION.folder("runs").child(f"part-{row['run_id']}-000.parquet")


def places_of_erasures(text):
    for erasure in parse_erasures(VIDEO, text):
        yield PARTITION.commit(f"erase-{erasure.erasure_id}")
        yield PARTITION.output.internal("erased", f"{erasure.video_id}.json")


def places_of_edits(text):
    """Yield the places of the tracks in edits: edits name no other places, and track ids must fit an integer type."""
    for edit in parse_edits(text).edits:
        for track in (*edit.tracks, *([edit.stays] if edit.stays else [])):
            assert np.array([track.track_id], np.int32) >= 0
            yield PARTITION.landing(track.video_id, KEY)


def places_of_holder(text):
    yield PARTITION.lease(load(Holder, text).number)


PLAN = {
    "header": {
        "container": "mov",
        "codec": "h264",
        "time_base": "1/24",
        "duration_us": 5,
        "frames_promised": 6,
        "frames_estimated": 7,
        "other_streams": None,
    },
    "units": [{"index": 0, "end_pts": 9}, {"index": 1, "start_pts": 9, "first_index": 3}],
    "failure": None,
}
PART = {
    "video_id": VIDEO,
    "work_key": KEY,
    "unit": 0,
    "part": 0,
    "run_id": "r-1",
    "attempt": 1,
    "at_us": 7,
    "outcome": {"frames_decoded": 3, "picture": {"width": 4, "sar": "1/1"}, "failures": [["decode", "timeout", "x"]]},
}


def places_of_plan(text):
    """Yield the place of a plan: a plan names none, but its numbers must have valid sizes."""
    plan = parse_plan(text)
    assert parse_time_base(plan.header.time_base if plan.header else "1/1") >= 0
    for unit in plan.units:
        assert np.array([unit.start_pts or 0, unit.end_pts or 0, unit.first_index], np.int64).shape == (3,)
    yield PARTITION.landing(VIDEO, KEY)


def places_of_part(text):
    header = load(PartHeader, text)
    yield PARTITION.landing(header.video_id, header.work_key)
    assert datetime.fromtimestamp(header.at_us / 1e6, UTC).year < 10_000 and np.int32(header.attempt) >= 0
    assert not header.outcome or header.outcome.picture.keys() <= {"width", "height", "rotation", "mirrored", "sar"}


KINDS = {
    "commit": (COMMIT | {"rewrites": [COMMIT | {"name": "0c"}]}, places_of_commit),
    "manifest": (MANIFEST, places_of_manifest),
    "marker": (MARKER, places_of_marker),
    "erasures": (ERASURES, places_of_erasures),
    "edits": (EDITS, places_of_edits),
    "holder": (HOLDER, places_of_holder),
    "plan": (PLAN, places_of_plan),
    "part": (PART, places_of_part),
}

WAYS_OUT = ["..", "../x", "/etc/passwd", "a/../../b", "", ".", "x\0", "x\n", "a/b", "*", "[a]", "\x1b[2J", "'; --", '"']
HOSTILE = st.one_of(
    st.sampled_from(WAYS_OUT),
    st.text(max_size=20),
    st.integers(),
    st.sampled_from([1 << 64, -1, 10**30, float("nan"), float("inf"), True, None]),
    st.recursive(st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(WAYS_OUT), inner)),
)


def _leaves(value, path=()):
    """Yield the paths of all values in a record."""
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from _leaves(value[key], (*path, key))


@st.composite
def changed(draw, record):
    """Draw the record as JSON with one to three values replaced, dropped or renamed, or with its text cut."""
    record = deepcopy(record)
    for _ in range(draw(st.integers(1, 3))):
        *above, last = draw(st.sampled_from([path for path in _leaves(record) if path]))
        target = record
        for key in above:
            target = target[key]
        what = draw(st.sampled_from(["replace", "replace", "drop", "rename"]))
        if what == "replace":
            target[last] = draw(HOSTILE)
        elif what == "drop" or isinstance(target, list):
            del target[last]
        else:
            target[draw(st.sampled_from(WAYS_OUT))] = target.pop(last)
        if not record:
            break
    text = json.dumps(record).encode()
    return text[: draw(st.integers(0, len(text)))] if draw(st.integers(0, 9)) == 0 else text


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_record_is_read(kind):
    record, places = KINDS[kind]
    assert list(places(json.dumps(record).encode()))


@pytest.mark.parametrize("kind", KINDS)
@examples(150)
@given(data=st.data())
def test_a_changed_record_is_refused_or_stays_inside(kind, data):
    record, places = KINDS[kind]
    text = data.draw(st.binary(max_size=50) if data.draw(st.integers(0, 9)) == 0 else changed(record))
    try:
        found = list(places(text))
    except ValueError:
        return
    for place in found:
        inside = os.path.normpath(place.path)
        assert inside == place.path.rstrip("/") and inside.startswith("/nowhere/out/"), (text, place.path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "text",
    [b"", b"null", b"[]", b"7", b'"x"', b"{}", b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe", b"9" * 10_000],
    ids=["empty", "null", "list", "number", "text", "nothing", "deep", "deeper", "binary", "long"],
)
def test_junk_is_refused(kind, text):
    with pytest.raises(ValueError):
        list(KINDS[kind][1](text))


@pytest.mark.parametrize("name", ["..", "../x", "a/../b", ".", "x\0y"])
def test_no_place_is_above_its_folder(name):
    with pytest.raises(OutputError, match="leads out"):
        PARTITION.output.root.child("runs", name)


@pytest.mark.parametrize("name", ["dataset", "Video_ID", "faces", "pts_us"])
def test_no_path_field_is_called_like_a_column(name):
    for record in (
        MANIFEST | {"fields": {name: "x"}},
        MANIFEST | {"videos": [MANIFEST["videos"][0] | {"fields": {name: "x"}}]},
    ):
        with pytest.raises(ValueError, match="called like a table's column"):
            parse_manifest(MANIFEST["shard"], json.dumps(record).encode())
