"""Runs over frames that repeat: both executors, and one that was killed, give what computing each frame gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from featray.extract.child import ChildSettings
from featray.run.runner import run
from featray.tables.layout import open_output
from featray.upkeep.recompute import recompute
from featray.upkeep.verify import verify
from tests.fixtures.outputs import tables_of
from tests.fixtures.repeated import ANSWER, DOUBLED, FROZEN, NUMBERS, moving, write_pictures
from tests.fixtures.runs import make_config, run_here, run_killed, silent

IDENTIFY = {"enabled": True, "accept_biometric": True, "min_face_px": 8, "every_s": 0.1}


@pytest.fixture(scope="module")
def inputs(props, tmp_path_factory) -> Path:
    """A clip of all kinds of repeats; MJPEG in which each picture comes twice and one stays; a clip without."""
    folder, pictures = tmp_path_factory.mktemp("in"), moving(props)
    write_pictures(folder / "all.mp4", pictures, NUMBERS)
    write_pictures(folder / "webcam.avi", pictures, [*DOUBLED, *FROZEN], codec="mjpeg")
    write_pictures(folder / "none.mp4", pictures, range(18))
    return folder


def config(inputs, out):
    return make_config([f"{inputs}/*"], out, decode={"unit_frames": 16}, identify=IDENTIFY, derive={"enabled": True})


def split(root):
    """The tables without `frames.repeats`, and that column by the name of the video."""
    tables = tables_of(root)
    names = {row["video_id"]: row["uri"].rsplit("/", 1)[-1] for row in tables["videos"].to_pylist()}
    repeats: dict[str, list[int | None]] = {name: [] for name in names.values()}
    for row in tables["frames"].to_pylist():
        repeats[names[row["video_id"]]].append(row["repeats"])
    return {**tables, "frames": tables["frames"].drop_columns(["repeats"])}, repeats


@pytest.fixture(scope="module")
def expected(inputs, tmp_path_factory):
    """The tables of a run that looks for no repeats."""
    out = tmp_path_factory.mktemp("each") / "out"
    with pytest.MonkeyPatch.context() as without:
        of = ChildSettings.of
        without.setattr(ChildSettings, "of", lambda *told: replace(of(*told), compare=False))
        run_here(config(inputs, out))
    tables, repeats = split(out)
    assert {one for of_video in repeats.values() for one in of_video} == {None}
    assert tables["faces"].num_rows > 100
    return tables


def check(root, expected):
    tables, repeats = split(root)
    assert tables.keys() == expected.keys()
    for table, rows in expected.items():
        assert tables[table].equals(rows), table
    assert repeats["all.mp4"] == ANSWER
    assert sum(one is not None for one in repeats["webcam.avi"]) == len(DOUBLED) // 2 + 23
    assert set(repeats["none.mp4"]) == {None}


def test_a_run_that_is_killed_and_goes_on(inputs, expected, tmp_path) -> None:
    run_killed(config(inputs, tmp_path / "out"))
    run_here(config(inputs, tmp_path / "out"))
    check(tmp_path / "out", expected)
    output = open_output(str(tmp_path / "out"))
    assert verify(output).problems == []
    again = recompute(output, 40, seed=1, release=None, storage_options=None)
    assert (again.checked, again.differing, again.unverifiable) == (40, [], [])


def test_a_run_on_ray(cluster, inputs, expected, tmp_path) -> None:
    run(config(inputs, tmp_path / "out"), silent())
    check(tmp_path / "out", expected)
