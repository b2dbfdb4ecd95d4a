"""Erase, compact, publish, derive and persons, killed with SIGKILL before each step; then the same change again.

After a kill, readers of commits see the complete old or new state; after the second change, the result is
as if nothing had happened, and no file contains a row of an erased video.
"""

import json
import os
import shutil
import subprocess
import sys

import fsspec
import pytest

from featray.config_derive import DeriveConfig
from featray.findings.derive import Derivation
from featray.persons.settings import PersonsSettings
from featray.schema import DERIVED_TABLES
from featray.tables.commits import read_commits
from featray.tables.layout import list_partitions, open_output
from featray.tables.person_edits import read_edits
from featray.tables.query import connect, run_sql
from featray.upkeep.compact import compact_partition
from featray.upkeep.derive import derive_partition
from featray.upkeep.erase import erase
from featray.upkeep.finish import finish_partition
from featray.upkeep.person_edits import change_edits, merge
from featray.upkeep.persons import find_persons
from featray.upkeep.verify import verify
from tests.fixtures import s3
from tests.fixtures.crowd import Crowd
from tests.fixtures.outputs import ids, rows, traces
from tests.fixtures.plugin import LONG

OTHER = Derivation(DeriveConfig(gap_s=0.7))
"""The settings with which `killed_change` derives."""
PER_VIDEO = ("faces", "blendshapes", "mesh", "frames", "videos", "errors")
MOST_STEPS = 80
EVERY = 1 if LONG else 13
"""Distance of the steps before which the change is killed, each time on a separate output."""


def run_killed(operation, video, uris, options=None, every=EVERY):
    """Return the number of outputs, from the first on, whose change was killed."""
    words = [operation, video, str(every), json.dumps(options or {}), *uris]
    command = [sys.executable, "-m", "tests.faults.killed_change", *words]
    result = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert result.returncode == 0, result.stderr
    return int(result.stdout)


def copies(source, folder, every=EVERY):
    uris = [str(folder / str(n)) for n in range(MOST_STEPS // every + 1)]
    for uri in uris:
        shutil.copytree(source, uri)
    return uris


def visible(output):
    """Return videos and rows that commits name, after checking that their files exist."""
    found = {}
    for partition in list_partitions(output):
        for commit in read_commits(partition):
            for video in commit.videos:
                assert video.video_id not in found, "in two commits"
                found[video.video_id] = (video.frames, video.faces)
            for file in commit.files:
                assert output.root.fs.size(output.root.child(file.path).path) == file.size_bytes, file.path
    return found


def test_an_erasure(published, tmp_path):
    uris = copies(published, tmp_path)
    video = ids(open_output(uris[0]))["ben"]
    before = visible(open_output(uris[0]))
    after = {key: value for key, value in before.items() if key != video}
    expected = {table: rows(uris[-1], table, {video}) for table in PER_VIDEO}
    killed = run_killed("erase", video, uris)
    assert killed * EVERY > 20
    for uri in uris[:killed]:
        output = open_output(uri)
        assert visible(output) in (before, after)
        assert all("its erasure was interrupted; finish it" in problem.text for problem in verify(output).problems)
        erase(output, video)
        assert visible(output) == after
        assert traces(output, "ben.mp4", video) == [] and {t: rows(uri, t) for t in PER_VIDEO} == expected
        assert len(rows(uri, "erasures")) == 1
        if uri in uris[:killed:3]:
            report = verify(output)
            assert ([p.line() for p in report.problems], report.unfinished) == ([], [])


def test_a_compaction(published, tmp_path):
    uris = copies(published, tmp_path)
    before = visible(open_output(uris[0]))
    expected = {table: rows(uris[-1], table) for table in (*PER_VIDEO, "runs")}
    killed = run_killed("compact", "-", uris)
    assert killed * EVERY > 20
    for uri in uris[:killed]:
        output = open_output(uri)
        assert visible(output) == before and verify(output).problems == []
        for partition in list_partitions(output):
            assert compact_partition(partition).files == 9
        assert visible(output) == before and {t: rows(uri, t) for t in expected} == expected
        if uri in uris[:killed:3]:
            report = verify(output)
            assert report.unfinished == [] and report.problems == []


def test_a_publish(landed, tmp_path):
    uris = copies(landed, tmp_path)
    killed = run_killed("publish", "-", uris)
    assert killed * EVERY > 15
    expected = visible(open_output(uris[killed]))
    assert len(expected) == 5
    for uri in uris[:killed]:
        output = open_output(uri)
        assert verify(output).problems == []
        assert visible(output) in ({}, expected)
        for partition in list_partitions(output):
            finish_partition(partition)
        assert visible(output) == expected
        report = verify(output)
        assert report.unfinished == [] and report.problems == []


def derived_rows(uri, name):
    """Return rows of a derivation that commits name, by table."""
    connection = connect(open_output(uri), derivation="all")
    found = {}
    for table in DERIVED_TABLES:
        sql = f"SELECT * FROM {table} WHERE derivation = '{name}' ORDER BY ALL"
        found[table] = run_sql(connection, sql).read_all().to_pylist()
    return found


def test_a_derivation(published, tmp_path):
    uris = copies(published, tmp_path)
    before = {t: rows(uris[-1], t) for t in PER_VIDEO}
    killed = run_killed("derive", "-", uris)
    assert killed * EVERY > 7
    expected = derived_rows(uris[killed], OTHER.name)
    assert expected["tracks"] and expected["events"]
    for uri in uris[:killed]:
        output = open_output(uri)
        (partition,) = list_partitions(output)
        told = run_sql(connect(output, derivation="all"), "SELECT DISTINCT derivation FROM tracks").read_all()
        assert DeriveConfig().derivation in told["derivation"].to_pylist()
        for commit in read_commits(partition):
            has = {file.table for file in commit.files if f"/derivation={OTHER.name}/" in file.path}
            assert bool(has) <= (OTHER.name in commit.derived), "rows of half a shard"
        assert verify(output).problems == []
        derive_partition(partition, OTHER)
        assert derived_rows(uri, OTHER.name) == expected and {t: rows(uri, t) for t in PER_VIDEO} == before
        report = verify(output, rederive=9)
        assert report.unfinished == [] and report.problems == []


def who(uri):
    """Return each track's person and the previous one, as readers of `persons` see them."""
    sql = "SELECT video_id, track_id, person_id, previous FROM persons ORDER BY ALL"
    return run_sql(connect(open_output(uri)), sql).read_all().to_pylist()


def test_persons_and_an_edit(tmp_path):
    """Persons are all old or all new, the merge is kept once, and no row appears twice."""
    every = 1 if LONG else 4
    crowd = Crowd(tmp_path / "crowd")
    crowd.publish({f"{i}.mp4": [i % 5, (5, 6 + i % 2)] for i in range(6)})
    find_persons(crowd.partition, PersonsSettings())
    told = {(row["video_id"], row["track_id"]): row["person_id"] for row in who(crowd.output.root.path)}
    merged = sorted({told[key] for key, person in crowd.truth.items() if person in (6, 7)})
    crowd.publish({"later.mp4": [0, 8]})
    uris = copies(crowd.output.root.path, tmp_path / "copies", every)
    before = who(uris[0])
    killed = run_killed("persons", ",".join(merged), uris, every=every)
    assert killed * every > 7 and len(merged) == 2
    expected = who(uris[killed])
    assert len(expected) == len(before) + 2
    moved = [row for row in expected if row["previous"] is not None]
    assert len(moved) == 3 and {row["previous"] for row in moved} | {row["person_id"] for row in moved} == set(merged)
    for uri in uris[:killed]:
        (partition,) = list_partitions(open_output(uri))
        assert who(uri) in (before, expected)
        change_edits(partition, merge(merged))
        find_persons(partition, PersonsSettings())
        assert who(uri) == expected and len(read_edits(partition)) == 1
        assert len([commit for commit in read_commits(partition) if commit.name.startswith("persons-")]) == 1
        report = verify(open_output(uri))
        assert report.unfinished == []
        assert not any("persons" in problem.line() or "edits" in problem.line() for problem in report.problems)


@pytest.fixture(scope="module")
def options():
    os.environ.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="hunter2", AWS_DEFAULT_REGION="us-east-1")
    with s3.server() as url:
        yield {"endpoint_url": url, "key": "test", "secret": "hunter2"}


def test_an_erasure_in_a_bucket(published, options):
    store = fsspec.filesystem("s3", **options)
    store.mkdir("tables")
    uris = [f"s3://tables/{n}" for n in range(40 if LONG else 3)]
    for uri in uris:
        store.put(f"{published}/", f"{uri}/", recursive=True)
    video = ids(open_output(str(published)))["anna"]
    before = visible(open_output(uris[0], options))
    after = {key: value for key, value in before.items() if key != video}
    killed = run_killed("erase", video, uris, options)
    assert killed * EVERY > 10
    for uri in uris[:killed]:
        output = open_output(uri, options)
        assert visible(output) in (before, after)
        erase(output, video)
        assert visible(output) == after
        report = verify(output)
        assert ([p.line() for p in report.problems], report.unfinished) == ([], [])
        kept = [path for path in store.find(uri) if "/_featray/erased/" not in path and "/erasures/" not in path]
        assert not any(b"anna.mp4" in store.cat_file(path) for path in kept)
