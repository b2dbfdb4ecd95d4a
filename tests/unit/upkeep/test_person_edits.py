"""Users' edits of persons are kept: a rerun applies them, an erasure removes them, a damaged record is one line."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from featray.cli import main
from featray.persons.settings import PersonsSettings
from featray.tables.lease import UnheldPartition
from featray.tables.person_edits import PersonEdit, read_edits
from featray.tables.rewrite import footer_of, open_parquet
from featray.upkeep.erase import erase
from featray.upkeep.person_edits import change_edits, undo
from featray.upkeep.persons import find_persons, read_persons
from tests.fixtures.crowd import Crowd, video_of
from tests.fixtures.outputs import everything, rows
from tests.fixtures.people import publish_persons
from tests.fixtures.tampering import file_of

VIDEOS = {f"{i}.mp4": [i % 2, 2, (3, 4 + i % 2)] for i in range(4)}
"""Tracks 0 and 1 follow each other, 2 and 3 are on screen at once; 4 and 5 are never in one video."""


@pytest.fixture
def crowd(tmp_path):
    made = Crowd(tmp_path / "out")
    made.publish(VIDEOS)
    find_persons(made.partition, PersonsSettings())
    return made


def run(crowd, *words):
    return CliRunner().invoke(main, ["persons", crowd.output.root.path, *words])


def of(crowd, person):
    """Return the only id of somebody's tracks."""
    found = read_persons(crowd.partition)
    (name,) = {found[key] for key, who in crowd.truth.items() if who == person}
    return name


def test_one_person_given_twice_is_not_merged(crowd):
    four = of(crowd, 4)
    done = run(crowd, "--merge", four, four)
    assert done.exit_code == 2 and f"--merge {four} {four}: is one person; name two" in done.stderr


def test_two_persons_are_merged_and_stay_so(crowd):
    four, five, others = of(crowd, 4), of(crowd, 5), of(crowd, 3)
    done = run(crowd, "--merge", five, four)
    assert (
        done.exit_code == 0
        and "1 edit stored" in done.output
        and f"{five if of(crowd, 4) == four else four}," in done.output
    )
    assert of(crowd, 4) == of(crowd, 5) and of(crowd, 4) in (four, five) and of(crowd, 3) == others
    together = of(crowd, 4)
    crowd.publish({"later.mp4": [4, 5, 9]})
    find_persons(crowd.partition, PersonsSettings())
    assert of(crowd, 4) == of(crowd, 5) == together, "new tracks of both come to the one person"
    again = run(crowd, "--merge", four, five)
    assert again.exit_code == 0 and len(read_edits(crowd.partition)) == 1
    undone = run(crowd, "--undo")
    assert undone.exit_code == 0 and read_edits(crowd.partition) == []
    assert (of(crowd, 4), of(crowd, 5)) == (four, five), "each has the id from before the merge, and not the other's"
    assert not list(Path(crowd.output.root.path, "_featray", "edits").rglob("*.json"))


def test_tracks_are_split_off_and_stay_so(crowd):
    two = of(crowd, 2)
    leave = [(video_of(name), 1) for name in ("0.mp4", "3.mp4")]
    done = run(crowd, "--split", "0.mp4:1", "--split", "3.mp4:1", "--json")
    (release,) = json.loads(done.output)["releases"]
    assert (
        release["parted"] and release["parted"][0][0] == two and release["parted"][0][2] == 2 and not release["merged"]
    )

    def check():
        found = read_persons(crowd.partition)
        (new,) = {found[key] for key in leave}
        (rest,) = {found[key] for key, who in crowd.truth.items() if who == 2 and key not in leave}
        return new, rest

    new, rest = check()
    assert two in (new, rest) and new != rest
    crowd.publish({"later.mp4": [2, 9]})
    find_persons(crowd.partition, PersonsSettings())
    assert check() == (new, rest)
    run(crowd, "--split", "0.mp4:1", "--split", "3.mp4:1")
    assert len(read_edits(crowd.partition)) == 1, "it is there already"
    run(crowd, "--undo")
    assert of(crowd, 2) in (new, rest)


def test_the_name_stays_with_the_tracks_that_were_not_split_off(crowd):
    """Even if they are fewer: it was said that the others are of somebody else."""
    four = of(crowd, 4)
    keys = sorted(key for key, who in crowd.truth.items() if who == 4)
    names = {video_of(name): name for name in VIDEOS}
    words = [word for video, track in keys[1:] for word in ("--split", f"{names[video]}:{track}")]
    assert len(keys) > 1 and run(crowd, *words).exit_code == 0
    found = read_persons(crowd.partition)
    assert found[keys[0]] == four and four not in {found[key] for key in keys[1:]}
    assert run(crowd, "--undo").exit_code == 0 and of(crowd, 4) == four


def test_an_undo_that_is_repeated_after_an_interruption_undoes_no_other_edit(crowd):
    """As after a kill between the new record and the new table."""
    run(crowd, "--merge", of(crowd, 4), of(crowd, 5))
    merged = read_persons(crowd.partition)
    run(crowd, "--split", "0.mp4:1")
    change_edits(crowd.partition, undo)
    again = run(crowd, "--undo")
    assert again.exit_code == 0 and len(read_edits(crowd.partition)) == 1
    assert read_persons(crowd.partition) == merged
    assert run(crowd, "--undo").exit_code == 0 and read_edits(crowd.partition) == []
    assert of(crowd, 4) != of(crowd, 5)
    assert not list(Path(crowd.output.root.path, "_featray", "edits").rglob("*.json"))


def test_a_merge_says_which_name_is_lost(tmp_path):
    crowd = Crowd(tmp_path / "out")
    crowd.publish(VIDEOS)
    names = {4: "Dora", 5: "Eve"}
    told = [
        {"video_id": video, "track_id": track, "person_id": f"p-{who:012x}", "name": names.get(who)}
        for (video, track), who in crowd.truth.items()
    ]
    publish_persons(UnheldPartition(crowd.partition), told, gallery="0123")
    done = run(crowd, "--merge", f"p-{4:012x}", f"p-{5:012x}")
    kept = {row["name"] for row in rows(crowd.output.root.path, "persons")} - {None}
    assert len(kept) == 1
    (lost,) = set(names.values()) - kept
    assert f"{lost}: nobody has this name any more; give --gallery to name persons again" in done.output
    with open_parquet(crowd.output.root.child(file_of(crowd.partition, "persons").path)) as file:
        assert footer_of(file)["gallery"] == "", "or the same gallery would count as nothing new"


def test_an_undo_is_of_the_release_that_has_edits(tmp_path):
    first, second = (Crowd(tmp_path / "out", release=f"crowd-{n}") for n in "01")
    for crowd in (first, second):
        crowd.publish(VIDEOS)
        find_persons(crowd.partition, PersonsSettings())
    assert "--undo: no release has edits" in run(first, "--undo").stderr
    done = run(first, "--split", "0.mp4:1")
    assert "several releases match; add --release" in done.stderr and "--release all" in done.stderr
    assert run(first, "--split", "0.mp4:1", "--release", "crowd-1").exit_code == 0
    assert run(first, "--undo").exit_code == 0 and read_edits(second.partition) == []


def test_what_changed_tells_a_merge_from_a_split(crowd):
    """If a person is gone, it was merged; if it is still there, it lost tracks; a rerun keeps the information."""
    four, five = sorted((of(crowd, 4), of(crowd, 5)))
    run(crowd, "--merge", four, five)
    run(crowd, "--split", "0.mp4:1")
    crowd.publish({"later.mp4": [9]})
    find_persons(crowd.partition, PersonsSettings())
    table = rows(crowd.output.root.path, "persons")
    ids = {row["person_id"] for row in table}
    moves = {(row["previous"], row["person_id"]) for row in table if row["previous"]}
    merged = [move for move in moves if move[0] not in ids]
    parted = [move for move in moves if move[0] in ids]
    assert (
        len(merged) == len(parted) == 1
        and set(merged[0]) == {four, five}
        and parted[0][0] == read_persons(crowd.partition)[video_of("1.mp4"), 1]
    )


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--merge", "{3}", "{4}"], "on screen at the same time, as tracks"),
        (["--merge", "{3}", "p-nobody"], "no release has all these persons and tracks"),
        (["--split", "0.mp4"], "write VIDEO:TRACK"),
        (["--split", "0.mp4:x\x1b[2J"], "write VIDEO:TRACK"),
        (["--split", "0.mp4:77"], "no release has all these persons and tracks"),
        (["--split", "0.mp4:0", "--split", "0.mp4:1"], "of several persons"),
        ([word for i in range(4) for word in ("--split", f"{i}.mp4:1")], "all tracks of the person"),
        (["--undo"], "has no edits"),
        (["--undo", "--split", "0.mp4:0"], "more than one edit"),
        (["--undo", "--release", "other"], "--release other: not in this output"),
    ],
)
def test_an_edit_that_cannot_be_is_one_line(crowd, words, text):
    before = read_persons(crowd.partition)
    done = run(crowd, *(word.format(*(of(crowd, who) for who in range(6))) if "{" in word else word for word in words))
    assert done.exit_code == 2 and text in done.stderr and len(done.stderr.splitlines()) == 1
    assert "\x1b" not in done.output
    assert read_edits(crowd.partition) == [] and read_persons(crowd.partition) == before


def test_an_edit_of_what_is_on_screen_at_once_now_is_not_applied_and_said(crowd):
    run(crowd, "--merge", of(crowd, 0), of(crowd, 1))
    assert of(crowd, 0) == of(crowd, 1)
    crowd.publish({"both.mp4": [(0, 1)]})
    done = run(crowd)
    assert "not applied; they are on screen together" in done.output and of(crowd, 0) != of(crowd, 1)


def test_of_what_is_erased_no_edit_is_left(crowd):
    run(crowd, "--merge", of(crowd, 4), of(crowd, 5))
    run(crowd, "--split", "0.mp4:1", "--split", "3.mp4:1")
    kept = read_edits(crowd.partition)
    assert [edit.kind for edit in kept] == ["merge", "split"]
    erase(crowd.output, video_of("0.mp4"), track_id=1)
    (split,) = (edit for edit in read_edits(crowd.partition) if edit.kind == "split")
    assert [track.video_id for track in split.tracks] == [video_of("3.mp4")]
    gone = kept[0].tracks[0].video_id
    erase(crowd.output, gone)
    assert not any(edit.kind == "merge" for edit in read_edits(crowd.partition))
    for path, text in everything(crowd.output.root.path):
        inside = str(path.relative_to(crowd.output.root.path))
        assert gone not in text or inside.startswith(("_featray/erased/", "erasures/")), path


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b'{"edits": [{"kind": "merge"',
        b'{"edits": [{"kind": "join", "tracks": []}]}',
        json.dumps({"edits": [{"kind": "merge", "tracks": [{"video_id": "../x", "track_id": 0}] * 2}]}).encode(),
        json.dumps({"edits": [{"kind": "split", "tracks": [{"video_id": "0" * 16, "track_id": 0}]}]}).encode(),
        json.dumps({"edits": [{"kind": "merge", "tracks": [{"video_id": "0" * 16, "track_id": 2**40}] * 2}]}).encode(),
        b"[" * 200_000,
    ],
)
def test_a_damaged_record_is_one_line(crowd, text):
    run(crowd, "--merge", of(crowd, 4), of(crowd, 5))
    (path,) = Path(crowd.output.root.path, "_featray", "edits").rglob("*.json")
    path.write_bytes(text)
    done = run(crowd)
    (line,) = done.stderr.splitlines()
    assert done.exit_code == 1 and str(path) in line and "damaged record of edits" in line and len(line) < 400
    found = CliRunner().invoke(main, ["verify", crowd.output.root.path])
    assert found.exit_code == 1 and sum("damaged record of edits" in one for one in found.output.splitlines()) == 1


def test_an_edit_without_its_tracks_is_none():
    edit = PersonEdit("merge", [])
    assert edit.without(set()) is None
