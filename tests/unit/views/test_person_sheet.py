"""A person's contact sheet shows the faces of the tables with their certainty, and can hide the person."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from featray.cli import main
from featray.tables.layout import list_partitions, open_output
from featray.tables.lease import UnheldPartition
from featray.tables.query import connect
from featray.views import person_sheet as module
from featray.views.canvas import WARNING
from featray.views.overlay import BLUR_CELLS
from featray.views.tracks_of_person import read_tracks
from tests.fixtures.people import publish_persons

ANNA, BEN = "p-aaaaaaaaaaaa", "p-bbbbbbbbbbbb"


@pytest.fixture
def out(made, tmp_path):
    """Return an output with Anna in both clips, certainly in one of them; a third track belongs to somebody else."""
    return with_anna(made, tmp_path, turned=(0.99, 0.2), late=(0.961, 0.004))


def with_anna(made, tmp_path, turned, late):
    """Return a copy of the output with Anna in both clips, with these similarities and margins."""
    shutil.copytree(made.output.root.path, tmp_path / "out")
    output = open_output(str(tmp_path / "out"))
    (partition,) = list_partitions(output)
    ids = {Path(row["uri"]).name: row["video_id"] for row in made.rows("SELECT uri, video_id FROM videos")}
    anna = {"person_id": ANNA, "name": "Anna", "track_id": 0}
    rows = [
        {**anna, "video_id": ids["turned.mp4"], "similarity": turned[0], "margin": turned[1]},
        {**anna, "video_id": ids["late.mp4"], "similarity": late[0], "margin": late[1], "previous": BEN},
    ]
    publish_persons(UnheldPartition(partition), rows)
    return output


def draw(out, path, *more, person=ANNA):
    arguments = ["preview", out.root.path, "--person", person, "--out", str(path), *more]
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


def tile(path, number):
    """Return a tile's large picture and the whole tile."""
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    left = module._EDGE + number * (module._TILE[0] + module._EDGE)
    top = module._HEADER
    whole = picture[top : top + module._TILE[1], left : left + module._TILE[0]]
    return whole[3 : module._LARGE - 20, 3 : module._LARGE - 3], whole


def has(pixels, colour):
    return bool((np.abs(pixels - colour).sum(axis=-1) == 0).any())


def test_of_the_doubtful_the_smallest_margin_comes_first(made, tmp_path):
    """A track that is nearer to another person than to its own is the least certain, whatever its similarity."""
    out = with_anna(made, tmp_path, turned=(0.95, 0.009), late=(0.97, -0.003))
    margins = [one.margin for one in read_tracks(connect(out), ANNA, None, 9)]
    assert margins == pytest.approx([-0.003, 0.009])


def test_the_least_certain_comes_first_and_doubt_is_marked(out, tmp_path):
    path = tmp_path / "sheet.png"
    done = draw(out, path)
    assert done.exit_code == 0 and done.stdout == f"{path}  2 tracks of {ANNA} in 2 videos, 1 doubtful\n"
    doubtful, sure = (tile(path, number)[1] for number in (0, 1))
    assert has(doubtful, WARNING) and not has(sure, WARNING)
    draw(out, path, "--frames", "1")
    assert Image.open(path).width == module._EDGE + 2 * (module._TILE[0] + module._EDGE)
    assert has(tile(path, 0)[1], WARNING)


def test_its_faces_are_those_of_the_frames(out, made, tmp_path):
    """The large picture is the square from the tables, cut from the decoded frame around the same centre."""
    path = tmp_path / "sheet.png"
    draw(out, path)
    preview = tmp_path / "frame.png"
    track = next(one for one in read_tracks(connect(out), ANNA, None, 9) if one.similarity > 0.98)
    assert len(track.faces) == 3 and [one.pts_us for one in track.faces] == sorted(one.pts_us for one in track.faces)
    face = track.faces[1]
    time = f"{face.pts_us / 1e6:.6f}"
    arguments = ["preview", out.root.path, "--video", "turned.mp4", "--out", str(preview), "--from", time, "--to", time]
    assert CliRunner().invoke(main, [*arguments, "--draw", "landmarks", "--frames", "1"]).exit_code == 0
    shown = Image.open(preview)
    large = tile(path, 1)[0]
    row = made.rows(f"SELECT crop_x, crop_y, crop_side, width FROM faces JOIN videos USING (video_id) "
                    f"WHERE frame_index = {face.frame_index} AND video_id = '{track.video_id}'")[0]  # fmt: skip
    scale = (shown.width - 20) / row["width"]
    middle = [(row[f"crop_{axis}"] + row["crop_side"] / 2) * scale + 10 for axis in "xy"]
    half = row["crop_side"] * module._ROOM / 2 * scale
    box = (middle[0] - half, middle[1] - half, middle[0] + half, middle[1] + half)
    expected = np.asarray(shown.convert("RGB").crop([round(x) for x in box]).resize((module._LARGE, module._LARGE)))
    expected = expected.astype(int)[3 : module._LARGE - 20, 3 : module._LARGE - 3]
    inside = slice(30, 180), slice(40, 190)
    found = np.corrcoef(large[inside].mean(axis=-1).ravel(), expected[inside].mean(axis=-1).ravel())[0, 1]
    assert found > 0.9


def test_blur_leaves_cells_and_no_name(out, made, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(module, "text", lambda draw, at, words, *rest: told.append(words))
    titles = []
    monkeypatch.setattr(module, "shortened", lambda words, *rest: titles.append(words) or words)
    path = tmp_path / "sheet.png"
    draw(out, path)
    assert f"Anna, {ANNA}" in titles and f"{made.clips.name}/turned.mp4" in told
    sharp = tile(path, 1)[0]
    titles.clear(), told.clear()
    draw(out, path, "--blur")
    assert ANNA in titles and not any("Anna" in words or ".mp4" in words for words in (*titles, *told))
    colours = {tuple(pixel) for pixel in tile(path, 1)[0][40:160, 60:180].reshape(-1, 3)}
    steps = np.abs(np.diff(tile(path, 1)[0].mean(axis=-1), axis=1))[60:150]
    assert (steps < 2).mean() > 0.6 > 0.5, "flat cells, but for their edges"
    assert len(colours) < len({tuple(pixel) for pixel in sharp[40:160, 60:180].reshape(-1, 3)}) / 2
    assert BLUR_CELLS == 8


def test_persons_of_videos_that_the_output_does_not_have(out, tmp_path):
    """The table `persons` of an output that somebody else made may name any video."""
    (partition,) = list_partitions(out)
    publish_persons(UnheldPartition(partition), [{"person_id": BEN, "video_id": "0" * 16, "track_id": 0}], "1")
    done = draw(out, tmp_path / "sheet.png", person=BEN)
    assert done.exit_code == 1 and done.stderr.count("\n") == 1
    assert "no video has the tracks that `persons` names for this person; run `featray verify`" in done.stderr


def test_by_name_as_json(out, tmp_path):
    done = draw(out, tmp_path / "sheet.jpg", "--json", person="Anna")
    found = json.loads(done.stdout)
    assert (found["persons"], found["tracks"], found["doubtful"], found["missing"]) == ([ANNA], 2, 1, [])
    assert Image.open(tmp_path / "sheet.jpg").format == "JPEG"


def test_videos_that_moved_are_said_and_found_where_they_are(out, made, tmp_path):
    root = Path(out.root.path)
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.copy(made.clips / "turned.mp4", moved / "turned.mp4")
    one = draw(out, tmp_path / "sheet.png", "--source", str(moved))
    assert one.exit_code == 0 and "not at hand, and not shown: late.mp4; --source names the folder" in one.stdout
    done = draw(out, tmp_path / "none.png", "--source", str(root))
    (line,) = done.stderr.splitlines()
    assert done.exit_code == 2 and "cannot be opened" in line and "none of 2 videos of this person is available" in line
    assert not (tmp_path / "none.png").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--person", "p-nobody", "--out", "x.png"], "`featray persons OUT` finds them, after a run with identify"),
        (["--person", ANNA, "--out", "x.mp4"], "must end in .png, .jpg, .jpeg"),
        (["--person", ANNA, "--video", "late.mp4", "--out", "x.png"], "name either --video or --person"),
        (["--out", "x.png"], "name either --video or --person"),
        (["--person", ANNA, "--from", "1s", "--out", "x.png"], "--from: goes with --video"),
    ],
)
def test_what_is_refused_is_one_line(out, more, message):
    done = CliRunner().invoke(main, ["preview", out.root.path, *more])
    assert done.exit_code == 2 and message in done.stderr and done.stderr.count("\n") == 1
