"""Every kind of damage is found, and reported with file, video and row."""

import json
import re
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from featray.cli import main
from featray.records import digest_of_extra
from featray.tables.commits import ManifestVideo, ShardManifest, write_commit, write_manifest
from featray.tables.lease import UnheldPartition
from featray.upkeep.verify import verify
from tests.fixtures.plugin import LONG
from tests.fixtures.tampering import commit_of, file_of, path_of, sign, tamper

pytestmark = pytest.mark.slow


def lines(output):
    return [problem.line() for problem in verify(output).problems]


def found(every, *parts):
    """Return the first line that contains all these parts, or fail with all lines."""
    for line in every:
        if all(part in line for part in parts):
            return line
    raise AssertionError(f"none of {every} has {parts}")


def test_a_published_output_is_sound(out):
    report = verify(out)
    assert ([p.line() for p in report.problems], report.unfinished) == ([], [])
    assert (report.partitions, report.files, report.videos) == (1, 17, 5)
    size = sum(p.stat().st_size for p in Path(out.root.path).rglob("*.parquet"))
    assert report.bytes == size
    rows = sum(pq.read_metadata(p).num_rows for p in Path(out.root.path).rglob("*.parquet"))
    assert report.rows == rows > 100


def test_a_changed_byte_in_each_of_several_files(out, partition):
    files = [file_of(partition, table) for table in ("faces", "mesh", "frames", "videos", "errors", "runs")]
    for file in files:
        data = bytearray(path_of(partition, file).read_bytes())
        data[len(data) // 3] ^= 1
        path_of(partition, file).write_bytes(data)
    every = lines(out)
    for file in files:
        assert re.search("sha256 .* it was changed", found(every, file.path, "has sha256"))


@pytest.mark.parametrize("table", ["faces", "runs"])
def test_any_changed_byte_is_said_and_nothing_more_breaks(out, partition, table):
    """Some damage to a file's structure makes DuckDB invalidate its whole database."""
    file = file_of(partition, table)
    place = path_of(partition, file)
    whole = place.read_bytes()
    for at in range(4, len(whole), max(1, len(whole) // (200 if LONG else 4))):
        data = bytearray(whole)
        data[at] ^= 0x81
        place.write_bytes(data)
        assert re.search("sha256 .* it was changed", found(lines(out), file.path, "has sha256")), at


@pytest.mark.parametrize("tables", [("faces", "runs"), ("videos",)])
def test_a_missing_file(out, partition, tables):
    files = [file_of(partition, table) for table in tables]
    for file in files:
        path_of(partition, file).unlink()
    every = lines(out)
    for file in files:
        assert "it is missing" in found(every, file.path)


def test_a_file_that_breaks_off(out, partition):
    file = file_of(partition, "blendshapes")
    data = path_of(partition, file).read_bytes()
    path_of(partition, file).write_bytes(data[: len(data) // 2])
    every = lines(out)
    assert f"has {len(data) // 2:,} bytes, the commit says {len(data):,}" in found(every, file.path, "bytes")
    assert "not a readable Parquet" in found(every, file.path, "Parquet")


@pytest.mark.parametrize("signed", [False, True])
def test_a_row_too_many(out, partition, signed):
    path = tamper(partition, "faces", lambda rows: [rows[0], *rows], signed=signed)
    first = pq.read_table(path_of(partition, file_of(partition, "faces"))).to_pylist()[0]
    row = f"video {first['video_id']} frame_index {first['frame_index']} face_index 0: appears 2 times in faces"
    every = lines(out)
    found(every, path, row)
    found(every, path, first["video_id"], f"frame_index {first['frame_index']}", "frames.faces is 1, rows in faces 2")
    found(every, first["video_id"], "videos.faces is")
    if not signed:
        found(every, path, "rows, the commit says")


@pytest.mark.parametrize("table", ["frames", "mesh", "videos", "events"])
def test_a_filter_that_hides_rows_from_a_search(out, partition, table):
    """Bloom filters: all rows and all statistics are right, and a search for a video finds nothing."""
    file = file_of(partition, table)
    place = path_of(partition, file)
    sql = f"SELECT bloom_filter_offset AS at, bloom_filter_length AS n FROM parquet_metadata('{place}')"
    filters = duckdb.sql(f"{sql} WHERE path_in_schema = 'video_id' AND bloom_filter_offset IS NOT NULL").fetchall()
    data = bytearray(place.read_bytes())
    for at, length in filters:
        data[at + length - 32 : at + length] = bytes(32)  # the last of its blocks, after its head
    assert filters
    place.write_bytes(data)
    sign(partition, file)
    assert "finds 0 of its" in found(lines(out), file.path, "the file's index is wrong")


def test_of_a_long_list_a_part_is_quoted(out, partition):
    tamper(partition, "mesh", lambda rows: [row | {"mesh_xyz": [0.5] * 100_000} for row in rows], signed=True)
    line = found(lines(out), "mesh_xyz is [0.5, 0.5")
    assert len(line) < 500


def test_times_that_go_back(out, partition):
    def edit(rows):
        rows[-1]["pts_us"] = rows[0]["pts_us"]
        return rows

    path = tamper(partition, "frames", edit, signed=True)
    last, before = (rows := pq.read_table(path_of(partition, file_of(partition, "frames"))).to_pylist())[-1], rows[-2]
    row = f"video {last['video_id']} frame_index {last['frame_index']}"
    found(lines(out), path, f"{row}: pts_us is before that of frame {before['frame_index']}")


def test_extra_is_compared_with_the_digest_in_the_commit(out, partition):
    tamper(partition, "videos", lambda rows: [row | {"extra": '{"participant": "p1"}'} for row in rows], signed=True)
    commit = commit_of(partition, "videos")
    known = [replace(video, extra_digest=digest_of_extra('{"participant": "p2"}')) for video in commit.videos]
    write_commit(UnheldPartition(partition), replace(commit, videos=known))
    assert "extra is not what the commit has a digest of" in found(
        lines(out), commit.videos[0].video_id, "extra is not"
    )


def test_truncated_without_a_value_contradicts_an_error(out, partition):
    def edit(rows):
        return [row | {"error_code": "truncated"} for row in rows]

    tamper(partition, "errors", edit, signed=True)
    tamper(partition, "videos", lambda rows: [row | {"truncated": None} for row in rows], signed=True)
    assert "contradicts its errors rows" in found(lines(out), "truncated is null")


def test_a_row_too_few(out, partition):
    dropped = []
    path = tamper(partition, "mesh", lambda rows: dropped.append(rows.pop(3)) or rows, signed=True)
    row = f"video {dropped[0]['video_id']} frame_index {dropped[0]['frame_index']} face_index 0"
    assert "is in faces and not in mesh" in found(lines(out), row)
    assert path


OUT_OF_RANGE = {
    "faces": [
        ("AU12", 1.5),
        ("AU12", float("nan")),
        ("emotion_happy", 0.9),
        ("valence", -1.01),
        ("gaze_angle", 3.2),
        ("pose_x", float("inf")),
        ("landmarks5", [1.0] * 9),
        ("box_x2", 0.0),
        ("track_id", None),
        ("dataset", "other"),
    ],
    "blendshapes": [("jawOpen", -0.1)],
    "mesh": [("mesh_xyz", [0.0] * 1433)],
    "frames": [("status", "fine"), ("faces", -1), ("repeats", 10**6)],
    "videos": [("rotation", 45)],
    "errors": [("stage", "somewhere")],
}
SAID = {"emotion_happy": "emotion_sum", "box_x2": "box does not hold"}


def test_numbers_out_of_range(out, partition):
    """Each number is in a row of its own."""
    expected = []
    for table, values in OUT_OF_RANGE.items():
        at = 0 if table in ("videos", "errors") else 2

        def edit(rows, values=values, at=at):
            assert len(rows) >= at + len(values)
            for row, (column, value) in zip(rows[at:], values, strict=False):
                frame = [f"frame_index {row['frame_index']}"] if "frame_index" in row else []
                row[column] = value
                expected.append([f"video {row['video_id']}", *frame, SAID.get(column, f"{column} is")])
            return rows

        first = len(expected)
        path = tamper(partition, table, edit, signed=True)
        for parts in expected[first:]:
            parts.append(path)
    every = lines(out)
    assert len(expected) == 17
    for parts in expected:
        found(every, *parts)


def test_rows_out_of_order(out, partition):
    path = tamper(partition, "frames", lambda rows: [*rows[:4], rows[5], rows[4], *rows[6:]], signed=True)
    assert "row 5: is out of order" in found(lines(out), path, "order")


def test_a_column_of_another_type(out, partition):
    file = file_of(partition, "faces")
    rows = pq.read_table(path_of(partition, file))
    position = rows.column_names.index("score")
    pq.write_table(rows.set_column(position, "score", rows["score"].cast(pa.float64())), path_of(partition, file))
    sign(partition, file)
    assert "column score is double, not float" in found(lines(out), file.path, "score")


def test_a_file_of_other_weights(out, partition):
    file = file_of(partition, "faces")
    rows = pq.read_table(path_of(partition, file))
    meta = {**rows.schema.metadata, b"featray.weights_sha256": b"0" * 64}
    pq.write_table(rows.replace_schema_metadata(meta), path_of(partition, file))
    sign(partition, file)
    assert "featray.weights_sha256 is 0000" in found(lines(out), file.path, "footer")


def test_a_run_that_is_not_there(out, partition):
    def edit(rows):
        rows[1]["run_id"] = "20200101T000000-00000000"
        return rows

    tamper(partition, "frames", edit, signed=True)
    found(lines(out), "frames.run_id 20200101T000000-00000000 is not in runs, 1 rows")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"status": "ok"}, "are inconsistent"),
        ({"error_code": None}, "are inconsistent"),
        ({"truncated": True}, "truncated is true"),
        ({"frames_sampled": 7}, "videos.frames_sampled is 7"),
        ({"tracks": 3}, "videos.tracks is 3"),
        ({"work_key": "0" * 64}, "a different work_key"),
    ],
)
def test_a_video_that_does_not_add_up(out, partition, change, text):
    changed = []

    def edit(rows):
        row = next(row for row in rows if row["status"] == "failed")
        changed.append(row["video_id"])
        row.update(change)
        return rows

    path = tamper(partition, "videos", edit, signed=True)
    found(lines(out), changed[0], text)
    assert path


def test_a_commit_that_counts_otherwise(out, partition):
    commit = commit_of(partition, "faces")
    videos = [replace(video, faces=video.faces + 1) if video.faces else video for video in commit.videos]
    write_commit(partition, replace(commit, videos=videos))
    one = next(video for video in videos if video.faces)
    found(
        lines(out), one.video_id, f"says {one.status}, {one.frames} frames, {one.faces} faces; videos says {one.status}"
    )


def test_a_video_in_two_commits(out, partition):
    commit = commit_of(partition, "faces")
    write_commit(partition, replace(commit, name="again"))
    assert found(lines(out), commit.videos[0].video_id, "several commits", "again")


def test_a_damaged_commit(out, partition):
    name = commit_of(partition, "faces").name
    Path(partition.commit(name).path).write_text("{")
    assert f"{name}.json: damaged commit record" in found(lines(out), "commit record")


def test_a_file_of_no_commit(out, partition):
    file = file_of(partition, "faces")
    path_of(partition, file).with_name("part-other-000.parquet").write_bytes(b"x")
    assert found(lines(out), "part-other-000.parquet", "no commit names it")
    Path(out.root.path, "faces", "stray.parquet").write_bytes(b"x")
    assert found(lines(out), "faces/stray.parquet", "no commit names it")
    assert len(verify(out, partition.release).problems) == 1, "outside of the release"


def test_files_of_an_open_shard_are_unfinished_work(out, partition):
    write_manifest(partition, ShardManifest("abc", "run", {}, [ManifestVideo("0" * 16, "u", "f" * 64)]))
    file = file_of(partition, "faces")
    path_of(partition, file).with_name("part-abc-000.parquet").write_bytes(b"x")
    report = verify(out)
    assert report.problems == []
    assert any("part-abc-000.parquet: in no commit yet; shard abc is open" in line for line in report.unfinished)


def test_the_command(out, partition):
    runner = CliRunner()
    sound = runner.invoke(main, ["verify", out.root.path])
    assert (sound.exit_code, sound.output.count("\n")) == (0, 1) and "no problems" in sound.output
    path_of(partition, file_of(partition, "faces")).unlink()
    broken = runner.invoke(main, ["verify", out.root.path, "--json"])
    found = json.loads(broken.output)
    assert broken.exit_code == 1 and found["ok"] is False
    assert found["problems"][0]["file"] == file_of(partition, "faces").path
    assert runner.invoke(main, ["verify", out.root.path, "--release", "none"]).exit_code == 2
