"""Readers hold no lease: files may be replaced, erased and merged while they read, so they start again and succeed."""

import json
import os
import shutil

import pytest
from click.testing import CliRunner

from featray.cli import main
from featray.errors import StorageError
from featray.persons.settings import PersonsSettings
from featray.store.storage import write_bytes
from featray.tables import published as published_module
from featray.tables import query
from featray.tables.database import read_rows
from featray.tables.layout import Partition, list_partitions, open_output
from featray.tables.published import read_published
from featray.tables.query import connect, run_sql
from featray.upkeep import verify as verify_module
from featray.upkeep import verify_partition as parts_module
from featray.upkeep.compact import compact_partition
from featray.upkeep.erase import erase
from featray.upkeep.finish import finish_partition
from featray.upkeep.persons import find_persons
from featray.upkeep.verify import verify
from featray.upkeep.verify_partition import PartitionCheck
from tests.fixtures.crowd import Crowd
from tests.fixtures.outputs import ids

pytestmark = pytest.mark.slow

SQL = (
    "SELECT count(DISTINCT video_id) AS videos, count(DISTINCT faces.video_id) AS people "
    "FROM videos LEFT JOIN faces USING (video_id)"
)


@pytest.fixture
def ben(out):
    return ids(out)["ben"]


@pytest.fixture
def interrupted(monkeypatch):
    """Return a function that sets up one action at the end of the named function's first call, or before it."""

    def at(module, name, action, *, after=True):
        real, calls = getattr(module, name), []

        def hooked(*args, **kwargs):
            calls.append(name)
            if len(calls) > 1:
                return real(*args, **kwargs)
            if not after:
                action()
            result = real(*args, **kwargs)
            if after:
                action()
            return result

        monkeypatch.setattr(module, name, hooked)
        return calls

    return at


def asked(connection):
    return read_rows(run_sql(connection, SQL))


def compact(out):
    for partition in list_partitions(out):
        compact_partition(partition)


def test_a_video_is_erased_between_the_look_at_commits_and_the_views(out, ben, interrupted):
    before = asked(connect(out))
    looks = interrupted(published_module, "read_published", lambda: erase(out, ben))
    after = asked(connect(out))
    assert len(looks) == 2
    assert after == [{"videos": before[0]["videos"] - 1, "people": before[0]["people"] - 1}]


READING = pytest.mark.parametrize(
    "command",
    [
        ("query", "{out}", SQL, "--format", "json"),
        ("export", "{out}", "--video", "anna.mp4", "--format", "csv"),
        ("export", "{out}", "--summary", "csv"),
        ("report", "{out}", "--out", "{page}"),
        ("status", "{out}", "--json"),
    ],
    ids=["query", "export", "summary", "report", "status"],
)


@READING
@pytest.mark.parametrize("change", ["erase", "compact"])
def test_files_are_replaced_when_the_views_are_made(out, ben, interrupted, tmp_path, command, change):
    """The views exist already, so queries through them find that files are gone."""
    words = [word.format(out=out.root.path, page=tmp_path / "page.html") for word in command]
    calm = CliRunner().invoke(main, words)
    assert calm.exit_code == 0, calm.output
    made = interrupted(query, "_connect", lambda: erase(out, ben) if change == "erase" else compact(out))
    disturbed = CliRunner().invoke(main, words)
    assert disturbed.exit_code == 0, disturbed.output
    assert len(made) == 2
    if change == "compact" and command[0] not in ("report", "status"):
        assert disturbed.output == calm.output
    if change == "erase" and command[0] == "query":
        assert json.loads(disturbed.stdout)[0]["people"] == json.loads(calm.stdout)[0]["people"] - 1


@READING
@pytest.mark.parametrize("left", ["nothing", "an empty folder"])
@pytest.mark.parametrize(
    ("module", "moment"),
    [(query, "open_database"), (published_module, "list_partitions"), (published_module, "list_commits")],
)
def test_an_output_that_is_gone_is_not_an_empty_one(out, interrupted, tmp_path, command, left, module, moment):
    """A disk that is unmounted leaves an empty folder."""

    def go():
        shutil.rmtree(out.root.path)
        if left == "an empty folder":
            os.mkdir(out.root.path)

    words = [word.format(out=out.root.path, page=tmp_path / "page.html") for word in command]
    interrupted(module, moment, go)
    said = CliRunner().invoke(main, words)
    assert said.exit_code == 1 and said.stdout == "", said.output
    assert said.stderr.count("\n") == 1 and f"{out.root.path}: is gone, or is not on this machine" in said.stderr


def test_commits_that_go_while_they_are_read_are_asked_for_again(out, interrupted):
    """A compaction happens between listing and reading the commits: all of them are gone then."""
    before = asked(connect(out))
    looks = interrupted(published_module, "list_commits", lambda: compact(out))
    assert asked(connect(out)) == before
    assert len(looks) == 3, "the second sees the new commits, the third that nothing changes any more"


def test_a_replacement_is_seen_whole(out, ben, interrupted):
    """The rewritten commit of a change is read; the commit with the change is not in the listing before it."""
    looks = interrupted(published_module, "list_commits", lambda: erase(out, ben))
    (found,) = read_published(out)
    assert len(looks) > 2 and found.files("erasures") != []
    assert read_published(out) == [found]


def test_a_file_that_nobody_replaced_is_an_error(out, interrupted):
    (found,) = read_published(out)
    os.unlink(out.root.child(found.files("faces")[0]).path)
    looks = interrupted(published_module, "read_published", lambda: None)
    with pytest.raises(StorageError, match="a published file is gone or damaged"):
        connect(out)
    assert len(looks) == 2
    said = CliRunner().invoke(main, ["query", out.root.path, "SELECT 1"])
    assert said.exit_code == 1 and said.output.count("\n") == 1


def test_a_damaged_file_beside_a_run_that_publishes_is_an_error(out, interrupted):
    """Files that are only added are no reason to retry for as long as the run lasts."""
    (found,) = read_published(out)
    write_bytes(out.root.child(found.files("faces")[0]), b"junk")
    (partition,) = list_partitions(out)
    commits = [path for path in out.root.fs.find(partition.commit().path) if "run-" not in path]

    def publish():
        text = json.loads(open(commits[0], "rb").read())
        text["name"], text["files"], text["videos"] = "later", [], []
        write_bytes(Partition(out, partition.dataset, partition.release).commit("later"), json.dumps(text).encode())

    interrupted(published_module, "read_published", publish)
    with pytest.raises(StorageError, match="a published file is gone or damaged"):
        connect(out)


def test_wrong_sql_is_said_without_another_look(out, interrupted):
    looks = interrupted(published_module, "read_published", lambda: None)
    said = CliRunner().invoke(main, ["query", out.root.path, "SELECT nothing FROM nowhere"])
    assert said.exit_code == 2 and len(looks) == 1


@pytest.mark.parametrize("change", ["erase", "compact"])
def test_verify_beside_a_change(out, ben, interrupted, change):
    """The files that its list of commits names are gone when it reads them."""
    looks = interrupted(parts_module, "load_commits", lambda: erase(out, ben) if change == "erase" else compact(out))
    report = verify(out)
    assert (report.problems, report.unfinished) == ([], []) and len(looks) == 2


@pytest.mark.parametrize("moment", ["_check_runs", "_account", "_check_persons", "_check_derived", "_check_erasures"])
def test_verify_while_persons_are_found_anew(interrupted, tmp_path, moment):
    """Their table is read as a view, from the beginning to the end."""
    crowd = Crowd(tmp_path / "out")
    crowd.publish({"a.mp4": [1, 2], "b.mp4": [2]})
    find_persons(crowd.partition, PersonsSettings())
    before = {problem.line() for problem in verify(crowd.output).problems}
    interrupted(
        PartitionCheck,
        moment,
        lambda: find_persons(crowd.partition, PersonsSettings(threshold=0.9)),
        after=False,
    )
    assert {problem.line() for problem in verify(crowd.output).problems} == before


def test_verify_beside_a_publish(landed, interrupted, tmp_path):
    """Files are published after verify has read the commits."""
    shutil.copytree(landed, tmp_path / "out")
    output = open_output(str(tmp_path / "out"))
    (partition,) = list_partitions(output)
    interrupted(verify_module, "find_uncommitted", lambda: finish_partition(partition), after=False)
    report = verify(output, rederive=0)
    assert [problem.line() for problem in report.problems] == []
    assert verify(output).videos == 5
