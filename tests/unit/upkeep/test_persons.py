"""Persons are published once, stay when videos are added, and an erased person is nowhere."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from featray.cli import main
from featray.errors import UsageError
from featray.persons.agreement import agreement
from featray.persons.settings import PersonsSettings
from featray.persons.truth import read_truth
from featray.tables.commits import read_commits
from featray.tables.opened import open_tables
from featray.upkeep import persons as module
from featray.upkeep.compact import compact_partition
from featray.upkeep.finish import finish_partition
from featray.upkeep.persons import find_persons
from tests.fixtures.crowd import Crowd, video_of
from tests.fixtures.hostile import House
from tests.fixtures.outputs import bytes_of, everything, rows

FIRST = {f"{i}.mp4": [i % 5, (i + 1) % 5, i % 5, (5, 6 + i % 2)] for i in range(8)}
LATER = {f"later-{i}.mp4": [7 + i, (i % 5, 5)] for i in range(3)}


@pytest.fixture
def crowd(tmp_path):
    made = Crowd(tmp_path / "out")
    made.publish(FIRST)
    return made


def who(crowd):
    found = rows(crowd.output.root.path, "persons")
    return {(row["video_id"], row["track_id"]): row["person_id"] for row in found}


def test_people_are_found_across_shots_and_videos(crowd):
    done = find_persons(crowd.partition, PersonsSettings())
    found = who(crowd)
    assert found.keys() == crowd.truth.keys() and done.tracks == len(found) == 40
    names, truth = np.array(list(found.values())), np.array([crowd.truth[key] for key in found])
    assert agreement(names, truth).b_cubed_f == 1 and done.persons == 8
    for row in rows(crowd.output.root.path, "persons"):
        assert row["similarity"] > 0.96 and row["margin"] > 0.5 and row["previous"] is None
    assert sum(done.histogram.values()) == 40 and sum(count for _, count in done.largest) == 40


def test_ids_stay_when_videos_are_added_and_do_not_depend_on_the_order(crowd, tmp_path):
    find_persons(crowd.partition, PersonsSettings())
    before = who(crowd)
    early = min((f"early-{i}.mp4" for i in range(500)), key=video_of)  # its tracks come first now
    assert video_of(early) < min(before)[0]
    crowd.publish({**LATER, early: [0, 1, 2, 3, 4]})
    done = find_persons(crowd.partition, PersonsSettings())
    after = who(crowd)
    assert {key: after[key] for key in before} == before and done.renamed == 0
    assert len(after) == len(before) + 14 and done.persons == 10
    other = Crowd(tmp_path / "other")
    for name in reversed(FIRST):
        other.publish({name: FIRST[name]})
    find_persons(other.partition, PersonsSettings())
    assert who(other) == before


def test_the_same_is_not_done_twice_and_only_the_last_counts(crowd):
    assert find_persons(crowd.partition, PersonsSettings()).fresh
    again = find_persons(crowd.partition, PersonsSettings())
    assert not again.fresh and again.persons == 8
    joined = find_persons(crowd.partition, PersonsSettings(0.01))
    assert joined.fresh and joined.clustering != again.clustering and joined.renamed > 0
    assert len(list(Path(crowd.output.root.path, "persons").rglob("*.parquet"))) == 1
    assert [row["previous"] for row in rows(crowd.output.root.path, "persons")].count(None) < 40


def test_only_moves_of_this_call_are_reported(crowd):
    """`previous` keeps the moves of earlier calls, which nobody needs to hear again."""
    find_persons(crowd.partition, PersonsSettings())
    joined = find_persons(crowd.partition, PersonsSettings(0.01))
    assert joined.renamed == sum(tracks for *_, tracks in joined.merged) > 0 and not joined.parted
    again = find_persons(crowd.partition, PersonsSettings(0.01))
    assert not again.fresh and (again.renamed, again.merged, again.parted) == (0, [], [])
    assert find_persons(crowd.partition, PersonsSettings()).renamed > 0
    crowd.publish(LATER)
    added = find_persons(crowd.partition, PersonsSettings())
    assert added.fresh and (added.renamed, added.merged, added.parted) == (0, [], [])
    assert [row["previous"] for row in rows(crowd.output.root.path, "persons")].count(None) < added.tracks


@pytest.mark.parametrize("after", ["files", "commit"])
def test_a_kill_leaves_the_old_or_the_new(crowd, after, monkeypatch):
    find_persons(crowd.partition, PersonsSettings())
    before = who(crowd)
    crowd.publish(LATER)
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_commit" if after == "files" else "carry_out", _killed)
        with pytest.raises(KeyboardInterrupt):
            find_persons(crowd.partition, PersonsSettings())
    with open_tables(crowd.output.root.path) as out:
        shown = len(out.sql("SELECT * FROM persons").fetchall())
    assert shown == (40 if after == "files" else 49)
    finish_partition(crowd.partition)
    find_persons(crowd.partition, PersonsSettings())
    assert {key: who(crowd)[key] for key in before} == before and len(who(crowd)) == 49
    assert len([c for c in read_commits(crowd.partition) if c.name.startswith("persons-")]) == 1


def _killed(*_):
    raise KeyboardInterrupt


def test_it_is_a_view_and_compaction_keeps_it(crowd):
    find_persons(crowd.partition, PersonsSettings())
    before = who(crowd)
    crowd.publish(LATER)
    compact_partition(crowd.partition)
    with open_tables(crowd.output.root.path) as out:
        together = out.sql(
            "SELECT count(*), count(DISTINCT person_id) FROM faces "
            "JOIN persons USING (dataset, release, video_id, track_id)"
        )
        assert together.fetchall() == [(160, 8)]
        assert out.persons.count("*").fetchall() == [(40,)]
    assert who(crowd) == before


def test_a_person_is_erased_everywhere(crowd):
    find_persons(crowd.partition, PersonsSettings())
    crowd.publish({"ben.mp4": [9]})  # a video of somebody who has no person yet, and stays
    root = crowd.output.root.path
    gone = who(crowd)[video_of("0.mp4"), 0]
    tracks = [key for key, name in who(crowd).items() if name == gone]
    others = {key: name for key, name in who(crowd).items() if name != gone}
    of_person = [row for row in rows(root, "embeddings") if (row["video_id"], row["track_id"]) in tracks]
    left = len(rows(root, "embeddings")) - len(of_person)
    vectors = [np.array(row["embedding"], np.float32).tobytes() for row in of_person]
    result = CliRunner().invoke(main, ["erase", root, "--person", gone, "--json"], catch_exceptions=False)
    assert [(one["video_id"], one["track_id"]) for one in json.loads(result.stdout)["tracks"]] == sorted(tracks)
    assert who(crowd) == others and len(rows(root, "embeddings")) == left
    for table in ("faces", "embeddings", "persons"):
        assert not [row for row in rows(root, table) if (row["video_id"], row["track_id"]) in tracks]
    for path, text in everything(root):
        assert gone not in text, path
        data = bytes_of(path)
        assert not any(vector in data for vector in vectors), path
    audit = rows(root, "erasures")
    assert len(audit) == len(tracks) and {row["persons_removed"] for row in audit} == {1}
    assert sum(row["embeddings_removed"] for row in audit) == len(of_person)
    find_persons(crowd.partition, PersonsSettings())
    assert others.items() <= who(crowd).items() and gone not in who(crowd).values()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--person", "p-nobody"], "no person with the id or name p-nobody"),
        (["--person", "p-x", "--track", "0"], "give either --video"),
        ([], "give either --video"),
    ],
)
def test_an_erasure_that_names_nobody_is_refused(crowd, arguments, text):
    result = CliRunner().invoke(main, ["erase", crowd.output.root.path, *arguments])
    assert result.exit_code == 2 and text in result.output


def test_the_command_tells_who_is_there(crowd):
    root = crowd.output.root.path
    result = CliRunner().invoke(main, ["persons", root], catch_exceptions=False)
    assert result.exit_code == 0 and "8 persons found in 40 tracks" in result.output and "0.99 ####" in result.output
    again = CliRunner().invoke(main, ["persons", root, "--json"], catch_exceptions=False)
    (release,) = json.loads(again.stdout)["releases"]
    assert (release["persons"], release["fresh"]) == (8, False)


def test_labels_say_how_good_it_is(crowd, tmp_path):
    """First all labels are right; then one of two tracks that follow each other is labelled as the other's person."""
    root, file = crowd.output.root.path, tmp_path / "labels.csv"
    names = {video_of(name): name for name in FIRST}
    labels = {key: f"person {who}" for key, who in crowd.truth.items()}

    def told():
        lines = [f"{names[video]},{track},{person}" for (video, track), person in labels.items()]
        file.write_text("\n".join(["video,track_id,person", *lines]))
        arguments = ["persons", root, "--truth", str(file), "--json"]
        (release,) = json.loads(CliRunner().invoke(main, arguments, catch_exceptions=False).stdout)["releases"]
        return release["truth"]

    def with_semicolons():
        file.write_text(file.read_text().replace(",", ";"))
        result = CliRunner().invoke(main, ["persons", root, "--truth", str(file)], catch_exceptions=False)
        return result.output

    right = {"labelled": 40, "absent": [], "without": 0, "precision": 1, "recall": 1, "b_cubed_f": 1, "switches": 0}
    assert told() == right
    assert "against 40 labelled tracks" in with_semicolons()
    video = video_of("0.mp4")
    labels[video, 1] = labels[video, 0]
    wrong = told()
    assert wrong["switches"] == 2 and wrong["b_cubed_f"] < 1 and wrong["recall"] < 1 and wrong["precision"] < 1
    labels[video, 99] = "nobody"
    assert (told()["labelled"], told()["without"], told()["absent"]) == (40, 0, [[video, 99]])
    result = CliRunner().invoke(main, ["persons", root, "--truth", str(file)], catch_exceptions=False)
    assert "against 40 labelled tracks (0 without a person): B-cubed F 0.9" in result.output
    assert f"--truth: 1 label of tracks that this release lacks, such as {video}:99\n" in result.output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("video,track_id,person\n", "has no row"),
        ("video,person\n0.mp4,a\n", "line 2: invalid row; it needs video, track_id, person"),
        ("video,track_id,person\n0.mp4,77,a\n", "none of its tracks has a person"),
        (f"video,track_id,person\n0.mp4,{'9' * 5000},a\n", "line 2: invalid row; it needs video, track_id, person"),
    ],
)
def test_labels_that_are_none_are_refused(crowd, tmp_path, text, message):
    file = tmp_path / "labels.csv"
    if text is not None:
        file.write_text(text)
    result = CliRunner().invoke(main, ["persons", crowd.output.root.path, "--truth", str(file)])
    assert result.exit_code == 2 and message in result.output


def test_labels_with_many_columns_take_no_memory(tmp_path):
    """Cells that a row lacks are not made up."""
    header = ",".join([*(f"c{number}" for number in range(2000)), "video,track_id,person"])
    row = "," * 2000 + "0.mp4,7,anna"
    (tmp_path / "labels.csv").write_text("\n".join([header, row, *["a"] * 1000]))
    tracemalloc.start()
    with pytest.raises(UsageError, match="line 3: invalid row"):
        read_truth(tmp_path / "labels.csv", str)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 4 << 20


def test_an_output_without_embeddings_says_how_to_make_them(out):
    result = CliRunner().invoke(main, ["persons", out.root.path], catch_exceptions=False)
    assert "has no embeddings; run it with identify.enabled" in result.output
    assert not Path(out.root.path, "persons").exists()


def damage(crowd, table, edit):
    """Rewrite a table's largest file as another program would, with its commit changed to match."""
    house = House(Path(crowd.output.root.path).parent, Path(crowd.output.root.path), Path(), "")
    house.edit_table(table, edit)


def replaced(name, values, kind=None):
    def edit(rows):
        column = pa.array([values] * rows.num_rows, kind or rows.schema.field(name).type)
        return rows.set_column(rows.column_names.index(name), name, column)

    return edit


@pytest.mark.parametrize(
    ("table", "edit"),
    [
        ("embeddings", replaced("embedding", [float("nan")] * 128)),
        ("embeddings", replaced("embedding", "x", pa.string())),
        ("embeddings", replaced("embedding", [1.0] * 5)),
        ("embeddings", replaced("quality", float("inf"))),
        ("embeddings", replaced("video_id", None)),
        ("embeddings", replaced("track_id", 2**40, pa.int64())),
        ("embeddings", lambda rows: rows.drop_columns(["embedder"])),
        ("embeddings", replaced("embedder", "another")),
        ("faces", replaced("track_id", "x", pa.string())),
        ("persons", lambda rows: rows.drop_columns(["person_id"])),
        ("persons", replaced("person_id", None)),
        ("persons", replaced("similarity", "x", pa.string())),
    ],
)
def test_damaged_rows_are_one_line(crowd, table, edit):
    crowd.publish(LATER)
    find_persons(crowd.partition, PersonsSettings())
    damage(crowd, table, edit)
    result = CliRunner().invoke(main, ["persons", crowd.output.root.path])
    (line,) = result.stderr.splitlines()
    assert result.exit_code == 1 and line.startswith("featray: ") and len(line) < 400


def test_names_of_somebody_elses_reach_no_terminal(crowd):
    find_persons(crowd.partition, PersonsSettings())
    damage(crowd, "persons", replaced("person_id", "p\x1b[31m"))
    result = CliRunner().invoke(main, ["persons", crowd.output.root.path], catch_exceptions=False)
    assert "already found" in result.output and "\x1b" not in result.output


def test_a_release_without_labelled_tracks_stops_no_other(crowd, tmp_path):
    """Two datasets in an output, with labels for one of them."""
    other = Crowd(tmp_path / "out", dataset="aaa")
    other.publish(LATER)
    labels = tmp_path / "labels.csv"
    labels.write_text("video,track_id,person\n0.mp4,0,a\n0.mp4,2,a\n")
    arguments = ["persons", crowd.output.root.path, "--truth", str(labels), "--json"]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    first, second = json.loads(result.stdout)["releases"]
    assert result.exit_code == 0 and "truth" not in first and second["truth"]["labelled"] == 2


@pytest.mark.parametrize("words", [("derive", "--set", "derive.gap_s=0.7"), ("persons", "--threshold", "0.9")])
def test_a_release_with_a_lost_file_does_not_stop_the_others(tmp_path, words):
    lost, sound = (Crowd(tmp_path / "out", dataset=name) for name in ("a", "b"))
    for crowd in (lost, sound):
        crowd.publish({"a.mp4": [1, 2]})
    for table in ("faces", "embeddings"):
        next((tmp_path / "out" / table / "dataset=a").rglob("*.parquet")).unlink()
    done = CliRunner().invoke(main, [words[0], str(tmp_path / "out"), *words[1:]])
    assert done.exit_code == 1 and "does not exist; `featray verify` says what to do" in done.stderr
    assert "b/crowd-0: " in done.stdout
