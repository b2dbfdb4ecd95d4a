"""After an erasure nothing of the person remains, everything else is unchanged, and the data do not come back."""

import json
import os
import shutil
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

from featray.cli import main
from featray.config_derive import DeriveConfig
from featray.errors import LeaseError, UsageError
from featray.findings.derive import Derivation
from featray.schema import DERIVED_TABLES
from featray.tables.commits import read_commits, read_manifests
from featray.tables.layout import list_partitions, open_output
from featray.tables.lease import hold
from featray.tables.person_edits import edits_folder
from featray.tables.published import read_published
from featray.tables.tombstones import place_of_erasures, read_erasures
from featray.upkeep.derive import derive_partition
from featray.upkeep.erase import erase
from featray.upkeep.erase_edits import forget_uri
from featray.upkeep.finish import finish_partition
from featray.upkeep.verify import verify
from tests.fixtures.outputs import ids, rows, traces
from tests.fixtures.published import SPARSE
from tests.fixtures.runs import Killed, dies_after, run_here, run_killed, small_config
from tests.fixtures.tampering import tamper

pytestmark = pytest.mark.slow

TABLES = ("faces", "blendshapes", "mesh", "frames", "videos", "errors", "tracks", "events")


def test_a_video_is_gone_and_nothing_else(out, partition):
    video = ids(out)["anna"]
    before = {table: rows(out.root.path, table, {video}) for table in TABLES}
    of_video = {table: len(rows(out.root.path, table)) - len(before[table]) for table in TABLES}
    (here,) = erase(out, video, reason="asked for on paper")
    assert here.rows == {table: count for table, count in of_video.items() if table in here.rows}
    assert of_video["faces"] == of_video["mesh"] == 10
    assert {table: rows(out.root.path, table) for table in TABLES} == before
    # the run that was asked for this one file names it in its config
    assert [p for p in traces(out, "anna.mp4", video) if "/runs/" not in p] == []
    assert traces(out, "anna.mp4") == []
    report = verify(out)
    assert ([p.line() for p in report.problems], report.unfinished) == ([], [])
    (audit,) = rows(out.root.path, "erasures")
    assert (audit["video_id"], audit["track_id"], audit["faces_removed"], audit["videos_removed"]) == (
        video,
        None,
        10,
        1,
    )
    assert audit["reason"] == "asked for on paper" and "uri" not in audit
    assert erase(out, video) == [], "twice is once"
    assert len(rows(out.root.path, "erasures")) == 1


@pytest.mark.parametrize(
    "named",
    ["anna.mp4", "../in/anna.mp4", *(pytest.param(n, marks=pytest.mark.long) for n in ("./anna.mp4", "file:anna.mp4"))],
)
def test_a_config_that_named_the_file_from_where_the_run_was_started_forgets_it(
    named, inputs, small_network, tmp_path, monkeypatch
):
    folder = tmp_path / "in"
    shutil.copytree(inputs, folder)
    shutil.copy(folder / "notes.mp4", folder / "joanna.mp4")
    shutil.copy(folder / "notes.mp4", folder / "anna.mp4")
    monkeypatch.chdir(folder)
    run_here(small_config([named, "joanna.mp4"], tmp_path / "out", small_network, decode=SPARSE))
    monkeypatch.chdir(tmp_path)
    out = open_output(str(tmp_path / "out"))
    video = ids(out)["anna"]
    erase(out, video)
    (run,) = rows(out.root.path, "runs")
    assert yaml.safe_load(run["config"])["input"]["uris"] == [f"erased:{video}", "joanna.mp4"]
    assert traces(out, "/anna.mp4") == []
    assert verify(out).problems == []


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("in/anna.mp4", True),
        ("../../in/anna.mp4", True),
        ("~/in/anna.mp4", True),
        ("~me/anna.mp4", True),
        ("/data//in/./anna.mp4", True),
        ("file:///data/in/anna.mp4", True),
        ("local:in/anna.mp4", True),
        ("na.mp4", False),
        ("in/*.mp4", False),
        ("in/", False),
        ("..", False),
        ("/in/anna.mp4", False),
        ("other/anna.mp4", False),
        ("s3://in/anna.mp4", False),
    ],
)
def test_what_names_an_erased_file(given, named):
    config = yaml.safe_dump({"input": {"uris": [given]}})
    assert (forget_uri(config, {"file:///data/x/../in/anna.mp4"}, "0" * 16) != config) is named


def test_an_erased_video_does_not_come_back_unless_allowed(out, inputs, small_network):
    video = ids(out)["anna"]
    erase(out, video)
    config = small_config([f"{inputs}/*.mp4"], out.root.path, small_network, decode=SPARSE)
    again = run_here(config)
    assert again.status == "nothing_to_do"
    assert again.already_published == {"ok": 2, "partial": 1, "failed": 1, "erased": 1}
    result = CliRunner().invoke(main, ["erase", out.root.path, "--video", video, "--allow-again"])
    assert result.exit_code == 0 and "may process it again" in result.output
    assert run_here(config).videos["ok"] == 1
    assert verify(out).problems == []
    erase(out, video)
    assert len(rows(out.root.path, "erasures")) == 2
    assert verify(out).problems == []


def test_an_erasure_is_lifted_by_the_name_that_erased_it(out):
    def lift(name):
        return CliRunner().invoke(main, ["erase", out.root.path, "--video", name, "--allow-again"])

    video, other = ids(out)["anna"], ids(out)["ben"]
    erase(out, video)
    unknown = lift("none.mp4")
    assert (unknown.exit_code, unknown.output.count("\n")) == (2, 1)
    assert f"no erased video with this name was found; give its whole URI or its id, one of {video}" in unknown.output
    assert lift("ben.mp4").output == f"{other}: was not erased\n"
    for one in ids(out).values():
        erase(out, one)
    done = lift("anna.mp4")
    assert (done.exit_code, done.output) == (0, f"{video}: the next run may process it again\n")
    assert lift("anna.mp4").exit_code == 2, "it is neither erased nor published now"


def test_a_video_is_erased_by_the_names_that_preview_takes(out, inputs):
    """By file name and URI; the URI also works when no table contains it any more."""

    def ask(name):
        return CliRunner().invoke(main, ["erase", out.root.path, "--video", name])

    before = ids(out)
    none = ask("nobody.mp4")
    assert none.exit_code == 2 and "--video nobody.mp4: not in this output" in none.stderr
    done = ask("anna.mp4")
    assert done.exit_code == 0 and f"erased {before['anna']} from " in done.output
    assert set(ids(out)) == set(before) - {"anna"}
    again = ask(f"file://{inputs}/anna.mp4")
    assert again.exit_code == 0 and again.output == f"{before['anna']}: nothing of it was left\n"
    assert ask(f"{inputs}/ben.mp4").exit_code == 0 and set(ids(out)) == set(before) - {"anna", "ben"}


def test_the_same_command_finishes_an_erasure_whose_rows_are_already_hidden(out, monkeypatch):
    """After a kill between the commit and the deletions, no commit has the name, and files still have the rows."""

    def ask(name):
        return CliRunner().invoke(main, ["erase", out.root.path, "--video", name])

    video = ids(out)["anna"]
    with monkeypatch.context() as killed, pytest.raises(Killed):
        killed.setattr("featray.upkeep.erase.carry_out", dies_after(0)(lambda *_: None))
        erase(out, video)
    assert traces(out, "anna.mp4")
    for name in ("anna", "nobody.mp4"):  # no URI of it is stored, so a part without its suffix cannot be looked for
        told = ask(name)
        assert (told.exit_code, told.stderr.count("\n")) == (2, 1)
        assert f"if it is {video}, whose erasure was interrupted, give that id to finish it" in told.stderr
    assert ask("anna.mp4").exit_code == 0
    assert traces(out, "anna.mp4") == [] and verify(out).problems == []
    assert ask("anna.mp4").output == f"{video}: nothing of it was left\n"
    assert "whose erasure was interrupted" not in ask("nobody.mp4").stderr


def test_a_name_that_two_videos_have_erases_none(inputs, small_network, tmp_path):
    for folder in ("monday", "friday"):
        (tmp_path / folder).mkdir()
        shutil.copy(inputs / "notes.mp4", tmp_path / folder / "same.mp4")
    run_here(small_config([f"{tmp_path}/*day/*.mp4"], tmp_path / "out", small_network))
    done = CliRunner().invoke(main, ["erase", str(tmp_path / "out"), "--video", "same.mp4"])
    assert done.exit_code == 2 and "same.mp4: matches 2 videos: " in done.stderr
    assert "give more of the path of one, or its id" in done.stderr
    assert len(rows(tmp_path / "out", "videos")) == 2
    done = CliRunner().invoke(main, ["erase", str(tmp_path / "out"), "--video", "friday/same.mp4", "--json"])
    (here,) = json.loads(done.stdout)["erased"]
    assert (here["dataset"], here["rows"]["videos"]) == ("test", 1)
    assert [row["uri"] for row in rows(tmp_path / "out", "videos")] == [f"file://{tmp_path}/monday/same.mp4"]


def test_a_track_is_gone_and_the_accounting_holds(out, partition):
    video = ids(out)["ben"]
    before = {table: rows(out.root.path, table, {video}) for table in TABLES}
    (here,) = erase(out, video, track_id=0)
    assert {table: here.rows[table] for table in TABLES if table not in ("errors", "events")} == {
        **dict.fromkeys(("faces", "blendshapes", "mesh"), 10),
        **{"frames": 0, "videos": 0, "tracks": 1},
    }
    assert here.rows["events"] > 0
    assert {table: rows(out.root.path, table, {video}) for table in TABLES} == before
    (row,) = [row for row in rows(out.root.path, "videos") if row["video_id"] == video]
    assert (row["faces"], row["frames_with_face"], row["tracks"], row["status"]) == (0, 0, 0, "ok")
    frames = [row for row in rows(out.root.path, "frames") if row["video_id"] == video]
    assert len(frames) == 10 and {(f["status"], f["faces"]) for f in frames} == {("no_face", 0)}
    assert verify(out).problems == []
    (audit,) = rows(out.root.path, "erasures")
    assert (audit["track_id"], audit["mesh_removed"], audit["frames_removed"]) == (0, 10, 0)


def test_an_erased_track_that_is_back_is_found(out, tmp_path):
    """As after files were put back from a copy that is older than the erasure."""
    video = ids(out)["ben"]
    shutil.copytree(out.root.path, tmp_path / "copy")
    erase(out, video, track_id=0)
    records = f"{out.root.path}/_featray/erased"
    shutil.copytree(records, tmp_path / "records")
    shutil.rmtree(out.root.path)
    shutil.copytree(tmp_path / "copy", out.root.path)
    shutil.copytree(tmp_path / "records", records)
    (line,) = [problem.line() for problem in verify(out).problems]
    assert f"track 0 was erased and has rows again; featray erase OUT --video {video} --track 0" in line


def test_a_video_whose_uri_is_of_another_id_is_found_and_not_erased_by_name(out, partition):
    def renamed(found):
        return [found[0] | {"uri": f"{found[0]['uri'].rpartition('/')[0]}/zoe.mp4"}, *found[1:]]

    before = rows(out.root.path, "faces")
    tamper(partition, "videos", renamed, signed=True)
    assert [one for one in verify(out).problems if "video_id_of_uri does not hold" in one.text]
    done = CliRunner().invoke(main, ["erase", out.root.path, "--video", "zoe.mp4"])
    assert done.exit_code == 1 and "zoe.mp4: its row in `videos` has the id " in done.output
    assert rows(out.root.path, "faces") == before


@pytest.mark.parametrize("values", [{"video_id": "0123456789abcdef"}, {"track_id": 1}])
def test_an_audit_row_that_contradicts_the_record_is_found(out, partition, values):
    video = ids(out)["ben"]
    erase(out, video, track_id=0)
    tamper(partition, "erasures", lambda found: [found[0] | values], signed=True)
    (line,) = [problem.line() for problem in verify(out).problems]
    assert f"is recorded as the erasure of video {video} track 0" in line


def test_a_track_of_a_video_in_two_datasets_is_erased_from_both(out, inputs, small_network):
    uris = [f"{inputs}/anna.mp4"]
    run_here(small_config(uris, out.root.path, small_network, decode=SPARSE, dataset="second"))
    video = ids(out)["anna"]
    assert [(here.partition.dataset, here.rows["faces"]) for here in erase(out, video, track_id=0)] == [
        ("second", 10),
        ("test", 10),
    ]
    assert video not in {row["video_id"] for row in rows(out.root.path, "faces")}
    assert verify(out).problems == []


def test_a_track_beside_another(out, partition):
    """Half of a track's faces become another track: erasing one leaves the other, in shared frames too."""
    from tests.fixtures.tampering import tamper

    video = ids(out)["ben"]

    def second_face(rows):
        for row in [row for row in rows if row["video_id"] == video][:4]:
            rows.append({**row, "face_index": 1, "track_id": 1})
        return sorted(rows, key=lambda row: (row["video_id"], row["pts_us"], row["face_index"]))

    for table in ("faces", "blendshapes", "mesh"):
        tamper(partition, table, second_face, signed=True)
    first = {row["frame_index"] for row in rows(out.root.path, "faces") if row["track_id"] == 1}
    for table, edit in (
        ("frames", lambda row: row.update(faces=2) if row["frame_index"] in first else None),
        ("videos", lambda row: row.update(faces=14, tracks=2)),
    ):
        tamper(
            partition, table, lambda rows, e=edit: [e(r) if r["video_id"] == video else None for r in rows] and rows,
            signed=True,
        )  # fmt: skip
    commit = next(c for c in read_commits(partition) if any(v.video_id == video for v in c.videos))
    path = Path(partition.commit(commit.name).path)
    data = json.loads(path.read_text())
    for entry in data["videos"]:
        entry["faces"] += 4 * (entry["video_id"] == video)
    data["files"] = [file for file in data["files"] if file["table"] not in DERIVED_TABLES]
    data["derived"] = {}
    path.write_text(json.dumps(data))
    for stray in (file.path for file in commit.files if file.table in DERIVED_TABLES):
        Path(out.root.path, stray).unlink()
    derive_partition(partition, Derivation(DeriveConfig()))
    assert verify(out).problems == []
    erase(out, video, track_id=0)
    assert {row["track_id"] for row in rows(out.root.path, "tracks") if row["video_id"] == video} == {1}
    left = [row for row in rows(out.root.path, "faces") if row["video_id"] == video]
    assert [(row["track_id"], row["face_index"]) for row in left] == [(1, 1)] * 4
    (row,) = [row for row in rows(out.root.path, "videos") if row["video_id"] == video]
    assert (row["faces"], row["frames_with_face"], row["tracks"]) == (4, 4, 1)
    assert verify(out).problems == []


def test_work_that_has_landed_goes_too(landed, tmp_path):
    shutil.copytree(landed, tmp_path / "out")
    out = open_output(str(tmp_path / "out"))
    (partition,) = list_partitions(out)
    (manifest,) = read_manifests(partition)
    video = next(v.video_id for v in manifest.videos if v.uri.endswith("anna.mp4"))
    (here,) = erase(out, video)
    assert (here.landed, here.rows) == (2, {})
    assert traces(out, video, "anna.mp4") == []
    done = finish_partition(partition)
    assert [len(commit.videos) for commit in done.published] == [4]
    assert verify(out).problems == []
    assert len(rows(out.root.path, "erasures")) == 1


@pytest.mark.parametrize(("named", "has_shard"), [("anna.mp4", True), ("{}/anna.mp4", True), ("{}/anna.mp4", False)])
def test_a_run_that_only_landed_a_video_forgets_its_name(
    named, has_shard, inputs, small_network, tmp_path, monkeypatch
):
    monkeypatch.chdir(inputs)
    uris = [named.format(inputs), "notes.mp4"]
    run_killed(small_config(uris, tmp_path / "out", small_network, decode=SPARSE))
    out = open_output(str(tmp_path / "out"))
    (partition,) = list_partitions(out)
    (manifest,) = read_manifests(partition)
    video = next(v.video_id for v in manifest.videos if v.uri.endswith("anna.mp4"))
    if not has_shard:
        shutil.rmtree(partition.shard().path)
    erase(out, video)
    assert traces(out, "anna.mp4") == []
    (run,) = rows(out.root.path, "runs")
    assert yaml.safe_load(run["config"])["input"]["uris"] == [f"erased:{video}", "notes.mp4"]


def test_files_that_killed_processes_left_go_too(out, partition):
    video = ids(out)["anna"]
    folder = Path(partition.folder("faces").path)
    (real,) = (path for path in folder.glob("*.parquet") if video in repr(pq.read_table(path).to_pylist()))
    shutil.copy(real, folder / "part-dead-000.parquet")
    shutil.copy(real, folder / ".part-dead-001.parquet.0123.tmp")
    other = next(path for path in folder.glob("part-*.parquet") if path != real and "dead" not in path.name)
    edits = Path(edits_folder(partition).path)
    edits.mkdir(parents=True)
    record = json.dumps({"edits": [{"kind": "split", "tracks": [{"video_id": video, "track_id": 0}], "rows": 1}]})
    (edits / ".persons.json.0123.tmp").write_text(record)
    (here,) = erase(out, video)
    assert here.uncommitted == 2
    assert traces(out, "anna.mp4") == [] and list(edits.iterdir()) == []
    assert sorted(folder.iterdir()) == [other]


def test_half_a_record_of_an_erasure_goes_with_the_next_command(out, partition):
    """Another command may be writing a young one."""
    video = ids(out)["anna"]
    erase(out, video)
    old, young = (Path(place_of_erasures(out).path) / f".{video}.json.{name}.tmp" for name in ("0123", "4567"))
    for path in (old, young):
        path.write_text("{")
    os.utime(old, (time.time() - 100,) * 2)
    erase(out, ids(out)["ben"])
    assert young.exists() and not old.exists()


def test_an_erasure_makes_no_release_the_latest(out, inputs, small_network):
    run_here(small_config([inputs / "anna.mp4"], out.root.path, small_network, decode={"sample": {"every": 236}}))
    (latest,) = read_published(out)
    old = next(p for p in list_partitions(out) if p != latest.partition)
    video = ids(out)["anna"]
    erase(out, video, release=old.release)
    (still,) = read_published(out)
    assert still.partition == latest.partition
    assert [video.video_id for commit in read_commits(still.partition) for video in commit.videos] == [video]
    assert verify(out).problems == []
    assert [e.release for e in read_erasures(out, video)] == [old.release]


def test_an_erasure_beside_a_run_is_recorded_and_says_so(out, partition):
    video = ids(out)["anna"]
    with hold(partition, "run-of-another"), pytest.raises(LeaseError, match=r"held by .*; the erasure is recorded"):
        erase(out, video)
    assert [erasure.done for erasure in read_erasures(out, video)] == [False]
    (here,) = erase(out, video)
    assert here.rows["videos"] == 1 and verify(out).problems == []


def test_verify_gives_the_command_that_finishes_an_erasure_and_erases_no_more(out, partition):
    video = ids(out)["anna"]
    track = next(row["track_id"] for row in rows(out.root.path, "faces") if row["video_id"] == video)
    with hold(partition, "run-9"), pytest.raises(LeaseError):
        erase(out, video, track_id=track, release=partition.release)
    (problem,) = verify(out).problems
    command = problem.text.partition("; finish it: ")[2]
    assert command == f"featray erase OUT --video {video} --track {track} --release {partition.release}"
    done = CliRunner().invoke(main, [out.root.path if word == "OUT" else word for word in command.split()[1:]])
    assert done.exit_code == 0, done.output
    assert verify(out).problems == [] and video in ids(out).values()


def test_what_cannot_be_erased(out, inputs, small_network):
    with pytest.raises(UsageError, match="has no video 0123456789abcdef"):
        erase(out, "0123456789abcdef")
    with pytest.raises(UsageError, match="not a video_id"):
        erase(out, "anna.mp4")
    video = ids(out)["anna"]
    with pytest.raises(UsageError, match="track 7"):
        erase(out, video, track_id=7)
    run_here(small_config([inputs / "anna.mp4"], out.root.path, small_network, decode={"sample": {"every": 236}}))
    with pytest.raises(UsageError, match="add --release, one of atto-"):
        erase(out, video, track_id=0)
    assert read_erasures(out, video) == []
