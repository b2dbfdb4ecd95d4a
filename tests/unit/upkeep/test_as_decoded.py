"""HDR stored sideways with pixels that are not square, through the whole job; and rows of it from older versions.

Anything that opens a source again must decode its frames as the run of the rows did.
"""

import json
import shutil
from fractions import Fraction

import av
import numpy as np
import pytest
import yaml
from PIL import Image

from featray.faces.overlap import iou_matrix
from featray.sources.places import SourceOptions
from featray.tables.layout import list_partitions, open_output
from featray.tables.query import connect, run_sql
from featray.upkeep.recompute import recompute
from featray.video.frame import Frame
from featray.views.preview import PreviewSettings, make_preview
from featray.views.selection import find_video, read_frames
from featray.views.source import open_source_of
from tests.fixtures.corpus import run_ffmpeg
from tests.fixtures.golden import DATA
from tests.fixtures.hdr import HLG, write_clip
from tests.fixtures.runs import make_config, run_here
from tests.fixtures.tampering import tamper


@pytest.fixture(scope="module")
def upright(face_clip) -> np.ndarray:
    """Return the picture that the clip shows, uint8 `[360, 640, 3]`."""
    with av.open(str(face_clip)) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24")


@pytest.fixture(scope="module")
def wide(upright, small_network, tmp_path_factory):
    """Return a folder with a clip, an output made from it with `auto`, and one with `off`: `auto/`, `off/`.

    The clip is stored sideways, 270x640 with pixels a third wider than high.
    """
    folder = tmp_path_factory.mktemp("wide")
    stored = Image.fromarray(np.rot90(upright, -1)).resize((270, 640), Image.Resampling.LANCZOS)
    on_side = write_clip(folder / "side.mp4", [np.asarray(stored)] * 4, transfer=HLG, sar=Fraction(4, 3))
    (folder / "in").mkdir()
    run_ffmpeg("-display_rotation", "90", "-i", str(on_side), "-c", "copy", str(folder / "in" / "wide.mp4"))
    for setting in ("auto", "off"):
        decode = {"sample": {"every": 2}, "tone_map": setting, "square_pixels": setting}
        model = {"checkpoint": str(small_network), "engine": "torch"}
        run_here(make_config([f"{folder}/in/"], folder / setting, decode=decode, model=model))
    return folder


def rows(output, sql):
    return run_sql(connect(output), sql).read_all().to_pylist()


def test_tables_tell_what_was_done(wide, upright, detector):
    auto, off = (open_output(str(wide / setting)) for setting in ("auto", "off"))
    columns = "width, height, rotation, sar, squared, transfer, tone_mapped, release"
    (done,), (left,) = (rows(output, f"SELECT {columns} FROM videos") for output in (auto, off))
    assert list(done.values())[:7] == [640, 360, 90, "4:3", True, "arib-std-b67", True]
    assert list(left.values())[:7] == [640, 270, 90, "4:3", False, "arib-std-b67", False]
    assert done["release"] != left["release"]
    faces = rows(auto, "SELECT box_x1, box_y1, box_x2, box_y2, in_frame FROM faces")
    assert len(faces) == 2
    [expected] = detector([_frame(upright)])[0].box_xyxy
    for face in faces:
        assert iou_matrix(np.asarray([list(face.values())[:4]], np.float32), expected[None])[0, 0] > 0.9


def _frame(image):
    return Frame.of(av.VideoFrame.from_ndarray(image, format="rgb24"), index=0, pts_us=0)


def shown(output):
    """Return the first frame as previews show it."""
    video = find_video(connect(output), "wide.mp4")
    source = open_source_of(video, None, SourceOptions())
    sampled = read_frames(connect(output), video, None, None, mesh=False)
    return next(source.pick(sampled[:1])).frame.rgb()


def as_of_an_older_version(wide, folder):
    """Return an output of a run without either setting: frames as stored, nothing recorded, today's config hash."""
    shutil.copytree(wide / "off", folder)
    output = open_output(str(folder))
    (partition,) = list_partitions(output)
    hashed = rows(open_output(str(wide / "auto")), "SELECT config_hash FROM runs")[0]["config_hash"]

    def forget(runs):
        for row in runs:
            config = yaml.safe_load(row["config"])
            del config["decode"]["tone_map"], config["decode"]["square_pixels"]
            row |= {"config": yaml.safe_dump(config), "config_hash": hashed}
        return runs

    tamper(partition, "runs", forget, signed=True)
    unknown = {"squared": None, "transfer": None, "tone_mapped": None}
    tamper(partition, "videos", lambda videos: [row | unknown for row in videos], signed=True)
    return output


@pytest.mark.parametrize("kind", ["auto", "older"])
def test_sources_are_opened_as_they_were(wide, upright, kind, tmp_path):
    older = kind == "older"
    output = as_of_an_older_version(wide, tmp_path / "out") if older else open_output(str(wide / kind))
    found = recompute(output, 10, seed=0, release=None)
    assert (found.checked, found.differing, found.unverifiable) == (2, [], [])
    picture = shown(output)
    assert picture.shape == ((360, 640, 3) if kind == "auto" else (270, 640, 3))
    near = np.asarray(Image.fromarray(upright).resize(picture.shape[1::-1]), float)
    assert (np.abs(picture - near).mean() < 5) == (kind == "auto")
    preview = make_preview(output, str(tmp_path / "sheet.png"), PreviewSettings("wide.mp4", frames=2))
    assert preview.pictures == 2


def test_columns_are_null_where_no_file_has_them():
    found = rows(open_output(str(DATA / "older_output")), "SELECT squared, transfer, tone_mapped, sar FROM videos")
    assert len(found) == 3 and {json.dumps(list(row.values())[:3]) for row in found} == {"[null, null, null]"}
