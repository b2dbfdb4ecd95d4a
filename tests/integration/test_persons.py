"""Real people in clips with cuts, from videos to `persons`: separated correctly, for any division of the work."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from featray.persons.agreement import agreement
from featray.persons.settings import PersonsSettings
from featray.tables.layout import list_partitions, open_output
from featray.upkeep.persons import find_persons, read_persons
from tests.fixtures.outputs import rows
from tests.fixtures.plugin import LONG
from tests.fixtures.runs import run_here, silent, small_config
from tests.fixtures.studio import Studio

CLIPS, FIRST = (200, 150) if LONG else (24, 18)
ON = {"enabled": True, "accept_biometric": True, "every_s": 0.4}


@pytest.fixture(scope="module")
def studio(clips):
    return Studio.open(clips)


@pytest.fixture(scope="module")
def shot(studio, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shot")
    studio.shoot(folder, CLIPS)
    return folder


def config(uris, out, network, unit_frames, **sections):
    decode = {"sample": "all", "unit_frames": unit_frames}
    return small_config(uris, out, network, decode=decode, identify=ON, **sections)


def persons(out):
    (partition,) = list_partitions(open_output(str(out)))
    find_persons(partition, PersonsSettings())
    return read_persons(partition)


@pytest.fixture(scope="module")
def whole(shot, small_network, tmp_path_factory):
    """Run over all clips at once; return the output, and the person of each track."""
    out = tmp_path_factory.mktemp("whole") / "out"
    run_here(config([shot / "*.mp4"], out, small_network, 512))
    return out, persons(out)


def test_people_are_told_apart(studio, whole, report):
    out, found = whole
    truth, mixed = studio.people(open_output(str(out)))
    known = sorted(found.keys() & truth.keys())
    result = agreement(np.array([found[key] for key in known]), np.array([truth[key] for key in known]))
    report(
        f"persons: {CLIPS} clips, {len(studio.heads)} people, {len(known)} tracks ({mixed} over missed cuts left out): "
        f"B-cubed F {result.b_cubed_f:.3f}, pairs: precision {result.precision:.3f}, recall {result.recall:.3f}"
    )
    assert len(known) > 2 * CLIPS and mixed < 0.1 * len(known)
    assert result.b_cubed_f >= 0.95


def test_no_two_people_of_one_frame_are_one_person(whole):
    out, found = whole
    at_once = {}
    for row in rows(out, "faces"):
        if (key := (row["video_id"], row["track_id"])) in found:
            at_once.setdefault((row["video_id"], row["frame_index"]), []).append(found[key])
    assert max(map(len, at_once.values())) > 1
    assert all(len(set(people)) == len(people) for people in at_once.values())


def test_ids_stay_when_clips_are_added_and_do_not_depend_on_order_or_units(shot, whole, small_network, tmp_path):
    """First the last clips, in short units, then the others; at the end, persons are computed again from scratch."""
    out, paths = tmp_path / "out", sorted(shot.glob("*.mp4"))
    run_here(config(paths[CLIPS - FIRST :], out, small_network, 37))
    before = persons(out)
    run_here(config(paths, out, small_network, 37))
    after = persons(out)
    assert {key: after[key] for key in before} == before and len(after) > len(before)
    shutil.rmtree(out / "persons")
    for path in (out / "_featray" / "commits").rglob("persons-*.json"):
        path.unlink()
    assert persons(out) == whole[1]


@pytest.mark.long  # test_repeats.py compares the embeddings of both executors
def test_on_ray_they_are_the_same(shot, whole, small_network, cluster, tmp_path):
    from featray.run import runner

    runner.run(config([shot / "*.mp4"], tmp_path / "out", small_network, 512, cluster={"executor": "ray"}), silent())
    assert persons(tmp_path / "out") == whole[1]
