"""Derived rows are part of their shard's commit, made once, equal for any way of making them, and deleted with it."""

import json
import shutil
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from featray.cli import main
from featray.config_derive import DeriveConfig
from featray.errors import UsageError
from featray.findings import derive as derive_module
from featray.findings.derive import Derivation
from featray.schema import DERIVED_TABLES, SORT_KEYS
from featray.store.storage import upload
from featray.tables import writer
from featray.tables.commits import read_commits, write_commit
from featray.tables.layout import list_partitions, open_output
from featray.tables.opened import open_tables
from featray.tables.query import connect, run_sql
from featray.tables.status import read_status
from featray.upkeep.derive import derive_partition
from featray.upkeep.finish import finish_partition
from featray.upkeep.verify import verify
from tests.fixtures.outputs import ids, rows
from tests.fixtures.published import SPARSE
from tests.fixtures.runs import Killed, dies_after, run_here, small_config
from tests.fixtures.tampering import tamper

pytestmark = pytest.mark.slow

OTHER = Derivation(DeriveConfig(smooth_s=0.1, events=[{
    "name": "calm", "expression": "1 - arousal", "on_at": 0, "off_at": 0, "least_s": 0, "merge_s": 0,
}]))  # fmt: skip


def derived(root, derivation=None):
    """Return every derived row, in order."""
    found = {}
    for table in DERIVED_TABLES:
        paths = sorted(Path(root, table).rglob(f"derivation={derivation or '*'}/**/*.parquet"))
        parts = [pq.read_table(path, partitioning=None).replace_schema_metadata() for path in paths]
        whole = pa.concat_tables(parts) if parts else pa.table({})
        found[table] = whole.sort_by([(n, "ascending") for n in ("derivation", *SORT_KEYS[table])]).to_pylist()
    return found


def test_a_run_derives_what_it_publishes(out, partition):
    faces = rows(out.root.path, "faces")
    found = derived(out.root.path)
    assert {(r["video_id"], r["track_id"]) for r in found["tracks"]} == {(f["video_id"], f["track_id"]) for f in faces}
    assert found["events"] and {row["derivation"] for row in found["events"]} == {DeriveConfig().derivation}
    with_videos = [commit for commit in read_commits(partition) if commit.videos]
    assert all(set(commit.derived) == {DeriveConfig().derivation} for commit in with_videos)
    assert [commit.derived for commit in read_commits(partition) if not commit.videos] == [{}] * 2
    footer = pq.read_metadata(next(Path(out.root.path, "tracks").rglob("*.parquet"))).metadata
    assert json.loads(footer[b"featray.derive"]) == DeriveConfig().settings() and footer[b"featray.model_name"]
    assert derive_partition(partition, Derivation(DeriveConfig())).shards == 0


def test_what_was_published_without_is_derived_to_the_same_rows(out, inputs, small_network, tmp_path):
    off = {"decode": SPARSE, "derive": {"enabled": False}}
    run_here(small_config([f"{inputs}/*.mp4"], tmp_path / "late", small_network, **off))
    late = open_output(str(tmp_path / "late"))
    (partition,) = list_partitions(late)
    assert not Path(late.root.path, "tracks").exists() and verify(late).problems == []
    done = CliRunner().invoke(main, ["derive", late.root.path, "--json"])
    (said,) = json.loads(done.stdout)["releases"]
    assert (said["shards"], said["already"], said["derivation"]) == (1, 0, DeriveConfig().derivation)
    assert derived(late.root.path) == derived(out.root.path), "in one shard or in two, at once or later"
    assert verify(late).problems == []
    assert derive_partition(partition, Derivation(DeriveConfig())).already == 1


def test_other_settings_stand_beside_and_the_last_is_shown(out, partition):
    derive_partition(partition, OTHER)
    assert verify(out).problems == []
    with open_tables(out.root.path) as tables:
        (name,) = tables.sql("SELECT DISTINCT derivation FROM tracks").fetchall()
        assert name == (OTHER.name,)
        assert tables.sql("SELECT count(*) FROM events WHERE kind = 'calm'").fetchall() > [(0,)]
    for chosen, count in ((DeriveConfig().derivation, 1), ("all", 2)):
        sql = "SELECT count(DISTINCT derivation) AS n, count(DISTINCT video_id) AS v FROM tracks"
        assert run_sql(connect(out, derivation=chosen), sql).read_all().to_pylist() == [{"n": count, "v": 3}]
    with pytest.raises(UsageError, match=r"--derivation 0000: not in this output; it has: d-[0-9a-f]{8}, "):
        connect(out, derivation="0000")
    assert [(one["shards"], one["of"]) for one in read_status(out)["derived"]] == [(2, 2), (2, 2)]


def test_status_says_what_sets_derivations_apart_and_which_is_shown(out, partition):
    derive_partition(partition, OTHER)
    told = CliRunner().invoke(main, ["status", out.root.path], catch_exceptions=False).stdout.splitlines()
    lines = {name: line for line in told for name in (OTHER.name, DeriveConfig().derivation) if name in line}
    assert lines[DeriveConfig().derivation].endswith("Z  defaults")
    assert "Z  smooth_s: 0.1, events: [{on_at: 0.0, " in lines[OTHER.name]
    assert lines[OTHER.name].endswith("  (shown by views)")


def test_settings_that_are_asked_for_again_are_the_ones_shown(out, partition):
    def shown():
        return connect(out).sql("SELECT DISTINCT derivation FROM tracks").fetchall()

    derive_partition(partition, OTHER)
    files = sorted(path for path in Path(out.root.path).rglob("*.parquet"))
    first = Derivation(DeriveConfig())
    done = derive_partition(partition, first)
    assert (done.shards, done.already, done.note) == (0, 2, f"views show derivation {first.name} from now on")
    assert shown() == [(first.name,)] and verify(out).problems == []
    assert derive_partition(partition, first).note == ""
    assert derive_partition(partition, OTHER).note and shown() == [(OTHER.name,)]
    assert sorted(path for path in Path(out.root.path).rglob("*.parquet")) == files


def test_settings_asked_for_again_by_a_clock_that_is_behind_are_shown(out, partition):
    first = Derivation(DeriveConfig())
    derive_partition(partition, OTHER)
    with mock.patch("featray.tables.derived.time.time_ns", return_value=1_000_000):
        derive_partition(partition, first)
    with open_tables(out.root.path) as tables:
        assert tables.sql("SELECT DISTINCT derivation FROM tracks").fetchall() == [(first.name,)]


def test_what_a_clock_that_is_behind_derives_is_shown(out, partition):
    made_us = max(at_us for commit in read_commits(partition) for at_us in commit.derived.values())
    with mock.patch("featray.tables.derived.time.time_ns", return_value=(made_us - 3_600_000_000) * 1000):
        derive_partition(partition, OTHER)
    with open_tables(out.root.path) as tables:
        assert tables.sql("SELECT DISTINCT derivation FROM tracks").fetchall() == [(OTHER.name,)]


@pytest.mark.parametrize("after", [1, 4, *(pytest.param(n, marks=pytest.mark.long) for n in (0, 2, 3, 5))])
def test_killed_anywhere_and_run_again_the_tables_are_equal(out, partition, after, tmp_path):
    """Killed at each upload and before each commit."""
    shutil.copytree(out.root.path, tmp_path / "undisturbed")
    (undisturbed,) = list_partitions(open_output(str(tmp_path / "undisturbed")))
    derive_partition(undisturbed, OTHER)
    die = dies_after(after)
    with (
        mock.patch.object(writer, "upload", die(upload)),
        mock.patch("featray.tables.derived.write_commit", die(write_commit)),
        pytest.raises(Killed),
    ):
        derive_partition(partition, OTHER)
    assert verify(out).problems == [], "what it left is unfinished, and no problem"
    if after % 2:
        finish_partition(partition)
    derive_partition(partition, OTHER)
    assert derived(out.root.path) == derived(tmp_path / "undisturbed")
    report = verify(out)
    assert ([p.line() for p in report.problems], report.unfinished) == ([], [])


def test_replaced_and_dropped_videos_lose_their_derived_rows(inputs, small_network, tmp_path):
    mine = shutil.copytree(inputs, tmp_path / "in")
    config = small_config([f"{mine}/*.mp4"], tmp_path / "out", small_network, decode=SPARSE)
    run_here(config)
    out = open_output(str(tmp_path / "out"))
    shutil.copy(mine / "empty.mp4", mine / "anna.mp4")  # nobody is in it any more
    (mine / "ben.mp4").unlink()
    run_here(config.model_copy(update={"run": config.run.model_copy(update={"drop_deleted": True})}))
    left = {row["video_id"] for row in derived(out.root.path)["tracks"]}
    assert left == {row["video_id"] for row in rows(out.root.path, "faces")} == {ids(out)["cut"]}
    assert verify(out).problems == []


@pytest.mark.parametrize("batch", [1, 15, 1_000])
def test_rows_hang_on_no_batch(out, partition, batch, monkeypatch):
    monkeypatch.setattr(derive_module, "BATCH_ROWS", batch)
    report = verify(out, rederive=9)
    assert report.problems == []


def test_a_derived_number_that_was_changed_is_found(out, partition):
    def edit(found):
        found[0]["AU12_mean"] += 1e-6
        return found

    tamper(partition, "tracks", edit, signed=True)
    (problem,) = verify(out).problems
    assert "tracks.AU12_mean is " in problem.line() and ", derived again " in problem.line()
    assert verify(out, rederive=0).problems == []


def test_a_missing_track_and_a_stray_event_are_found_without_deriving(out, partition):
    tamper(partition, "tracks", lambda found: found[1:], signed=True)
    said = [problem.line() for problem in verify(out, rederive=0).problems]
    assert any("is in faces and not in tracks" in line for line in said)
    assert any("its track is not in tracks" in line for line in said)


def test_summary_has_a_row_a_video_and_the_manifests_columns(inputs, small_network, tmp_path):
    manifest = tmp_path / "list.csv"
    lines = ["uri,participant,condition,Faces,it's"]
    for name, person in (("anna", "p1"), ("ben", "p2"), ("empty", "p3")):
        lines.append(f"{inputs}/{name}.mp4,{person},control,x,y")
    manifest.write_text("\n".join(lines))
    run_here(small_config([manifest], tmp_path / "out", small_network, decode=SPARSE))
    with open_tables(str(tmp_path / "out")) as out:
        found = out.summary.order("participant").to_arrow_table().to_pylist()
        again = out.sql("SELECT participant, AU12_mean FROM summary WHERE condition = 'control'").fetchall()
        tracks = out.tracks.to_arrow_table().to_pylist()
    assert [row["participant"] for row in found] == ["p1", "p2", "p3"] and len(again) == 3
    assert [(row["extra_Faces"], row["it's"], row["faces"]) for row in found] == [
        ("x", "y", 10),
        ("x", "y", 10),
        ("x", "y", 0),
    ]
    for row in found[:2]:
        of_video = [track for track in tracks if track["video_id"] == row["video_id"]]
        main_track = max(of_video, key=lambda track: (track["seen_s"], -track["track_id"]))
        assert (row["track_id"], row["AU12_p95"]) == (main_track["track_id"], main_track["AU12_p95"])
        assert row["all_frames"] == sum(track["frames"] for track in of_video) == row["faces"]
        seen = sum(track["seen_s"] for track in of_video)
        assert row["all_AU12_mean"] == pytest.approx(sum(t["AU12_mean"] * t["seen_s"] for t in of_video) / seen)
    assert found[2]["AU12_mean"] is found[2]["derivation"] is None


def test_an_older_output_is_read_and_derived(tmp_path):
    old = shutil.copytree(Path(__file__).parents[2] / "data" / "older_output", tmp_path / "old")
    with open_tables(str(old)) as out:
        assert len(out.tracks) == len(out.events) == 0 and len(out.summary) == 3
    output = open_output(str(old))
    # verify reports that older footers have fewer entries; it does not report missing tables.
    assert all(problem.text.startswith("footer: ") for problem in verify(output).problems)
    assert read_status(output)["derived"] == []
    assert run_sql(connect(output), "SELECT kind FROM events").read_all().num_rows == 0
    done = CliRunner().invoke(main, ["derive", str(old), "--set", "derive.baseline=p10"])
    assert done.exit_code == 0 and ": 2 shards derived; 1 track, " in done.stdout
    with open_tables(str(old)) as out:
        assert out.sql("SELECT site, session FROM tracks").fetchall() == [("berlin", "007")]
    assert all(problem.text.startswith("footer: ") for problem in verify(output).problems)
    assert [one["shards"] for one in read_status(output)["derived"]] == [2]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (["--set", "derive.smooth_s=fast"], "derive.smooth_s: "),
        (["--set", "model.engine=torch"], "--set model.engine: this command takes only derive.<key>=<value>"),
        (["--set", "derive.baselin=p10"], "did you mean derive.baseline?"),
        (
            ["--set", "derive.action_units={on_at: 0.2, off_at: 0.4, least_s: 0, merge_s: 0}"],
            "off_at (0.4) is above on_at (0.2)",
        ),
        (
            ["--set", "derive.events=[{name: AU12, expression: AU12, on_at: 1, off_at: 1, least_s: 0, merge_s: 0}]"],
            "the name 'AU12' is taken",
        ),
    ],
)
def test_settings_that_are_none_are_said_in_one_line(given, complaint, tmp_path):
    done = CliRunner().invoke(main, ["derive", str(tmp_path), *given])
    assert done.exit_code == 2 and complaint in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_a_run_config_with_the_section_serves_as_settings(out, tmp_path):
    (tmp_path / "run.yaml").write_text("dataset: x\nderive: {baseline: none}\n")
    done = CliRunner().invoke(main, ["derive", out.root.path, str(tmp_path / "run.yaml")])
    assert f"derivation {DeriveConfig(baseline='none').derivation}: 2 shards derived" in done.stdout
