"""An erased person is in no table, landing, commit, export or stray file, by id, by name or by vector."""

import json
import shutil
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from featray.cli import main
from featray.config_derive import DeriveConfig
from featray.findings.derive import Derivation
from featray.tables.layout import open_output
from featray.tables.lease import HeldPartition, UnheldPartition
from featray.tables.tombstones import read_erasures
from featray.upkeep import erase as erasing
from featray.upkeep.derive import derive_partition
from featray.upkeep.erase_person import erase_person
from featray.upkeep.verify import verify
from tests.fixtures.crowd import RELEASE, Crowd, video_of
from tests.fixtures.outputs import rows
from tests.fixtures.people import publish_persons
from tests.fixtures.plugin import LONG
from tests.fixtures.runs import Killed, dies_after

pytestmark = pytest.mark.slow

VIDEOS = {"0.mp4": [0, 1, 0], "1.mp4": [(0, 2), 1], "2.mp4": [1, (2, 0)], "3.mp4": [3]}
NAME = "Anna Example"
ANNA = 0
"""A person of the crowd in three videos, twice together with somebody else."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return an output that refers to her in persons, derived rows by person, exports, a stray file and a landing."""
    crowd = Crowd(tmp_path_factory.mktemp("erase") / "out")
    crowd.publish({name: VIDEOS[name] for name in ("0.mp4", "1.mp4")})
    crowd.publish({name: VIDEOS[name] for name in ("2.mp4", "3.mp4")})
    who = {key: f"p-{person:012x}" for key, person in crowd.truth.items()}
    anna = f"p-{ANNA:012x}"
    told = [{"video_id": video, "track_id": track, "person_id": person} for (video, track), person in who.items()]
    for row in told:
        row["name"] = NAME if row["person_id"] == anna else None
        # Somebody else's track was assigned to her before.
        row["previous"] = anna if crowd.truth[row["video_id"], row["track_id"]] == 3 else None
    publish_persons(UnheldPartition(crowd.partition), told)
    derive_partition(crowd.partition, Derivation(DeriveConfig.model_validate({"baseline": "person"})))
    return Path(crowd.output.root.path), anna


@pytest.fixture
def out(finished, tmp_path):
    root, anna = finished
    shutil.copytree(root, tmp_path / "out")
    copied = tmp_path / "out"
    for video, style in (("0.mp4", "csv"), ("1.mp4", "parquet")):
        path = copied / "exports" / f"{video}.{style}"
        path.parent.mkdir(exist_ok=True)
        done = run(copied, "export", "--video", video, "--format", style, "--out", str(path))
        assert done.exit_code == 0
    run(copied, "export", "--summary", "csv", "--out", str(copied / "summary.csv"))
    run(copied, "export", "--video", "3.mp4", "--format", "csv", "--out", str(copied / "exports" / "3.csv"))
    (copied / "my labels.csv").write_text(f"video,track_id,person\n{video_of('0.mp4')},0,somebody\n")
    stray = min((copied / "embeddings").rglob("*.parquet"))
    shutil.copy(stray, stray.with_name("part-of-a-killed-run-0.parquet"))
    landing = copied / "_featray" / "landing" / "test" / RELEASE / f"{video_of('1.mp4')}-{'0' * 16}"
    landing.mkdir(parents=True)
    (landing / "0-of-1.arrow").write_bytes(vectors(copied, anna)[0])
    return copied, anna


def run(root, command, *arguments):
    return CliRunner().invoke(main, [command, str(root), *arguments], catch_exceptions=False)


def tracks_of(root, person):
    return {(row["video_id"], row["track_id"]) for row in rows(root, "persons") if row["person_id"] == person}


def vectors(root, person):
    """Return the bytes of a person's embeddings, of the mean of each track, and of the mean of all."""
    tracks = tracks_of(root, person)
    mine = [row for row in rows(root, "embeddings") if (row["video_id"], row["track_id"]) in tracks]
    found = [np.array(row["embedding"], np.float32) for row in mine]
    for some in ([r for r in mine if (r["video_id"], r["track_id"]) == key] for key in tracks):
        weighted = sum(np.array(row["embedding"]) * row["quality"] for row in some)
        found.append((weighted / np.linalg.norm(weighted)).astype(np.float32))
    total = sum(np.array(row["embedding"]) * row["quality"] for row in mine)
    found.append((total / np.linalg.norm(total)).astype(np.float32))
    return [one.tobytes() for one in found]


def decoded(path):
    """Yield a file's bytes and, for Parquet, every column's values after decompression."""
    yield path.read_bytes()
    if path.suffix == ".parquet":
        table = pq.read_table(path, partitioning=None)
        for column in table.columns:
            for chunk in column.chunks:
                flat = chunk.flatten() if str(chunk.type).startswith("list") else chunk
                yield from (buffer.to_pybytes() for buffer in flat.buffers() if buffer is not None)
        yield repr(pq.read_metadata(path).metadata).encode()


def places_of(root, words):
    """Return the files that contain one of the words in their names, bytes or values."""
    found = {}
    for path in sorted(Path(root).rglob("*")):
        if path.is_file():
            data = [str(path.relative_to(root)).encode(), *decoded(path)]
            hits = [word for word in words if any(word in piece for piece in data)]
            if hits:
                found[str(path.relative_to(root))] = hits
    return found


def others(root, gone):
    """Return everybody else's rows, once each, since a stray file repeats some of them."""
    found = {}
    for table in ("faces", "embeddings", "persons", "tracks"):
        for row in rows(root, table):
            if (row["video_id"], row["track_id"]) not in gone:
                key = (table, row["video_id"], row["track_id"], row.get("frame_index"))
                found[key] = {**row, "previous": None} if table == "persons" else row
    return found


@pytest.mark.parametrize("by", ["id", "name"])
def test_nothing_of_a_person_is_left_and_nobody_else_is_touched(out, by):
    root, anna = out
    gone = tracks_of(root, anna)
    words = [anna.encode(), NAME.encode(), *vectors(root, anna)]
    assert len(gone) == 4 and len(words) > 20
    before = places_of(root, words)
    exports = {"exports/0.mp4.csv", "exports/1.mp4.parquet", "summary.csv"}
    for place in ("embeddings/", "persons/", "_featray/landing", *exports):
        assert any(path.startswith(place) for path in before), place
    kept = others(root, gone)
    done = run(root, "erase", "--person", {"id": anna, "name": NAME}[by], "--json", "--reason", "asked")
    told = json.loads(done.stdout)["tracks"]
    assert {(one["video_id"], one["track_id"]) for one in told} == gone
    deleted = {path for one in told for here in one["erased"] for path in here["exports"]}
    assert deleted == exports
    assert places_of(root, words) == {}
    assert others(root, gone) == kept
    assert (root / "my labels.csv").exists() and (root / "exports" / "3.csv").exists()
    for table in ("faces", "embeddings", "persons", "tracks"):
        assert not gone & {(row["video_id"], row["track_id"]) for row in rows(root, table)}, table
    audit = rows(root, "erasures")
    assert {(row["video_id"], row["track_id"]) for row in audit} == gone
    assert {row["reason"] for row in audit} == {"asked"}
    assert sum(row["embeddings_removed"] for row in audit) == 4 * len(gone)
    assert {row["persons_removed"] for row in audit} == {row["tracks_removed"] for row in audit} == {1}


@pytest.mark.parametrize("whose", ["theirs", "somebody else's"])
def test_a_damaged_record_of_an_erasure_leaves_only_its_video(out, whose):
    root, anna = out
    gone = tracks_of(root, anna)
    video = min(gone)[0] if whose == "theirs" else "0123456789abcdef"
    record = root / "_featray" / "erased" / f"{video}.json"
    record.parent.mkdir(exist_ok=True)
    record.write_text("{")
    done = run(root, "erase", "--person", anna, "--json")
    assert done.exit_code == 1 and f"{video}.json: damaged record of an erasure; delete it" in done.stderr
    erased = {one for one in gone if one[0] != video}
    assert {(one["video_id"], one["track_id"]) for one in json.loads(done.stdout)["tracks"]} == erased
    assert tracks_of(root, anna) == gone - erased
    record.unlink()
    assert run(root, "erase", "--person", anna).exit_code == (0 if gone - erased else 2)
    assert tracks_of(root, anna) == set()


def test_a_release_in_which_nobody_has_the_name_is_told(tmp_path):
    """Names are given release by release, and a merge loses one: the person may be there under an id alone."""
    for number, name in enumerate((NAME, None)):
        crowd = Crowd(tmp_path / "out", release=f"crowd-{number}")
        crowd.publish({"0.mp4": [0, 1]})
        row = {"video_id": video_of("0.mp4"), "track_id": 0, "person_id": f"p-{number:012x}", "name": name}
        publish_persons(UnheldPartition(crowd.partition), [row])
    (tmp_path / "out" / "report.html").write_text("a page")
    done = run(tmp_path / "out", "erase", "--person", NAME)
    assert done.exit_code == 0, done.output
    assert (
        "test/crowd-1: has persons, but none with this id or name" in done.stdout and "crowd-0: has" not in done.stdout
    )
    assert done.stdout.endswith("not searched in OUT, delete what shows it: report.html\n")


def test_a_person_of_whom_nothing_is_left_is_not_there(out):
    root, anna = out
    run(root, "erase", "--person", anna)
    again = run(root, "erase", "--person", anna)
    assert (
        again.exit_code == 2 and f"has no person with the id or name {anna}; run `featray persons OUT`" in again.stderr
    )


@pytest.mark.parametrize("after", [0, 3, 7, 11, 12, 13] if LONG else [0, 12])
def test_killed_anywhere_the_same_command_finishes_it(out, after):
    """Killed before a commit, a deletion, or the note that a track is done."""
    root, anna = out
    words = [anna.encode(), NAME.encode(), *vectors(root, anna)]
    output = open_output(str(root))
    die = dies_after(after)
    with (
        mock.patch.object(erasing, "write_commit", die(erasing.write_commit)),
        mock.patch.object(erasing, "finish_erasure", die(erasing.finish_erasure)),
        mock.patch.object(HeldPartition, "delete", die(HeldPartition.delete)),
        pytest.raises(Killed),
    ):
        list(erase_person(output, anna))
    done = run(root, "erase", "--person", anna)
    assert done.exit_code == 0, done.output
    assert places_of(root, words) == {}
    videos = {video_of(name) for name in VIDEOS}
    assert all(one.done for video in videos for one in read_erasures(output, video))
    assert not [one for one in verify(output).unfinished if "no commit" in one]
