"""Rows are computed again from their sources: they are equal if nothing was changed, and changed numbers are named."""

import json
import os
import shutil
import tarfile

import pytest
from click.testing import CliRunner

from featray.cli import main
from featray.tables.layout import list_partitions, open_output
from featray.upkeep.recompute import recompute
from featray.upkeep.verify import verify
from tests.fixtures.runs import run_here, small_config
from tests.fixtures.tampering import tamper

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def sources(inputs, small_network, tmp_path_factory):
    """Return a folder with a clip of several units, a tar with two others, and the output made from them."""
    folder = tmp_path_factory.mktemp("sources")
    shutil.copy(inputs / "anna.mp4", folder / "long [1].mp4")
    with tarfile.open(folder / "shard.tar", "w") as tar:
        tar.add(inputs / "empty.mp4", "empty.mp4")
        tar.add(inputs / "ben.mp4", "in side/ben.mp4")
    network = shutil.copy(small_network, folder / "network.safetensors")
    config = small_config([f"{folder}/"], folder / "out", network, decode={"sample": {"every": 24}, "unit_frames": 16})
    run_here(config)
    return folder


@pytest.fixture
def mine(sources, tmp_path):
    """Return a copy of the output; its sources stay where they are."""
    shutil.copytree(sources / "out", tmp_path / "out")
    return open_output(str(tmp_path / "out"))


def again(output, count, seed=0):
    return recompute(output, count, seed=seed, release=None)


def test_numbers_come_out_again(mine, report):
    found = again(mine, 12)
    assert (found.asked, found.checked, found.differing, found.unverifiable) == (12, 12, [], [])
    assert set(found.worst) >= {"boxes", "landmarks", "score", "sharpness", "au", "mesh", "blendshapes"}
    assert max(worst.difference for worst in found.worst.values()) < 1e-6
    report(f"recompute: worst difference {max(w.difference for w in found.worst.values()):.2g} (fp32, same machine)")


def test_the_seed_says_which_rows(mine):
    one, same, *others = (again(mine, 1, seed).worst["au"].row for seed in (1, 1, 2, 3, 4))
    assert one == same
    assert set(others) != {one}  # of twenty rows, two seeds may draw the same, hardly four


EDITS = [
    ("faces", "AU06", lambda value: value + 4e-5 if value < 0.5 else value - 4e-5),
    ("faces", "score", lambda value: value - 0.001),
    ("mesh", "mesh_xyz", lambda values: [*values[:900], values[900] + 1, *values[901:]]),
    ("blendshapes", "jawOpen", lambda value: value + 0.01 if value < 0.5 else value - 0.01),
]


def test_edited_numbers_are_named(mine):
    """One number in each table and of each kind is edited, each in a row of its own, so each gets its own line."""
    (partition,) = list_partitions(mine)
    expected = []
    for number, (table, column, edit) in enumerate(EDITS, 12):

        def change(rows, number=number, column=column, edit=edit):
            rows[number][column] = edit(rows[number][column])
            where = f"video {rows[number]['video_id']} frame {rows[number]['frame_index']} face 0"
            expected.append(f"{where}: {column} is")
            return rows

        tamper(partition, table, change, signed=True)
    # Values derived from an edited number no longer follow from it.
    assert verify(mine, rederive=0).problems == [], (
        "the commits were edited to match, and the numbers are in their ranges"
    )
    lines = again(mine, 1000).differing
    assert len(lines) == len(EDITS)
    assert all(any(words in line for line in lines) for words in expected), (expected, lines)


def test_a_face_that_is_not_there_is_named(mine):
    (partition,) = list_partitions(mine)

    def move(rows):
        rows[15]["frame_index"] += 1
        return rows

    for table in ("faces", "blendshapes", "mesh"):
        tamper(partition, table, move, signed=True)
    (line,) = again(mine, 1000).differing
    assert "recomputation found no such face" in line


def test_what_cannot_be_done_again_is_said_and_is_no_failure(sources, mine, tmp_path):
    clip, shard, network = (sources / name for name in ("long [1].mp4", "shard.tar", "network.safetensors"))
    hidden, stat = tmp_path / "hidden.mp4", shard.stat()
    shutil.move(clip, hidden)
    os.utime(shard, (1, 1))
    command = ["verify", mine.root.path, "--recompute", "1000"]
    try:
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
        assert "20 rows" in result.output and "long [1].mp4: does not exist" in result.output
        assert "has changed since" in result.output and "recomputed  0 of 40 faces" in result.output
        shutil.move(network, tmp_path / "network.safetensors")
        found = json.loads(CliRunner().invoke(main, [*command, "--json"]).output)
        assert found["ok"] and len(found["recompute"]["unverifiable"]) == 2
        assert "no such checkpoint file" in found["recompute"]["unverifiable"][0]
        network.write_bytes(b"other weights")
        assert CliRunner().invoke(main, command).exit_code == 0
    finally:
        shutil.move(hidden, clip)
        os.utime(shard, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        shutil.move(tmp_path / "network.safetensors", network)
    assert again(mine, 1000).checked == 40
