import datetime
import decimal
import io
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featray.config import DecodeConfig, InputConfig
from featray.errors import ErrorCode, VideoError
from featray.extract.plan import open_source, plan_video
from featray.records import dump, load
from featray.sources import tars
from featray.sources.listing import Video, list_videos


def videos(path, **options):
    return list(list_videos(InputConfig(uris=[str(path)], **options)))


def read(video):
    with open_source(load(Video, dump(video)), {}) as file:
        return file.read()


@pytest.fixture
def tar(tmp_path, face_clip, clips):
    path = tmp_path / "shard.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(face_clip, "0001.mp4")
        archive.add(clips / "no_face.mp4", "0002.mp4")
        for name, kind in (
            ("0001.json", tarfile.REGTYPE),
            ("/etc/link.mp4", tarfile.SYMTYPE),
            ("dev.mp4", tarfile.CHRTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        for name in ("../../../evil.mp4", "/abs.mp4", "0001.mp4"):
            info = tarfile.TarInfo(name)
            info.size = 4
            archive.addfile(info, io.BytesIO(b"evil"))
    return path


def test_members_of_a_tar_are_byte_ranges(tar, face_clip, clips):
    found = videos(tar)
    assert [v.member for v in found[:4]] == ["0001.mp4", "0002.mp4", "../../../evil.mp4", "/abs.mp4"]
    assert found[4].member.startswith("0001.mp4@"), "a name that comes twice is two videos"
    assert len({v.video_id for v in found}) == 5
    assert read(found[0]) == face_clip.read_bytes()
    assert read(found[1]) == (clips / "no_face.mp4").read_bytes()
    assert read(found[4]) == b"evil"
    assert found[0].uri == f"file://{tar}" and found[0].size_bytes == face_clip.stat().st_size


def test_a_member_decodes_like_the_file(tar, face_clip):
    member, file = videos(tar)[0], videos(face_clip)[0]
    settings = DecodeConfig(unit_frames=100)
    assert plan_video(member, settings, {}) == plan_video(file, settings, {})


def test_content_follows_the_tar(tar):
    before = [v.content_id for v in videos(tar)]
    assert len(set(before)) == 5
    with tarfile.open(tar, "a") as archive:
        info = tarfile.TarInfo("late.mp4")
        archive.addfile(info, io.BytesIO())
    assert not set(before) & {v.content_id for v in videos(tar)}


@pytest.mark.parametrize("cut", [0, 100, 5000])
def test_a_damaged_tar_is_accounted_for(tmp_path, tar, cut):
    (tmp_path / "bad.tar").write_bytes(b"\xff" * 512 + tar.read_bytes()[:cut])
    (video,) = videos(tmp_path / "bad.tar")
    assert video.problem[0] == ErrorCode.BAD_SHARD
    assert plan_video(video, DecodeConfig(), {}).failure[1] == "bad_shard"


def test_a_tar_that_breaks_off_keeps_its_first_members(tmp_path, tar, face_clip):
    size = face_clip.stat().st_size
    (tmp_path / "bad.tar").write_bytes(tar.read_bytes()[: 512 + size // 2])
    found = videos(tmp_path / "bad.tar")
    assert found[0].member == "0001.mp4"
    assert len(read(found[0])) < size


def small_tar(path, *names, data=b"x" * 700):
    with tarfile.open(path, "w") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path.read_bytes()


MEMBER_BYTES = 512 + 1024
"""Size of a member of `small_tar`: its header, and 700 bytes padded to blocks."""


def test_a_tar_says_where_it_is_damaged(tmp_path):
    data = small_tar(tmp_path / "s.tar", "a.mp4", "b.mp4", "c.mp4")
    (tmp_path / "s.tar").write_bytes(data[:MEMBER_BYTES] + b"\xff" * 512 + data[MEMBER_BYTES + 512 :])
    *members, problem = videos(tmp_path / "s.tar")
    assert [v.member for v in members] == ["a.mp4"]
    assert problem.problem[0] == ErrorCode.BAD_SHARD
    assert f"at byte {MEMBER_BYTES}, after member a.mp4" in problem.problem[1]


@pytest.mark.parametrize("over", [1, 300, 512 + 100, MEMBER_BYTES - 1])
def test_a_tar_that_is_cut_off_behind_a_member_says_so(tmp_path, over):
    data = small_tar(tmp_path / "s.tar", "a.mp4", "b.mp4", "c.mp4")
    (tmp_path / "s.tar").write_bytes(data[: MEMBER_BYTES + over])
    found = videos(tmp_path / "s.tar")
    assert found[0].member == "a.mp4" and found[-1].problem[0] == ErrorCode.BAD_SHARD
    assert "after member" in found[-1].problem[1]


def test_a_damaged_pax_header_costs_what_is_behind_it_and_no_more(tmp_path):
    data = small_tar(tmp_path / "s.tar", "a.mp4", f"{'long' * 40}.mp4", "c.mp4")
    at = data.index(b"././@PaxHeader") + 1024  # the header that the pax record describes
    (tmp_path / "s.tar").write_bytes(data[:at] + b"\xff" * 512 + data[at + 512 :])
    first, problem = videos(tmp_path / "s.tar")
    assert first.member == "a.mp4" and "after member a.mp4" in problem.problem[1]


@pytest.mark.parametrize("end", [0, 100, 512, 1024])
def test_a_tar_without_its_end_blocks_is_whole_if_its_last_member_is(tmp_path, end):
    data = small_tar(tmp_path / "s.tar", "a.mp4", "b.mp4")
    (tmp_path / "s.tar").write_bytes(data[: 2 * MEMBER_BYTES + end])
    assert [(v.member, v.problem) for v in videos(tmp_path / "s.tar")] == [("a.mp4", None), ("b.mp4", None)]


def test_tars_that_were_joined_are_read_one_after_the_other(tmp_path):
    one = small_tar(tmp_path / "s.tar", "a.mp4", "b.mp4", data=b"1" * 700)
    two = small_tar(tmp_path / "s.tar", "a.mp4", "c.mp4", data=b"2" * 700)
    (tmp_path / "s.tar").write_bytes(one + two)
    found = videos(tmp_path / "s.tar")
    assert [v.member for v in found] == ["a.mp4", "b.mp4", f"a.mp4@{len(one) + 512}", "c.mp4"]
    assert [read(v)[:1] for v in found] == [b"1", b"1", b"2", b"2"]


def test_what_is_no_tar_behind_the_end_of_one_is_said(tmp_path):
    data = small_tar(tmp_path / "s.tar", "a.mp4")
    (tmp_path / "s.tar").write_bytes(data + b"something else")
    member, problem = videos(tmp_path / "s.tar")
    assert member.member == "a.mp4" and f"at byte {len(data)}, after member a.mp4" in problem.problem[1]


def test_a_members_name_that_is_not_utf8_is_escaped(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as archive:
        for name in ("café.mp4", "b.mp4"):
            info = tarfile.TarInfo(name)
            info.size = 3
            archive.addfile(info, io.BytesIO(b"abc"))
    found = videos(tmp_path / "s.tar")
    assert [(v.member, read(v)) for v in found] == [("caf\\xe9.mp4", b"abc"), ("b.mp4", b"abc")]


def test_too_many_members_end_in_a_row(tmp_path, monkeypatch):
    monkeypatch.setattr(tars, "MAX_ENTRIES", 10)
    with tarfile.open(tmp_path / "many.tar", "w") as archive:
        for i in range(50):
            archive.addfile(tarfile.TarInfo(f"{i}.mp4"))
    found = videos(tmp_path / "many.tar")
    assert len(found) == 11
    assert "more than 10 members" in found[-1].problem[1]


def test_a_parquet_column_of_bytes(tmp_path, face_clip):
    data = face_clip.read_bytes()
    table = pa.table({"id": [1, 2, 3], "video": pa.array([data, b"no video", None], pa.binary())})
    pq.write_table(table, tmp_path / "v.parquet", row_group_size=2)
    found = videos(tmp_path / "v.parquet")
    assert [v.member for v in found] == ["row 0", "row 1", "row 2"]
    assert [read(v) for v in found] == [data, b"no video", b""]
    assert plan_video(found[1], DecodeConfig(), {}).failure[1] == "not_a_video"


def test_a_parquet_value_that_would_not_fit_is_refused_unread(tmp_path):
    bomb = pa.table({"video": pa.array([b"\0" * (64 << 20)], pa.binary())})
    pq.write_table(bomb, tmp_path / "bomb.parquet", compression="zstd")
    assert (tmp_path / "bomb.parquet").stat().st_size < 1 << 20
    (video,) = videos(tmp_path / "bomb.parquet")
    from featray.extract import plan

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "MAX_VALUE_BYTES", 1 << 20)
        with pytest.raises(VideoError) as caught:
            open_source(video, {})
    assert caught.value.code is ErrorCode.TOO_LARGE


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_manifests_name_videos_and_carry_columns(tmp_path, face_clip, kind):
    (tmp_path / "near.mp4").write_bytes(b"x")
    rows = [
        {"uri": str(face_clip), "who": "anna"},
        {"uri": "near.mp4", "who": "ben"},
        {"uri": "/gone.mp4", "who": "cem"},
    ]
    path = tmp_path / f"list.{kind}"
    if kind == "csv":
        path.write_text("uri,who\n" + "".join(f"{row['uri']},{row['who']}\n" for row in rows))
    elif kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    found = videos(path)
    assert [v.extra for v in found] == [{"who": "anna"}, {"who": "ben"}, {"who": "cem"}]
    assert found[0].uri == f"file://{face_clip}" and found[1].uri == f"file://{tmp_path}/near.mp4"
    assert found[2].problem[0] == ErrorCode.FETCH_FAILED
    assert [v.member for v in found] == [None] * 3


def test_a_column_by_name_and_one_that_is_not_there(tmp_path, face_clip):
    (tmp_path / "list.csv").write_text(f"clip,n\n{face_clip},1\n")
    assert videos(tmp_path / "list.csv", column="clip")[0].uri == f"file://{face_clip}"
    (missing,) = videos(tmp_path / "list.csv")
    assert "name it as input.column; it has: clip, n" in missing.problem[1]


def test_bad_rows_are_accounted_for(tmp_path, face_clip):
    (tmp_path / "list.jsonl").write_text(f'{{"uri": "{face_clip}"}}\nnot json\n{{"uri": 5}}\n')
    found = videos(tmp_path / "list.jsonl")
    assert [v.problem and v.problem[0] for v in found] == [None, "bad_manifest_row", "bad_manifest_row"]


def test_a_prefix_takes_tars_but_no_tables(tar):
    (tar.parent / "metadata.csv").write_text("uri\nx.mp4\n")
    assert {v.uri for v in videos(f"{tar.parent}/")} == {f"file://{tar}"}


def test_columns_of_any_type_become_plain_json(tmp_path, face_clip):
    row = {
        "uri": str(face_clip),
        "when": datetime.datetime(2024, 5, 6, 7, 8, 9, tzinfo=datetime.UTC),
        "day": datetime.date(2024, 5, 6),
        "price": decimal.Decimal("1.50"),
        "thumbnail": b"\xff\xd8",
        "score": float("nan"),
        "limits": [1.0, float("inf")],
        "inner": {"day": datetime.date(2024, 5, 6), "raw": b"x", "n": 3},
        "flag": True,
        "none": None,
    }
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "list.parquet")
    (video,) = videos(tmp_path / "list.parquet")
    assert video.extra == {
        "when": "2024-05-06 07:08:09+00:00",
        "day": "2024-05-06",
        "price": "1.50",
        "score": None,
        "limits": [1.0, None],
        "inner": {"day": "2024-05-06", "n": 3},
        "flag": True,
        "none": None,
    }
    assert load(Video, dump(video)) == video
    json.dumps(video.extra, allow_nan=False)


def test_a_date_that_python_does_not_have_ends_in_a_row(tmp_path, face_clip):
    days = pa.array([2**31 - 1], pa.int32()).cast(pa.date32())
    pq.write_table(pa.table({"uri": [str(face_clip)], "day": days}), tmp_path / "list.parquet")
    (video,) = videos(tmp_path / "list.parquet")
    text = "row 0 has a value that Python cannot represent (OverflowError)"
    assert video.problem == (ErrorCode.BAD_MANIFEST_ROW, text)


def test_a_uri_among_spaces_is_that_uri(tmp_path, face_clip):
    (tmp_path / "list.csv").write_text(f"uri,n\n  file://{face_clip} ,1\n")
    (video,) = videos(tmp_path / "list.csv")
    assert (video.uri, video.problem) == (f"file://{face_clip}", None)


@pytest.mark.parametrize(
    "uri", ["https://[bad/x.mp4?sig=hunter2", "https://host:port/x.mp4", "/a\0b.mp4", "/\ud800.mp4", "/\udce9.mp4"]
)
def test_a_uri_that_nobody_takes_is_a_row_and_the_others_go_on(tmp_path, face_clip, uri):
    rows = [{"uri": uri}, {"uri": str(face_clip)}]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    bad, good = videos(tmp_path / "list.jsonl", manifest_places=["https://"])
    assert bad.problem[0] == ErrorCode.FETCH_FAILED and good.problem is None
    said = f"{bad.uri} {bad.problem[1]}"
    assert "hunter2" not in said and said.encode()
    assert plan_video(load(Video, dump(bad)), DecodeConfig(), {}).failure[1] == "fetch_failed"
