"""Manifests with mistakes or hostile content: a bad row becomes an error row, and the next one is read."""

import io
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featray.config import DecodeConfig, InputConfig
from featray.errors import ErrorCode
from featray.extract.plan import open_source, plan_video
from featray.records import dump, load
from featray.sources import manifests, tables
from featray.sources.listing import Video, list_videos

BAD = ErrorCode.BAD_MANIFEST_ROW


@pytest.fixture
def folder(tmp_path, clips):
    for name in ("a.mp4", "b c.mp4", "d.mp4"):
        (tmp_path / name).write_bytes((clips / "no_face.mp4").read_bytes())
    return tmp_path


def videos(path, **options):
    return list(list_videos(InputConfig(uris=[str(path)], **options)))


def outcomes(path, **options):
    """Return the name of each video that may be read, and the message of each row that may not."""
    found = videos(path, **options)
    for video in found:
        assert load(Video, dump(video)) == video
        assert video.problem is None or len(video.problem[1]) < 20_000
    return [video.problem[1] if video.problem else video.uri.rsplit("/", 1)[-1] for video in found]


@pytest.mark.parametrize(
    "row, said",
    [
        ("[" * 100_000, "line 2 is nested too deeply"),
        ('{"uri": "a.mp4", "x": ' + "[" * 900 + "]" * 900 + "}", "line 2 is nested too deeply"),
        ('{"uri": "a.mp4", "x": ' + "[" * 40 + "]" * 40 + "}", "line 2 is nested too deeply"),
        ('{"uri": "a.mp4", "x": ' + "1" * 5000 + "}", "line 2 is not a JSON object"),
        ("[]", "line 2 is not a JSON object"),
        ('{"uri": ["a.mp4"]}', "line 2 has no URI in column uri"),
        ('{"uri": " "}', "line 2 has no URI in column uri"),
        ('{"clip": "a.mp4"}', "line 2 has no column of URIs; name it as input.column; it has: clip"),
        ('{"uri": "' + "a" * 9000 + '"}', "line 2 has a URI of 9000 characters; the limit is 8192"),
        ('{"uri": "a.mp4", "x": "' + "y" * (1 << 20) + '"}', "line 2 has more than 1048576 characters"),
    ],
)
def test_a_bad_line_is_a_row_and_the_next_is_read(folder, row, said):
    (folder / "list.jsonl").write_text(f'{{"uri": "a.mp4"}}\n{row}\n{{"uri": "d.mp4"}}\n')
    assert outcomes(folder / "list.jsonl") == ["a.mp4", said, "d.mp4"]
    bad = videos(folder / "list.jsonl")[1]
    assert bad.problem[0] == BAD and plan_video(bad, DecodeConfig(), {}).failure.code == BAD


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_line_of_gigabytes_is_not_held(folder, kind):
    head = "uri,x\na.mp4,1\n" if kind == "csv" else '{"uri": "a.mp4"}\n'
    with (folder / f"list.{kind}").open("wb") as file:
        file.write(head.encode())
        file.truncate(5 << 30)  # a sparse file: no disk is used
    tracemalloc.start()
    said = outcomes(folder / f"list.{kind}")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert said[0] == "a.mp4" and len(said) == 2
    assert "reading stops there" in said[1]
    assert peak < 32 << 20


def test_a_quote_that_is_not_closed_costs_rows_and_not_the_file(folder):
    text = "uri,x\na.mp4,1\n" + '"a.mp4","' + "x\n" * 66_000 + "d.mp4,2\n"
    (folder / "list.csv").write_text(text)
    said = outcomes(folder / "list.csv")
    assert said[0] == "a.mp4" and "d.mp4" in said
    assert any("field larger than field limit" in text for text in said)


def test_a_row_of_many_short_lines_is_bounded(folder):
    (folder / "list.csv").write_text("uri,x\n" + '"x\n",' * 215_000 + "\nd.mp4,2\n")
    said = outcomes(folder / "list.csv")
    assert any("belongs to a row of more than 1048576 characters" in text for text in said)


@pytest.mark.parametrize(
    "name, text, names",
    [
        ("bom.jsonl", b'\xef\xbb\xbf{"path": "a.mp4"}\n{"path": "d.mp4"}\n', ["a.mp4", "d.mp4"]),
        ("bom.csv", b"\xef\xbb\xbfpath\na.mp4\n", ["a.mp4"]),
        ("semicolon.csv", b"path;label\na.mp4;x\nb c.mp4;y\n", ["a.mp4", "b c.mp4"]),
        ("tabs.csv", b"label\tpath\nx\ta.mp4\n", ["a.mp4"]),
        ("list.tsv", b"path\tlabel\na.mp4\tx\n", ["a.mp4"]),
        ("utf16.csv", "path,label\na.mp4,Z\u00fcrich\n".encode("utf-16"), ["a.mp4"]),
        ("utf16.jsonl", '{"path": "a.mp4"}\n'.encode("utf-16"), ["a.mp4"]),
        ("cr.csv", b"path\ra.mp4\rd.mp4\r", ["a.mp4", "d.mp4"]),
    ],
)
def test_what_spreadsheets_write_is_read(folder, name, text, names):
    (folder / name).write_bytes(text)
    assert outcomes(folder / name) == names


@pytest.mark.parametrize(
    "name, text, said",
    [
        ("latin1.csv", "path,label\na.mp4,Z\u00fcrich\nd.mp4,Bern\n".encode("latin-1"), "line 2 is not UTF-8; save"),
        ("list.json", b'[{"path": "a.mp4"}]', "a JSON file; write one object per line and name the file .jsonl"),
        ("list.txt", b"a.mp4\n", "a text file; make its first line `path` and name the file .csv"),
        ("none.csv", b"clip;n\na.mp4;1\n", "no column of URIs; name it as input.column; it has: clip;n"),
        ("empty.csv", b"", "no column of URIs; name it as input.column; it has: none"),
        ("utf16le.csv", "path\na.mp4\n".encode("utf-16-le"), "no column of URIs; name it as input.column"),
    ],
)
def test_what_is_not_read_is_said_in_a_line_that_names_the_cause(folder, name, text, said):
    (folder / name).write_bytes(text)
    assert outcomes(folder / name)[0].startswith(said)


def test_a_named_column_finds_the_delimiter(folder):
    (folder / "list.csv").write_text("clip;n\na.mp4;1\n")
    (video,) = videos(folder / "list.csv", column="clip")
    assert video.extra == {"n": "1"} and video.problem is None


def test_one_file_under_many_names_is_one_video(folder):
    (folder / "x").mkdir()
    names = [
        "a.mp4",
        "./a.mp4",
        f"../{folder.name}/a.mp4",
        f"{folder}/a.mp4",
        f"file://{folder}/x/../a.mp4",
        "x/../a.mp4",
    ]
    (folder / "dots.csv").write_text("path\n" + "\n".join(names) + "\n")
    assert outcomes(folder / "dots.csv") == ["a.mp4"]
    assert len(list(list_videos(InputConfig(uris=[str(folder / "a.mp4"), f"{folder}/x/../a.mp4"])))) == 1


def test_a_row_that_names_a_folder_is_a_bad_row(folder):
    (folder / "list.csv").write_text(f"path\nfile://{folder}\n..\na.mp4\n")
    first, second, good = videos(folder / "list.csv")
    assert good.problem is None
    for bad in (first, second):
        assert bad.problem[0] == BAD and "is a folder; a row names one video" in bad.problem[1]


def test_dots_behind_a_link_stay(folder):
    (folder / "far" / "deep").mkdir(parents=True)
    (folder / "far" / "a.mp4").write_bytes(b"another")
    (folder / "near").symlink_to(folder / "far" / "deep")
    (folder / "list.csv").write_text("path\nnear/../a.mp4\n")
    (video,) = videos(folder / "list.csv")
    assert video.size_bytes == 7, "as the disk reads it, not as text does"


def write(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


def test_a_time_zone_that_nobody_knows_is_a_bad_row(folder):
    when = pa.array([1, None], pa.timestamp("us", tz="Mars/Phobos"))
    path = write(folder / "list.parquet", uri=["a.mp4", "d.mp4"], when=when)
    assert outcomes(path) == ["row 0 has a value that Python cannot represent (UnknownTimeZoneError)", "d.mp4"]
    assert videos(path)[0].problem[0] == BAD


def test_a_text_that_is_no_text_is_a_bad_row(folder):
    uris = pa.array([b"a.mp4", b"\xff.mp4", b"d.mp4"], pa.binary()).view(pa.string())
    assert outcomes(write(folder / "list.parquet", uri=uris)) == [
        "a.mp4",
        "row 1 has a value that Python cannot represent (UnicodeDecodeError)",
        "d.mp4",
    ]


STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def test_the_structs_of_hugging_face_are_read(folder):
    data = (folder / "a.mp4").read_bytes()
    rows = [{"bytes": data, "path": "a.mp4"}, {"bytes": b"no video", "path": None}]
    inner = pa.array([{"x": [1], "y": "z"}] * 2)  # leaves before it: columns are found by name
    path = write(folder / "hf.parquet", inner=inner, video=pa.array(rows, STRUCT), label=[0, 1])
    first, second = videos(path)
    assert (first.member, second.member) == ("row 0", "row 1")
    with open_source(load(Video, dump(first)), {}) as file:
        assert file.read() == data
    assert plan_video(second, DecodeConfig(), {}).failure.code == ErrorCode.NOT_A_VIDEO


def test_structs_without_bytes_name_files(folder):
    rows = [{"bytes": None, "path": "a.mp4"}, {"bytes": None, "path": None}]
    path = write(folder / "hf.parquet", video=pa.array(rows, STRUCT))
    assert outcomes(path) == ["a.mp4", "row 1 has no URI in column video"]


def test_bytes_win_over_a_url(folder):
    data = (folder / "a.mp4").read_bytes()
    path = write(folder / "both.parquet", url=["https://example.com/a.mp4"], video=pa.array([data], pa.binary()))
    (video,) = videos(path)
    with open_source(video, {}) as file:
        assert file.read() == data


def peak_of(path, **options):
    tracemalloc.start()
    before = pa.total_allocated_bytes()
    most, count, said = 0, 0, set()
    for entry in tables.read_table(io.BytesIO(path.read_bytes()), options.get("column")):
        count += 1
        most = max(most, pa.total_allocated_bytes() - before)
        if entry.problem:
            said.add(entry.problem[1])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return count, most + peak, said


def test_a_table_that_says_it_has_more_rows_than_bytes_is_refused(folder):
    many = pa.DictionaryArray.from_arrays(pa.array([0] * 2_000_000, pa.int32()), pa.array(["a.mp4"]))
    nothing = pa.nulls(3_000_000, pa.binary())
    for name, columns in (("same", {"uri": many}), ("nulls", {"video": nothing})):
        path = write(folder / f"{name}.parquet", **columns)
        assert path.stat().st_size < 100_000
        count, peak, (said,) = peak_of(path)
        assert count == 1 and "rows" in said and peak < 32 << 20


@pytest.mark.parametrize("nested", [False, True])
def test_a_text_that_many_rows_share_is_not_unfolded(folder, nested):
    """4000 rows of one text of 4 MB: 16 GB, from a file of some kilobytes."""
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 4000, pa.int32()), pa.array(["x" * (4 << 20)]))
    if nested:
        texts = pa.ListArray.from_arrays(pa.array([*range(4001)], pa.int32()), texts)
    path = write(folder / "list.parquet", uri=[f"{i}.mp4" for i in range(4000)], note=texts)
    assert path.stat().st_size < 300_000
    count, peak, said = peak_of(path)
    assert count == 4000 and len(said) == 4000
    assert all("bytes; the limit is 1048576" in text for text in said)
    assert peak < 128 << 20


def test_lists_without_end_are_refused(folder, monkeypatch):
    monkeypatch.setattr(tables, "_MAX_REPEATED", 1000)
    numbers = pa.array([[0] * 5000], pa.list_(pa.int8()))
    (said,) = outcomes(write(folder / "list.parquet", uri=["a.mp4"], n=numbers))
    assert "column n.list.element has 5000 values in it; the limit is 1000" in said


def test_the_size_of_a_row_is_that_of_what_it_unfolds_to():
    rows = pa.table(
        {
            "a": pa.array(["x" * 1000, None]).dictionary_encode(),
            "b": pa.array([["y" * 10] * 5, None]),
            "c": pa.array([{"z": "z" * 7}, None]),
            "d": pa.array([[("k", "v" * 50)], None], pa.map_(pa.string(), pa.string())),
            "e": pa.array([b"b" * 30, b""]),
            "f": pa.array([1, 2]),
        }
    )
    for name in rows.column_names:
        long, short = tables._row_bytes(rows[name].combine_chunks())
        assert long >= short and long <= 1200
    assert tables._row_bytes(rows["a"].combine_chunks())[0] >= 1000
    assert tables._row_bytes(rows["b"].slice(1).combine_chunks())[0] < 100


def test_the_limits_of_a_row_hold_for_a_line():
    assert manifests.MAX_ROW_CHARS == 1 << 20 and manifests.MAX_URI_CHARS < manifests.MAX_ROW_CHARS


def test_the_other_columns_of_a_table_that_holds_videos(folder):
    """Plain values are kept, as in a table that names videos; links lose logins and signatures."""
    data = (folder / "a.mp4").read_bytes()
    media = pa.array([{"bytes": data, "path": "a.mp4"}] * 2, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    link = "https://me:pw@host/a.mp4?X-Amz-Signature=abc"
    others = {"label": [0, 1], "note": [{"who": "é"}, None], "url": [link, "https://host/watch?v=abc"]}
    for name, column in (("struct", media), ("bytes", pa.array([data] * 2, pa.binary()))):
        path = write(folder / f"{name}.parquet", video=column, thumbnail=pa.array([b"x"] * 2, pa.binary()), **others)
        found = [video.extra for video in videos(path)]
        assert found[0] == {"label": 0, "note": {"who": "é"}, "url": "https://host/a.mp4?***"}
        assert found[1] == {"label": 1, "note": None, "url": "https://host/watch?v=abc"}


def test_columns_that_unfold_leave_the_videos_of_a_table(folder, monkeypatch):
    data = pa.array([(folder / "a.mp4").read_bytes()] * 2, pa.binary())
    days = pa.array([0, 2**60], pa.timestamp("ms"))
    first, second = videos(write(folder / "days.parquet", video=data, day=days))
    assert first.extra == {"day": "1970-01-01 00:00:00"} and first.problem is None
    assert second.problem is not None and "row 1 has a value that Python cannot represent" in second.problem[1]
    monkeypatch.setattr(tables, "_MAX_REPEATED", 1000)
    lists = pa.array([[0] * 5000, [1]], pa.list_(pa.int8()))
    said, *read = videos(write(folder / "list.parquet", video=data, n=lists))
    assert "used without their other columns" in said.problem[1] and [video.extra for video in read] == [{}, {}]


def test_a_row_with_more_cells_than_the_first_line_is_refused_and_loses_no_words(folder):
    path = folder / "m.csv"
    path.write_text("uri,participant,note\na.mp4,p1,calm, then sad\nb c.mp4,p2,calm,,\nd.mp4,p3\n")
    assert outcomes(path) == [
        "line 2 has 4 cells, and the first line 3; put cells that contain ',' in double quotes",
        "b c.mp4",
        "d.mp4",
    ]
    path.write_text("uri;rest\na.mp4;0-2; 3-4\n")
    assert outcomes(path) == ["line 2 has 3 cells, and the first line 2; put cells that contain ';' in double quotes"]


def test_a_video_listed_again_with_other_values_is_told(folder, caplog):
    path = folder / "m.csv"
    path.write_text("uri,participant\na.mp4,p1\na.mp4,p1\nd.mp4,p3\n")
    assert outcomes(path) == ["a.mp4", "d.mp4"] and caplog.text == "", "nothing is lost"
    path.write_text("uri,participant\na.mp4,p1\na.mp4,p2\nd.mp4,p3\n")
    assert [video.extra for video in videos(path)] == [{"participant": "p1"}, {"participant": "p3"}]
    assert "1 row left out of the input, such as one of" in caplog.text and "a.mp4" in caplog.text
