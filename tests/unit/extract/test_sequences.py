"""Pictures through the whole chain: as a folder, as a tar, and as a lossless video."""

import io
import json

import numpy as np
import pytest
from click.testing import CliRunner

from featray.cli import main
from featray.extract.sequences import read_whole
from featray.store.location import locate
from featray.tables.layout import open_output
from featray.tables.query import connect, run_sql
from featray.upkeep.recompute import recompute
from featray.upkeep.verify import verify
from tests.fixtures.runs import make_config, run_here, run_killed
from tests.fixtures.sequences import FPS, bad_pictures, clip_pictures, write_tar, write_video

pytestmark = pytest.mark.slow

DECODE = {"sample": "all", "unit_frames": 16}


def png(image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def plant(folder, images):
    """Write the same pictures as a folder, a tar and a video; the natural order of names is not alphabetical."""
    files = [(f"frame_{i}.png", png(image)) for i, image in enumerate(images)]
    (folder / "faces").mkdir(parents=True)
    for name, data in files:
        (folder / "faces" / name).write_bytes(data)
    write_tar(folder / "faces.tar", [(f"a/{name}", data) for name, data in reversed(files)])
    write_video(folder / "faces.mkv", images)


def rows(output, sql):
    return run_sql(connect(output), sql).read_all().to_pylist()


def assert_equal_tables(output, names):
    """Check that faces, blendshapes and mesh are bit-identical in every column for all of these videos."""
    ids = [rows(output, f"SELECT video_id FROM videos WHERE uri LIKE '%/{name}'")[0]["video_id"] for name in names]
    for table in ("faces", "blendshapes", "mesh"):
        columns = "* EXCLUDE (video_id, run_id, pts_us)"  # Matroska's times are in ms
        found = [
            run_sql(
                connect(output),
                f"SELECT {columns} FROM {table} WHERE video_id = '{video_id}' ORDER BY frame_index, face_index",
            ).read_all()
            for video_id in ids
        ]
        assert found[0].num_rows > 0
        assert all(found[0].equals(other) for other in found[1:])


@pytest.fixture(scope="module")
def planted(face_clip, tmp_path_factory):
    """Return a folder with eighteen pictures in three forms, and a folder in which three of six pictures are bad."""
    folder = tmp_path_factory.mktemp("sequences")
    images = clip_pictures(face_clip, 18, 320)
    plant(folder / "in", images)
    (folder / "odd").mkdir()
    bad = bad_pictures()
    for i, image in enumerate(images[:3]):
        (folder / "odd" / f"{2 * i}.png").write_bytes(png(image))
    for i, name in enumerate(("half.png", "bomb.png", "empty.png")):
        (folder / "odd" / f"{2 * i + 1}.png").write_bytes(bad[name])
    return folder


@pytest.fixture(scope="module")
def output(planted):
    uris = [str(planted / "in" / name) for name in ("faces", "faces.tar", "faces.mkv")] + [str(planted / "odd")]
    inputs = {"uris": uris, "sequence_fps": FPS}
    config = make_config(uris, planted / "out", decode=DECODE, input=inputs, cluster={"max_failed_fraction": 1})
    run_here(config)
    return open_output(str(planted / "out"))


@pytest.fixture(scope="module")
def unrelated(planted):
    """Return an output of the `odd` folder, processed as unrelated pictures."""
    inputs = {"uris": [f"{planted}/odd/"], "kind": "sequences", "related": False}
    run_here(make_config([], planted / "unrelated", decode=DECODE, input=inputs))
    return open_output(str(planted / "unrelated"))


def test_folder_tar_and_video_are_equal(output):
    assert_equal_tables(output, ["faces/", "faces.tar", "faces.mkv"])
    (video,) = rows(output, "SELECT * FROM videos WHERE uri LIKE '%/faces/'")
    expected = {"container": "image2", "codec": "png", "time_base": "1/25", "duration_us": 720_000, "status": "ok"}
    assert expected.items() <= video.items()
    assert (video["frames_decoded"], video["tracks"], video["member"]) == (18, 1, None)


def test_frames_have_names_and_times(output):
    found = rows(output, "SELECT f.* FROM frames f JOIN videos USING (video_id) WHERE uri LIKE '%/faces/'")
    assert [row["source_name"] for row in found] == [f"frame_{i}.png" for i in range(18)]
    assert [row["pts_us"] for row in found] == [i * 40_000 for i in range(18)]
    of_tar = rows(output, "SELECT source_name FROM frames f JOIN videos USING (video_id) WHERE uri LIKE '%.tar'")
    assert [row["source_name"] for row in of_tar] == [f"a/frame_{i}.png" for i in range(18)]
    of_video = rows(output, "SELECT source_name FROM frames f JOIN videos USING (video_id) WHERE uri LIKE '%.mkv'")
    assert {row["source_name"] for row in of_video} == {None}


def test_a_bad_picture_costs_its_frame(output):
    found = rows(output, "SELECT f.* FROM frames f JOIN videos USING (video_id) WHERE uri LIKE '%/odd/'")
    assert [row["status"] for row in found] == ["ok", "decode_error"] * 3
    (video,) = rows(output, "SELECT * FROM videos WHERE uri LIKE '%/odd/'")
    assert (video["status"], video["frames_decoded"], video["frames_sampled"], video["tracks"]) == ("partial", 3, 6, 1)
    errors = rows(output, "SELECT error_code, message FROM errors ORDER BY message")
    assert [(row["error_code"], row["message"].partition(":")[0]) for row in errors] == [
        ("decode_failed", "1.png"),
        ("too_large", "3.png"),
        ("not_a_video", "5.png"),
    ]


def test_the_outputs_verify(output, unrelated):
    assert [verify(made).problems for made in (output, unrelated)] == [[], []]


def test_numbers_come_out_again(output):
    found = recompute(output, 6, seed=1, release=None)
    assert (found.checked, found.differing, found.unverifiable) == (6, [], [])


def test_what_has_landed_is_used_again(planted, tmp_path):
    inputs = {"uris": [f"{planted}/odd/"], "sequence_fps": FPS}
    config = make_config([], tmp_path / "out", decode=DECODE, input=inputs)
    run_killed(config)
    summary = run_here(config)
    (used,) = rows(open_output(str(tmp_path / "out")), "SELECT DISTINCT run_id FROM frames")
    assert used["run_id"] != summary.job.run_id


def test_unrelated_pictures_have_no_times_and_no_tracks(unrelated):
    found = rows(unrelated, "SELECT pts_us, shot_cut FROM frames")
    assert found == [{"pts_us": None, "shot_cut": i > 0} for i in range(6)]
    tracks = rows(unrelated, "SELECT frame_index, track_id FROM faces ORDER BY frame_index")
    assert [row["track_id"] for row in tracks] == list(range(len(tracks)))
    assert [row["frame_index"] for row in tracks] == [0, 2, 4]


def test_a_stride_gives_what_it_gives_of_a_video(planted, tmp_path):
    """Faces are detected in every fourth picture and found in all; times of the folder come from a manifest."""
    times = [i * 40_000 for i in range(18)]
    manifest = planted / "list.jsonl"
    manifest.write_text(json.dumps({"path": "in/faces/", "pts_us": times}))
    uris = [str(manifest), *(str(planted / "in" / name) for name in ("faces.tar", "faces.mkv"))]
    inputs = {"uris": uris, "sequence_fps": FPS}
    run_here(make_config(uris, tmp_path / "out", decode=DECODE, detect={"every": 4}, input=inputs))
    made = open_output(str(tmp_path / "out"))
    assert_equal_tables(made, ["faces/", "faces.tar", "faces.mkv"])
    found = rows(made, "SELECT video_id, list(frame_index ORDER BY frame_index) AS told FROM faces "
                       "WHERE NOT interpolated GROUP BY video_id")  # fmt: skip
    assert [row["told"] for row in found] == [[0, 4, 8, 12, 16, 17]] * 3
    of_folder = rows(made, "SELECT f.pts_us FROM frames f JOIN videos USING (video_id) WHERE uri LIKE '%/faces/'")
    assert [row["pts_us"] for row in of_folder] == times


@pytest.mark.parametrize("which", ["output", "unrelated"])
def test_pictures_can_be_looked_at(which, request, tmp_path):
    where = request.getfixturevalue(which).root.path
    sheet, page = tmp_path / "sheet.png", tmp_path / "report.html"
    result = CliRunner().invoke(main, ["preview", where, "--video", "odd/", "--out", str(sheet)])
    assert result.exit_code == 0, result.output
    assert sheet.stat().st_size > 10_000
    result = CliRunner().invoke(main, ["report", where, "--out", str(page)])
    assert result.exit_code == 0, result.output
    assert "data:image/jpeg" in page.read_text() and "could not be opened" not in page.read_text()


@pytest.mark.parametrize("size_bytes", [-1, 0, 3, 10, 11])
def test_a_file_is_read_whole_whatever_its_listing_said(tmp_path, size_bytes):
    (tmp_path / "1.png").write_bytes(b"0123456789")
    assert read_whole(locate(str(tmp_path / "1.png")), size_bytes) == b"0123456789"


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_two_thousand_pictures(face_clip, clips, tmp_path):
    """Every tenth picture has a face; otherwise the network would take nine tenths of the time."""
    assert_many_are_equal(2000, face_clip, clips, tmp_path)


def assert_many_are_equal(count, face_clip, clips, folder):
    rng = np.random.default_rng(1)
    faces, none = clip_pictures(face_clip, count // 10, 200), clip_pictures(clips / "no_face.mp4", 95, 200)
    shrunk = [none[i % len(none)] if i % 10 else faces[i // 10] for i in range(count)]
    images = [
        image.crop((dx, 0, dx + 160, 112)) for image, dx in zip(shrunk, rng.integers(30, size=count), strict=True)
    ]
    plant(folder / "in", images)
    uris = [str(folder / "in" / name) for name in ("faces", "faces.tar", "faces.mkv")]
    inputs = {"uris": uris, "sequence_fps": FPS}
    decode, detect = {"sample": "all"}, {"input_px": 160}
    run_here(make_config(uris, folder / "out", decode=decode, detect=detect, input=inputs))
    output = open_output(str(folder / "out"))
    assert_equal_tables(output, ["faces/", "faces.tar", "faces.mkv"])
    found = rows(output, "SELECT count(*) AS frames, count_if(faces = 1) AS faces FROM frames GROUP BY video_id")
    assert len(found) == 3
    assert all(row["frames"] == count and row["faces"] >= count // 10 for row in found)
