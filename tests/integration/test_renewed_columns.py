"""A manifest whose columns have changed: the tables take them up, and nothing is processed again."""

import json

import pytest

from featray.tables.layout import list_partitions, open_output
from featray.tables.lease import HeldPartition
from featray.tables.query import connect, run_sql
from featray.tables.summary import spread_summary
from featray.upkeep import renew
from featray.upkeep.compact import compact_partition
from featray.upkeep.verify import verify
from tests.fixtures.outputs import tables_of
from tests.fixtures.runs import Killed, dies_after, make_config, run_here

SPARSE = {"sample": {"every": 118}}
FIRST = "uri,participant,condition\na.mp4,p1,watching\nb.mp4,p2,watching\nnone.mp4,p3,resting\n"


@pytest.fixture
def study(clips, tmp_path):
    """Return a manifest, and a function that writes it and runs it."""
    for name in "ab":
        (tmp_path / f"{name}.mp4").symlink_to(clips / "face.mp4")
    people = tmp_path / "people.csv"

    def begin(text: str, **sections):
        people.write_text(text)
        return run_here(make_config([people], tmp_path / "out", decode=SPARSE, **sections))

    return begin


def columns(out, *names):
    with connect(open_output(str(out))) as opened:
        spread_summary(opened)
        return run_sql(opened, f"SELECT {', '.join(names)} FROM summary ORDER BY uri").read_all().to_pylist()


def problems(out):
    return [problem.line() for problem in verify(open_output(str(out))).problems]


def test_corrected_and_new_columns_are_taken_up(study, tmp_path):
    out = tmp_path / "out"
    assert study(FIRST).renewed == 0
    before = tables_of(out)
    assert study(FIRST).renewed == 0
    assert study("uri,condition,participant\nb.mp4,watching,p2\na.mp4,watching,p1\n").renewed == 0, "another order"

    done = study("uri,participant,condition,age\na.mp4,p1,watching,31\nb.mp4,p2,resting,\nnone.mp4,p3,resting,9\n")
    assert (done.status, done.renewed) == ("nothing_to_do", 3)
    assert columns(out, "participant", "condition", "age") == [
        {"participant": "p1", "condition": "watching", "age": "31"},
        {"participant": "p2", "condition": "resting", "age": ""},
        {"participant": "p3", "condition": "resting", "age": "9"},
    ]
    after = tables_of(out)
    assert {name for name in before if before[name] != after[name]} == {"videos"}
    assert problems(out) == []


def test_a_listing_without_columns_changes_nothing(study, tmp_path):
    study(FIRST)
    before = tables_of(tmp_path / "out")
    assert study("uri\na.mp4\nb.mp4\n").renewed == 0
    folder = run_here(make_config([f"{tmp_path}/*.mp4"], tmp_path / "out", decode=SPARSE))
    assert folder.renewed == 0 and tables_of(tmp_path / "out") == before


def test_a_manifest_after_a_folder(study, tmp_path):
    run_here(make_config([f"{tmp_path}/*.mp4"], tmp_path / "out", decode=SPARSE))
    assert study(FIRST).renewed == 2
    assert [row["participant"] for row in columns(tmp_path / "out", "participant")] == ["p1", "p2", "p3"]
    (partition,) = list_partitions(open_output(str(tmp_path / "out")))
    compact_partition(partition)
    assert study(FIRST).renewed == 0, "commits of merged files keep the digests"


def test_an_output_of_an_older_version_is_written_once(study, tmp_path):
    """Its commits have no digests of the columns."""
    study(FIRST)
    for place in (tmp_path / "out/_featray/commits").rglob("*.json"):
        commit = json.loads(place.read_text())
        for video in commit["videos"]:
            del video["extra_digest"]
        place.write_text(json.dumps(commit))
    before = sorted((tmp_path / "out").rglob("*.parquet"))
    assert (study(FIRST).renewed, study(FIRST).renewed) == (3, 0)
    assert sorted((tmp_path / "out").rglob("*.parquet")) == before and problems(tmp_path / "out") == []


@pytest.mark.parametrize("step", range(4))
def test_a_run_that_is_killed_while_it_renews(study, tmp_path, monkeypatch, step):
    """Before the file is written, before its commit, before the old file is deleted, and after."""
    out, changed = tmp_path / "out", FIRST.replace("p2,watching", "p2,resting")
    study(FIRST)
    with monkeypatch.context() as patched:
        die = dies_after(step)
        patched.setattr(renew, "rewrite_files", die(renew.rewrite_files))
        patched.setattr(renew, "write_commit", die(renew.write_commit))
        patched.setattr(HeldPartition, "delete", die(HeldPartition.delete))
        patched.setattr("featray.run.runner.sweep_temporary", die(lambda _: 0))
        with pytest.raises(Killed):
            study(changed)
    assert study(changed).renewed == (1 if step < 2 else 0)
    assert [row["condition"] for row in columns(out, "condition")] == ["watching", "resting", "resting"]
    assert problems(out) == [] and len(list((out / "videos").rglob("*.parquet"))) == 1
