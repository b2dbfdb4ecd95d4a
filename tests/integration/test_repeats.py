"""Runs over repeating frames and over pictures: both executors, and a run that was killed, give the same tables.

These are the tables of computing each frame. One run on Ray, which takes long to start, serves both kinds of input.
"""

from __future__ import annotations

import io
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
from tests.fixtures.sequences import bad_pictures, clip_pictures, write_tar

IDENTIFY = {"enabled": True, "accept_biometric": True, "min_face_px": 8, "every_s": 0.1}


@pytest.fixture(scope="module")
def inputs(props, face_clip, tmp_path_factory) -> Path:
    """Return a folder with a clip of all kinds of repeats, MJPEG with repeats, a clip without repeats, and pictures."""
    folder, pictures = tmp_path_factory.mktemp("in"), moving(props)
    write_pictures(folder / "all.mp4", pictures, NUMBERS)
    write_pictures(folder / "webcam.avi", pictures, [*DOUBLED, *FROZEN], codec="mjpeg")
    write_pictures(folder / "none.mp4", pictures, range(18))
    _write_list(folder, face_clip)
    return folder


def _write_list(folder, face_clip):
    """List the videos, a folder of pictures for two units and a tar for one, with times; one picture is bad."""
    files = []
    for i, image in enumerate(clip_pictures(face_clip, 18, 320)):
        image.save(file := io.BytesIO(), "PNG", compress_level=1)
        files.append((f"{i}.png", file.getvalue()))
    files[3] = ("3.png", bad_pictures()["half.png"])
    (folder / "faces").mkdir()
    for name, data in files:
        (folder / "faces" / name).write_bytes(data)
    write_tar(folder / "faces.tar", files[:4])
    times = " ".join(str(33_000 * i + i % 2) for i in range(18))
    listed = ["path,pts_us", "all.mp4,", "webcam.avi,", "none.mp4,", f'faces,"{times}"', 'faces.tar,"0 10 20 30"']
    (folder / "list.csv").write_text("\n".join(listed))


def config(inputs, out):
    return make_config(
        [inputs / "list.csv"], out, decode={"unit_frames": 16}, identify=IDENTIFY, derive={"enabled": True}
    )


def split(root):
    """Return the tables without `frames.repeats`, and that column by the name of the video."""
    tables = tables_of(root)
    names = {row["video_id"]: row["uri"].rsplit("/", 1)[-1] for row in tables["videos"].to_pylist()}
    repeats: dict[str, list[int | None]] = {name: [] for name in names.values()}
    for row in tables["frames"].to_pylist():
        repeats[names[row["video_id"]]].append(row["repeats"])
    return {**tables, "frames": tables["frames"].drop_columns(["repeats"])}, repeats


@pytest.fixture(scope="module")
def expected(inputs, tmp_path_factory):
    """Return the tables of a run that does not look for repeats."""
    out = tmp_path_factory.mktemp("each") / "out"
    with pytest.MonkeyPatch.context() as without:
        of = ChildSettings.of
        without.setattr(ChildSettings, "of", lambda *told: replace(of(*told), compare=False))
        run_here(config(inputs, out))
    tables, repeats = split(out)
    assert {one for of_video in repeats.values() for one in of_video} == {None}
    assert tables["faces"].num_rows > 100
    return tables


def test_pictures_have_the_times_of_the_list(expected):
    names = {row["video_id"]: row["uri"].rstrip("/").rsplit("/", 1)[-1] for row in expected["videos"].to_pylist()}
    times: dict[str, list[int]] = {"faces": [], "faces.tar": []}
    for row in expected["frames"].to_pylist():
        if (name := names[row["video_id"]]) in times:
            times[name].append(row["pts_us"])
    assert times["faces.tar"] == [0, 10, 20, 30] and times["faces"][:3] == [0, 33_001, 66_000]
    of = [names[row["video_id"]] for row in expected["faces"].to_pylist()]
    assert (of.count("faces"), of.count("faces.tar")) == (17, 3), "a face in each picture but the bad ones"


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
    again = recompute(output, 40, seed=1, release=None)
    assert (again.checked, again.differing, again.unverifiable) == (40, [], [])


def test_a_run_on_ray(cluster, inputs, expected, tmp_path) -> None:
    run(config(inputs, tmp_path / "out"), silent())
    check(tmp_path / "out", expected)
