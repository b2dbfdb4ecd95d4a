"""The main job on real clips and odd files, and the effect of a second run."""

import json
import shutil

import duckdb
import pyarrow.parquet as pq
import pytest

from featray.run.runner import run
from featray.tables.layout import open_output
from featray.tables.query import connect, run_sql
from featray.tables.status import read_status
from tests.fixtures.outputs import tables_of
from tests.fixtures.runs import make_config, run_here, silent

TABLES = ("faces", "blendshapes", "mesh", "frames", "videos", "errors", "runs")


@pytest.fixture(scope="module")
def first(main_job):
    return main_job.summary


@pytest.fixture(scope="module")
def out(main_job):
    return main_job.out


@pytest.fixture(scope="module")
def inputs(main_job):
    return main_job.inputs


def sql(out, query, **options):
    return run_sql(connect(open_output(str(out)), **options), query).read_all().to_pylist()


def test_every_video_is_accounted_for(first, out):
    assert first.status == "done_with_failures"
    assert first.videos == {"ok": 2, "partial": 1, "failed": 1}
    rows = {row["uri"].rsplit("/", 1)[-1]: row for row in sql(out, "SELECT * FROM videos")}
    face, none, broken, notes = (rows[f"{name}.mp4"] for name in ("face", "no_face", "broken", "notes"))
    assert (face["status"], face["frames_decoded"], face["frames_sampled"], face["faces"]) == ("ok", 472, 20, 20)
    assert (face["width"], face["height"], face["rotation"], face["codec"]) == (640, 360, 0, "h264")
    assert (face["tracks"], face["truncated"], face["error_code"]) == (1, False, None)
    assert (none["status"], none["frames_decoded"], none["frames_sampled"], none["faces"]) == ("ok", 95, 4, 0)
    assert (broken["status"], broken["truncated"]) == ("partial", True)
    assert 0 < broken["frames_decoded"] < 472 and broken["faces"] == broken["frames_sampled"]
    assert (notes["status"], notes["error_code"], notes["frames_sampled"]) == ("failed", "not_a_video", 0)


def test_errors_say_which_and_why(first, out):
    rows = sql(out, "SELECT uri, unit, stage, error_code, message, attempt, run_id FROM errors ORDER BY uri")
    assert [(r["uri"].rsplit("/", 1)[-1], r["error_code"]) for r in rows if r["error_code"] != "decode_failed"] == [
        ("broken.mp4", "truncated"),
        ("notes.mp4", "not_a_video"),
    ]
    assert all(row["run_id"] == first.job.run_id and row["attempt"] == 1 for row in rows)


def test_the_accounting_holds(first, out):
    (counts,) = sql(
        out,
        "SELECT (SELECT count(*) FROM faces) AS faces, (SELECT count(*) FROM blendshapes) AS blendshapes, "
        "(SELECT count(*) FROM mesh) AS mesh, (SELECT sum(faces) FROM frames) AS in_frames, "
        "(SELECT count(*) FROM frames) AS frames, (SELECT sum(frames_sampled) FROM videos) AS sampled, "
        "(SELECT count(DISTINCT (video_id, frame_index, face_index)) FROM faces) AS keys",
    )
    assert counts["faces"] == counts["blendshapes"] == counts["mesh"] == counts["in_frames"] == counts["keys"]
    assert counts["frames"] == counts["sampled"]
    assert first.faces == counts["faces"] > 20


def test_numbers_are_in_range_and_mesh_is_whole(first, out):
    (row,) = sql(
        out,
        "SELECT min(least(AU01, AU12, AU43)) AS lo, max(greatest(AU01, AU12, AU43)) AS hi, "
        "max(abs(emotion_neutral + emotion_happy + emotion_sad + emotion_surprise + emotion_fear + emotion_disgust "
        "+ emotion_anger - 1)) AS off, max(abs(valence)) AS v, min(in_frame) AS share, min(sharpness) AS sharp "
        "FROM faces",
    )
    assert 0 <= row["lo"] <= row["hi"] <= 1
    assert row["off"] < 1e-5 and row["v"] <= 1 and 0 < row["share"] <= 1 and row["sharp"] > 0
    (lengths,) = sql(out, "SELECT min(len(mesh_xyz)) AS a, max(len(mesh_xyz)) AS b FROM mesh")
    assert lengths == {"a": 1434, "b": 1434}
    assert len(sql(out, "SELECT points_xy FROM dlib68 LIMIT 1")[0]["points_xy"]) == 68


def test_times_come_from_the_stream(first, out):
    rows = sql(
        out,
        "SELECT frame_index, pts_us FROM frames JOIN videos USING (video_id) WHERE uri LIKE '%/face.mp4' ORDER BY 1",
    )
    # 23.976 frames/s in a 1/24000 time base: frame n is shown at n * 1001 ticks
    assert [(r["frame_index"], r["pts_us"]) for r in rows] == [
        (i, round(i * 1001 / 24000 * 1e6)) for i in range(0, 472, 24)
    ]


def test_plain_globs_read_the_tables(first, out):
    for table in ("faces", "blendshapes", "mesh", "frames", "videos", "errors", "runs"):
        (count,) = duckdb.connect().sql(f"SELECT count(*) FROM '{out}/{table}/**/*.parquet'").fetchall()[0]
        assert count == sql(out, f"SELECT count(*) AS n FROM {table}")[0]["n"]


def test_the_run_tells_where_it_came_from(first, out):
    (row,) = sql(out, "SELECT * FROM runs")
    assert row["status"] == "done_with_failures"
    assert row["weights_sha256"] == first.job.checkpoint.sha256
    assert (row["weights_trained"], row["recipe"], row["precision"]) == (False, "pyfeat", "fp32")
    assert json.loads(row["versions"])["ray"].startswith("2.60")
    assert "sample" in row["config"]
    assert (row["videos_ok"], row["videos_failed"], row["faces"]) == (2, 1, first.faces)
    assert row["finished_at"] > row["started_at"]
    (path,) = (out / "faces").rglob("*.parquet")
    footer = pq.read_metadata(path).metadata
    assert footer[b"featray.weights_sha256"].decode() == first.job.checkpoint.sha256
    assert footer[b"featray.weights_trained"] == b"false"


def test_nothing_is_left_but_tables_and_commits(first, out):
    internal = {path.relative_to(out / "_featray").parts[0] for path in (out / "_featray").rglob("*") if path.is_file()}
    assert internal == {"commits", "leases", "output.json"}
    for table in set(TABLES) - {"erasures"}:
        assert {path.suffix for path in (out / table).rglob("*") if path.is_file()} == {".parquet"}


def test_a_second_run_does_nothing(first, main_job, out):
    before = times(out)
    again = run(main_job.config, silent())
    assert again.status == "nothing_to_do"
    assert again.already_published == {"ok": 2, "partial": 1, "failed": 1}
    assert times(out) == before


def test_both_executors_give_the_same_tables(first, inputs, out, tmp_path):
    """The rows are equal, for any length of units; the executor is no part of the release."""
    expected = tables_of(out)
    for unit_frames in (16, 512):
        decode = {"sample": {"every": 24}, "unit_frames": unit_frames}
        config = make_config([f"{inputs}/*.mp4"], tmp_path / f"{unit_frames}", dataset="main", decode=decode)
        here = run_here(config)
        assert here.job.release == first.job.release and here.videos == first.videos
        found = tables_of(tmp_path / f"{unit_frames}")
        assert found.keys() == expected.keys()
        for table, rows in expected.items():
            if table != "errors" or unit_frames == 16:  # an error names its unit
                assert found[table].equals(rows), table


def times(out):
    """Return the write time of each file, except the lease: a run takes it even if there is nothing to do."""
    files = (path for path in out.rglob("*") if path.is_file() and path.parts[-4] != "leases")
    return {path: path.stat().st_mtime_ns for path in files}


def test_other_settings_make_a_new_release_beside_the_old(first, inputs, out, tmp_path):
    settings = {"decode": {"sample": {"every": 118}}, "detect": {"min_score": 0.9}}
    out = shutil.copytree(out, tmp_path / "out")
    other = run_here(make_config([inputs / "face.mp4"], out, dataset="main", **settings))
    assert other.job.release != first.job.release
    assert other.status == "done"
    counts = sql(out, "SELECT release, count(*) AS n FROM faces GROUP BY release", release="all")
    assert {row["release"]: row["n"] for row in counts} == {first.job.release: first.faces, other.job.release: 4}
    assert sql(out, "SELECT DISTINCT release FROM faces") == [{"release": other.job.release}]
    status = read_status(open_output(str(out)), first.job.release)
    assert (status["videos"], status["faces"]) == ({"ok": 2, "partial": 1, "failed": 1}, first.faces)


def test_path_fields_become_partitions(inputs, tmp_path):
    config = make_config(
        [inputs / "face.mp4"],
        tmp_path / "out",
        input={"uris": [str(inputs / "face.mp4")], "path_fields": "{day}/{name}"},
        decode={"sample": {"every": 236}},
    )
    assert run_here(config).faces == 2
    (path,) = (tmp_path / "out" / "faces").rglob("*.parquet")
    assert path.parent.name == "day=day one"
    found = duckdb.connect().sql(f"SELECT DISTINCT day FROM '{tmp_path}/out/faces/**/*.parquet'").fetchall()
    assert found == [("day one",)]
