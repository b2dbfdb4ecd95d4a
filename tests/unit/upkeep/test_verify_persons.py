"""`persons` is checked against faces and embeddings; compaction, status, diff and older outputs handle both tables."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from featray.cli import main
from featray.persons.settings import PersonsSettings
from featray.tables.commits import write_commit
from featray.tables.layout import open_output
from featray.tables.lease import UnheldPartition
from featray.tables.opened import open_tables
from featray.upkeep.compact import compact_partition
from featray.upkeep.persons import find_persons
from featray.upkeep.recover import drop_videos
from featray.upkeep.verify import verify
from tests.fixtures.crowd import Crowd, video_of
from tests.fixtures.outputs import rows
from tests.fixtures.plugin import DATA
from tests.fixtures.tampering import commit_of, file_of, path_of, sign, tamper

pytestmark = pytest.mark.slow

FIRST = {"0.mp4": [0, (1, 2), 0], "1.mp4": [1, 2]}
LATER = {"2.mp4": [0, 3]}


@pytest.fixture
def crowd(tmp_path):
    made = Crowd(tmp_path / "out")
    made.publish(FIRST)
    find_persons(made.partition, PersonsSettings())
    return made


def said(crowd):
    """Return the problems and unfinished work that concern persons."""
    report = verify(crowd.output)
    problems = [problem.line() for problem in report.problems if "person" in problem.line()]
    return problems, [line for line in report.unfinished if "persons" in line]


def test_what_persons_wrote_is_sound(crowd):
    assert said(crowd) == ([], [])


def changed(at=0, **values):
    def edit(found):
        found[at] |= values
        return sorted(found, key=lambda row: (row["video_id"], row["track_id"]))

    return edit


@pytest.mark.parametrize(
    ("edit", "parts"),
    [
        (changed(track_id=77), ["track 77 is in persons and not in faces"]),
        (changed(person_id="Anna"), ["person_id is Anna"]),
        (changed(person_id="p-0123456789abc"), ["person_id is p-0123456789abc"]),
        (changed(person_id=None), ["person_id is null"]),
        (changed(previous="x"), ["previous is x"]),
        (changed(similarity=1.5), ["similarity is 1.5"]),
        (changed(clustering="c-00000000"), ["clustering is c-00000000"]),
        (lambda found: [found[0], *found], ["appears 2 times in persons"]),
        (lambda found: [row | {"name": f"{i}"} for i, row in enumerate(found)], ["has ", " names"]),
    ],
    ids=["no-track", "form", "longer", "null", "previous", "similarity", "clustering", "twice", "names"],
)
def test_what_it_cannot_say_is_found(crowd, edit, parts):
    path = tamper(crowd.partition, "persons", edit, signed=True)
    problems, unfinished = said(crowd)
    assert [line for line in problems if all(part in line for part in parts) and path in line], problems
    assert unfinished == []


@pytest.mark.parametrize("column", ["video_id", "person_id", "previous", "name"])
def test_a_text_that_is_not_utf_8_is_told_in_one_line(crowd, column):
    file = file_of(crowd.partition, "persons")
    path = path_of(crowd.partition, file)
    found = pq.read_table(path, partitioning=None)
    bad = pa.array([b"\xff\xfe\x80abc"] * len(found), pa.binary()).view(pa.string())
    pq.write_table(found.set_column(found.column_names.index(column), column, bad), path)
    sign(crowd.partition, file)
    problems, _ = said(crowd)
    assert [line for line in problems if file.path in line and "UTF" in line.upper()], problems
    done = CliRunner().invoke(main, ["persons", crowd.output.root.path, "--threshold", "0.9"])
    assert isinstance(done.exception, SystemExit) and done.exit_code == 1, repr(done.exception)
    assert done.stderr.count("\n") == 1 and file.path in done.stderr


def test_two_tracks_on_screen_at_once_are_no_person(crowd):
    video = video_of("0.mp4")

    def one(found):
        known = {row["track_id"]: row for row in found if row["video_id"] == video}
        known[2]["person_id"] = known[1]["person_id"]
        return found

    tamper(crowd.partition, "persons", one, signed=True)
    (line,) = said(crowd)[0]
    assert "tracks 1 and 2 are both of person p-" in line and "both in 4 frames" in line and video in line


def without_a_track(found):
    return [row for row in found if (row["video_id"], row["track_id"]) != (video_of("1.mp4"), 0)]


def test_a_track_without_an_embedding_has_no_person(crowd):
    tamper(crowd.partition, "embeddings", without_a_track, signed=True)
    problems, _ = said(crowd)
    assert any("track 0 is in persons and has no embedding" in line for line in problems), problems


def test_a_track_that_lost_its_person_is_found(crowd):
    tamper(crowd.partition, "persons", without_a_track, signed=True)
    (line,) = said(crowd)[0]
    assert "track 0 has embeddings and is not in persons" in line and video_of("1.mp4") in line


def test_a_table_that_is_older_than_its_tracks_is_to_be_made_again(crowd):
    """Rows that a later publication has made obsolete are not damaged."""
    tamper(crowd.partition, "embeddings", without_a_track, signed=True)
    commit = commit_of(crowd.partition, "faces")
    write_commit(UnheldPartition(crowd.partition), replace(commit, published_at_us=2))
    problems, (line,) = said(crowd)
    assert problems == [] and "contains tracks that no longer exist; run `featray persons OUT`" in line
    find_persons(crowd.partition, PersonsSettings())
    assert said(crowd) == ([], [])


def test_a_dropped_video_leaves_persons_to_be_made_again(crowd):
    commit = commit_of(crowd.partition, "faces")
    drop_videos(UnheldPartition(crowd.partition), {commit.name: {video_of("1.mp4")}}, "drop-run-2")
    problems, (line,) = said(crowd)
    assert problems == [] and "run `featray persons OUT`" in line
    find_persons(crowd.partition, PersonsSettings())
    assert said(crowd) == ([], [])


def test_new_videos_are_no_problem(crowd):
    crowd.publish(LATER)
    assert said(crowd) == ([], [])


def test_compaction_keeps_both_tables_to_the_bit(crowd):
    crowd.publish(LATER)
    find_persons(crowd.partition, PersonsSettings())
    root = crowd.output.root.path
    before = [rows(root, table) for table in ("embeddings", "persons")]
    compact_partition(crowd.partition)
    assert [rows(root, table) for table in ("embeddings", "persons")] == before
    assert len(list(Path(root, "embeddings").rglob("*.parquet"))) == 1
    assert said(crowd) == ([], [])
    assert find_persons(crowd.partition, PersonsSettings()).renamed == 0


def run(root, *arguments):
    done = CliRunner().invoke(main, [arguments[0], str(root), *arguments[1:]], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_status_counts_both(crowd):
    root = crowd.output.root.path
    persons = len({row["person_id"] for row in rows(root, "persons")})
    found = json.loads(run(root, "status", "--json"))["who"]
    tracks = {"tracks": 6, "persons": persons, "embeddings": 24, "dataset": "test", "release": "crowd-0"}
    assert found == [tracks] and persons == 3
    assert "who     test/crowd-0  24 embeddings  3 persons in 6 tracks" in run(root, "status")


def test_a_diff_says_how_far_two_releases_agree_on_people(crowd):
    """Compares the same videos in another release, in which some tracks belong to another person."""
    other = Crowd(Path(crowd.output.root.path), release="crowd-1")
    other.publish(FIRST)
    find_persons(other.partition, PersonsSettings())

    def agreed():
        done = run(crowd.output.root.path, "diff", "crowd-0", "crowd-1", "--json")
        return json.loads(done)["who"]

    assert agreed() == {"persons_a": 3, "persons_b": 3, "tracks": 6, "b_cubed_f": 1.0}

    def joined(found):
        for row in found:
            row["person_id"] = found[0]["person_id"] if row["track_id"] == 0 else row["person_id"]
        return found

    tamper(other.partition, "persons", joined, signed=True)
    found = agreed()
    assert found["b_cubed_f"] < 1 and found["tracks"] == 6
    assert "persons  3 and " in run(crowd.output.root.path, "diff", "crowd-0", "crowd-1")


def test_an_older_output_has_neither_and_is_as_it_was(tmp_path):
    shutil.copytree(DATA / "older_output", tmp_path / "out")
    output = open_output(str(tmp_path / "out"))
    assert not [line for line in verify(output).unfinished if "persons" in line]
    assert json.loads(run(tmp_path / "out", "status", "--json"))["who"] == []
    assert "who  " not in run(tmp_path / "out", "status")
    done = CliRunner().invoke(main, ["persons", str(tmp_path / "out")], catch_exceptions=False)
    assert "has no embeddings; run it with identify.enabled" in done.output
    with open_tables(str(tmp_path / "out")) as out:
        assert out.persons.columns[:3] == ["dataset", "release", "clustering"] and len(out.persons) == 0
