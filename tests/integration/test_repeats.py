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


@pytest.fixture
def config(inputs, tmp_path):
    def config(name: str):
        decode = {"unit_frames": 16}
        return make_config([f"{inputs}/*"], tmp_path / name, decode=decode, identify=IDENTIFY, derive={"enabled": True})

    return config


def split(root):
    """The tables without `frames.repeats`, and that column by the name of the video."""
    tables = tables_of(root)
    names = {row["video_id"]: row["uri"].rsplit("/", 1)[-1] for row in tables["videos"].to_pylist()}
    repeats: dict[str, list[int | None]] = {name: [] for name in names.values()}
    for row in tables["frames"].to_pylist():
        repeats[names[row["video_id"]]].append(row["repeats"])
    return {**tables, "frames": tables["frames"].drop_columns(["repeats"])}, repeats


def test_tables_are_those_of_frames_that_are_each_computed(cluster, config, tmp_path, monkeypatch) -> None:
    with monkeypatch.context() as without:
        of = ChildSettings.of
        without.setattr(ChildSettings, "of", lambda *told: replace(of(*told), compare=False))
        run_here(config("each"))
    expected, none = split(tmp_path / "each")
    assert {one for repeats in none.values() for one in repeats} == {None}
    assert expected["faces"].num_rows > 100
    run_here(config("here"))
    run(config("ray"), silent())
    run_killed(config("killed"))
    run_here(config("killed"))
    for name in ("here", "ray", "killed"):
        tables, repeats = split(tmp_path / name)
        assert tables.keys() == expected.keys()
        for table, rows in expected.items():
            assert tables[table].equals(rows), (name, table)
        assert repeats["all.mp4"] == ANSWER
        assert sum(one is not None for one in repeats["webcam.avi"]) == len(DOUBLED) // 2 + 23
        assert set(repeats["none.mp4"]) == {None}
    output = open_output(str(tmp_path / "ray"))
    assert verify(output).problems == []
    again = recompute(output, 40, seed=1, release=None, storage_options=None)
    assert (again.checked, again.differing, again.unverifiable) == (40, [], [])
