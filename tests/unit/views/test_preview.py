"""The content of previews, checked by pixels and times."""

from __future__ import annotations

import shutil
import tarfile
from dataclasses import replace
from itertools import pairwise

import av
import fsspec
import numpy as np
import pytest
from PIL import Image

from featray.config import DetectConfig
from featray.errors import UsageError
from featray.faces.detectors import open_detector
from featray.names import AU_NAMES_20
from featray.sources.places import SourceOptions
from featray.tables.query import connect
from featray.video.frame import Frame
from featray.views.canvas import WARNING, track_colour
from featray.views.contours import CONTOURS
from featray.views.overlay import LAYERS, cut_square, draw_faces, hide
from featray.views.preview import PreviewSettings, hidden_squares, make_preview
from featray.views.selection import find_video, prominent_track, read_frames
from featray.views.sheet import choose_frames
from featray.views.source import find_source, open_source_of
from tests.fixtures.corpus import run_ffmpeg

pytestmark = pytest.mark.slow

HEIGHT = 360
SCALE = HEIGHT / 180


@pytest.fixture(scope="module")
def detector():
    return open_detector(DetectConfig())


@pytest.fixture(scope="module")
def clip(made, tmp_path_factory):
    """Return a clip of `turned.mp4` with boxes only."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    make_preview(made.output, str(path), PreviewSettings("turned.mp4", height_px=HEIGHT, layers=("boxes",)))
    return path


def pages(path):
    """Return the times in µs, and the pictures as PyAV frames."""
    with av.open(path) as container:
        frames = list(container.decode(video=0))
    return [round(frame.pts * frame.time_base * 1_000_000) for frame in frames], frames


def picture_of(page) -> np.ndarray:
    return page.to_ndarray(format="rgb24")[:HEIGHT, : round(320 * SCALE)]


def as_frame(image: np.ndarray) -> Frame:
    return Frame.of(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24"), index=0, pts_us=0)


def iou(a, b) -> float:
    x1, y1, x2, y2 = np.maximum(a[0], b[0]), np.maximum(a[1], b[1]), np.minimum(a[2], b[2]), np.minimum(a[3], b[3])
    shared = max(0, x2 - x1) * max(0, y2 - y1)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def faces_of(made, name):
    sql = "SELECT faces.* FROM faces JOIN videos USING (video_id) WHERE ends_with(uri, '{}') ORDER BY frame_index"
    rows = made.rows(sql.format(name))
    assert rows
    return rows


def box_of(row):
    return np.asarray([row[f"box_{edge}"] for edge in ("x1", "y1", "x2", "y2")])


def test_the_source_is_turned_and_uneven(made):
    (video,) = made.rows("SELECT * FROM videos WHERE ends_with(uri, 'turned.mp4')")
    assert (video["rotation"], video["width"], video["height"]) == (90, 320, 180)
    times = [row["pts_us"] for row in faces_of(made, "turned.mp4")]
    assert len({b - a for a, b in pairwise(times)}) > 5


def test_boxes_lie_on_the_faces_that_are_seen(made, clip, detector):
    times, frames = pages(clip)
    rows = {row["pts_us"]: row for row in faces_of(made, "turned.mp4")}
    sampled = [(rows[time], picture_of(frame)) for time, frame in zip(times, frames, strict=True) if time in rows]
    assert len(sampled) == len(rows) == 12
    for row, picture in sampled:
        (found,) = detector([as_frame(picture)])
        assert iou(found.box_xyxy[0] / SCALE, box_of(row)) > 0.85


def test_boxes_are_drawn_along_their_edges(made, clip):
    times, frames = pages(clip)
    rows = {row["pts_us"]: row for row in faces_of(made, "turned.mp4")}
    for time, frame in zip(times, frames, strict=True):
        picture = picture_of(frame).astype(int)
        near = np.linalg.norm(picture - np.asarray(track_colour(0)), axis=2) < 90
        if time not in rows:
            assert near.mean() < 0.001, "a frame that was not sampled is plain"
            continue
        x1, y1, x2, y2 = (box_of(rows[time]) * SCALE).round().astype(int)
        y2 = min(y2, HEIGHT - 2)
        for edge in (near[y1 - 1 : y1 + 2, x1:x2].max(0), near[y1:y2, x1 - 1 : x1 + 2].max(1)):
            assert edge.mean() > 0.9
        inside = near[y1 + 8 : y2 - 8, x1 + 8 : x2 - 8]
        assert inside.mean() < 0.02


def test_times_are_those_of_the_tables(made, clip, tmp_path):
    all_times, _ = pages(clip)
    rows = faces_of(made, "turned.mp4")
    assert set(row["pts_us"] for row in rows) < set(all_times)
    assert len(all_times) == 24
    make_preview(
        made.output, str(tmp_path / "s.mp4"), PreviewSettings("turned.mp4", height_px=HEIGHT, only_sampled=True)
    )
    assert pages(tmp_path / "s.mp4")[0] == [row["pts_us"] for row in rows]


def test_a_range_begins_at_zero_and_keeps_distances(made, tmp_path):
    rows = [row["pts_us"] for row in faces_of(made, "turned.mp4")]
    settings = PreviewSettings("turned.mp4", start_us=rows[5], end_us=rows[9], height_px=HEIGHT, only_sampled=True)
    assert make_preview(made.output, str(tmp_path / "c.mp4"), settings).pictures == 5
    assert pages(tmp_path / "c.mp4")[0] == [time - rows[5] for time in rows[5:10]]


def test_blurred_faces_are_gone(made, tmp_path, detector):
    settings = PreviewSettings("late.mp4", height_px=HEIGHT, blur=True)
    made_of = make_preview(made.output, str(tmp_path / "b.mp4"), settings)
    times, frames = pages(tmp_path / "b.mp4")
    assert made_of.pictures == len(
        made.rows("SELECT * FROM frames JOIN videos USING (video_id) WHERE uri LIKE '%late%'")
    )
    for frame in frames:
        (found,) = detector([as_frame(picture_of(frame))])
        assert not len(found)
    seen = faces_of(made, "late.mp4")
    assert seen and len(seen) < len(times)


def test_of_a_hidden_head_only_cells_are_left(made):
    connection = connect(made.output)
    video = find_video(connection, "turned.mp4")
    frames = read_frames(connection, video, None, None, mesh=False)
    source = open_source_of(video, None, SourceOptions())
    for shown in source.run(frames, None, None, only_sampled=True):
        (face,) = shown.sampled.faces
        picture = Image.fromarray(shown.frame.rgb())
        hide(picture, [cut_square(face)], 1.0)
        x1, y1, x2, y2 = np.clip(face.box_xyxy, 0, (320, 180, 320, 180)).astype(int)
        region = np.asarray(picture)[y1:y2, x1:x2]
        assert 4 < len(np.unique(region.reshape(-1, 3), axis=0)) <= 64
        flat = (np.diff(region.astype(int), axis=0) == 0).all(axis=2)
        assert flat.mean() > 0.9


def test_a_missed_face_stays_hidden_for_a_second(made):
    connection = connect(made.output)
    frames = read_frames(connection, find_video(connection, "turned.mp4"), None, None, mesh=False)
    gone = [replace(f, faces=()) if 3 <= i <= 5 else f for i, f in enumerate(frames)]
    hidden = hidden_squares(gone)
    before, after = cut_square(frames[2].faces[0]), cut_square(frames[6].faces[0])
    assert [hidden[frames[i].frame_index] for i in (3, 5)] == [[before, after]] * 2
    far = [replace(f, pts_us=f.pts_us + 2_000_000 * (i > 2)) for i, f in enumerate(gone)]
    assert hidden_squares(far)[frames[3].frame_index] == [after]


def test_the_mesh_is_drawn_where_the_table_says(made):
    connection = connect(made.output)
    video = find_video(connection, "turned.mp4")
    (frame, *_) = read_frames(connection, video, None, None, mesh=True)
    (row,) = made.rows(f"SELECT mesh_xyz FROM mesh WHERE {video.where} AND frame_index = {frame.frame_index}")
    assert frame.faces[0].mesh_xyz.ravel().tolist() == row["mesh_xyz"]
    # Random weights scatter the mesh, so vertices in a grid over the cut square replace it to make them findable.
    x, y, side = cut_square(frame.faces[0])
    columns, lines = (part.ravel()[:478] for part in np.meshgrid(np.arange(22), np.arange(22)))
    vertices = np.column_stack([x + side * (columns + 0.5) / 22, y + side * (lines + 0.5) / 22, 0 * lines])
    picture = Image.new("RGB", (960, 540))
    draw_faces(picture, [replace(frame.faces[0], mesh_xyz=vertices)], 3.0, frozenset({"mesh"}))
    drawn = np.asarray(picture).max(2) > 40
    places = (vertices[:, :2] * 3).astype(int)
    inside = ((places > 1) & (places < (958, 538))).all(1)
    assert inside.sum() > 400
    assert all(drawn[b - 1 : b + 2, a - 1 : a + 2].any() for a, b in places[inside])


def test_a_range_is_reached_by_a_seek_and_is_the_same(made, monkeypatch):
    connection = connect(made.output)
    video = find_video(connection, "turned.mp4")
    frames = read_frames(connection, video, None, None, mesh=False)
    whole = [shown.frame for shown in open_source_of(video, None, SourceOptions()).run(
        frames, None, None, only_sampled=True)]  # fmt: skip
    monkeypatch.setattr("featray.views.source._UNIT_FRAMES", 16)
    source = open_source_of(video, None, SourceOptions())
    start_us = frames[10].pts_us
    assert source._position_at(start_us) > 0 and source._position_at(None) == 0
    part = [shown.frame for shown in source.run(frames[10:], start_us, None, only_sampled=True)]
    assert [(frame.index, frame.pts_us) for frame in part] == [(frame.index, frame.pts_us) for frame in whole[10:]]
    assert all((a.rgb() == b.rgb()).all() for a, b in zip(part, whole[10:], strict=True))


def test_untrained_weights_are_said_on_every_picture(made, tmp_path):
    for name in ("a.png", "a.mp4"):
        make_preview(made.output, str(tmp_path / name), PreviewSettings("turned.mp4", height_px=HEIGHT, frames=3))
    sheet = np.asarray(Image.open(tmp_path / "a.png"))
    for picture in (sheet, *(frame.to_ndarray(format="rgb24") for frame in pages(tmp_path / "a.mp4")[1])):
        footer = picture[-12 if picture is not sheet else -32 :].astype(int)
        assert (np.linalg.norm(footer - WARNING, axis=2) < 90).sum() > 50


def test_only_what_carries_meaning_is_drawn(made, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("featray.views.page.draw_faces", lambda picture, faces, scale, layers: asked.append(layers))
    make_preview(made.output, str(tmp_path / "a.png"), PreviewSettings("turned.mp4", frames=1))
    make_preview(made.output, str(tmp_path / "b.png"), PreviewSettings("turned.mp4", frames=1, layers=LAYERS))
    assert asked == [{"boxes", "landmarks"}, set(LAYERS)]


def test_a_sheet_takes_frames_that_differ(made):
    connection = connect(made.output)
    frames = read_frames(connection, find_video(connection, "turned.mp4"), None, None, mesh=False)
    assert prominent_track(frames) == 0
    odd = replace(frames[7].faces[0], row={**frames[7].faces[0].row, **dict.fromkeys(AU_NAMES_20, 1.0)})
    frames[7] = replace(frames[7], faces=(odd,))
    chosen = choose_frames(frames, 3, 0)
    assert frames[7] in chosen and len(chosen) == 3
    assert chosen == sorted(chosen, key=lambda frame: frame.pts_us)
    assert len(choose_frames(frames, 50, 0)) == 12
    late = read_frames(connection, find_video(connection, "late.mp4"), None, None, mesh=False)
    with_face = sum(bool(frame.faces) for frame in late)
    assert sum(bool(frame.faces) for frame in choose_frames(late, with_face + 2, 0)) == with_face


class TestSources:
    def draw(self, made, tmp_path, **settings):
        make_preview(made.output, str(tmp_path / "s.png"), PreviewSettings("turned.mp4", frames=2, **settings))

    def test_a_copy_elsewhere_will_do(self, made, tmp_path):
        shutil.copy(made.clips / "turned.mp4", tmp_path / "moved.mp4")
        self.draw(made, tmp_path, source=str(tmp_path / "moved.mp4"))
        assert (tmp_path / "s.png").exists()

    def test_a_folder_is_told_as_such(self, made, tmp_path):
        with pytest.raises(UsageError, match="is a folder; name the file in it that is the video"):
            self.draw(made, tmp_path, source=str(tmp_path))

    def test_another_file_will_not(self, made, tmp_path, face_clip):
        with pytest.raises(UsageError, match=r"not a copy of the original: .* bytes, but the original had"):
            self.draw(made, tmp_path, source=str(face_clip))

    def test_nor_one_of_its_size_with_other_times(self, made, tmp_path):
        size = (made.clips / "turned.mp4").stat().st_size
        later = [
            "-vf",
            "setpts='PTS+0.003/TB*gt(N,0)'",
            "-fps_mode",
            "passthrough",
            "-enc_time_base",
            "1/12000",
            "-crf",
            "45",
        ]
        run_ffmpeg("-i", str(made.clips / "turned.mp4"), *later, str(tmp_path / "o.mp4"))
        with (tmp_path / "o.mp4").open("r+b") as file:
            assert file.seek(0, 2) <= size
            file.truncate(size)
        for name in ("s.png", "s.mp4"):
            settings = PreviewSettings("turned.mp4", frames=2, source=str(tmp_path / "o.mp4"))
            with pytest.raises(UsageError, match=r"has no frame \d+ at \d+ µs, .* the source changed: its content id"):
                make_preview(made.output, str(tmp_path / name), settings)
            assert not (tmp_path / name).exists()

    def test_a_member_of_a_shard_elsewhere(self, made, tmp_path):
        with tarfile.open(tmp_path / "shard.tar", "w") as tar:
            for name in ("late.mp4", "turned.mp4"):
                tar.add(made.clips / name, name)
        connection = connect(made.output)
        row = replace(find_video(connection, "turned.mp4"), member="turned.mp4")
        frames = read_frames(connection, row, None, None, mesh=False)
        fsspec.filesystem("memory").put_file(str(tmp_path / "shard.tar"), "/views/shard.tar")
        source = open_source_of(row, "memory://views/shard.tar", SourceOptions())
        shown = list(source.run(frames, None, None, only_sampled=False))
        assert [item.sampled for item in shown if item.sampled] == frames and len(shown) == 24
        with pytest.raises(UsageError, match="has no member gone"):
            find_source(replace(row, member="gone.mp4"), "memory://views/shard.tar", SourceOptions())

    def test_a_source_that_changed_is_refused(self, made, tmp_path):
        connection = connect(made.output)
        row = find_video(connection, "turned.mp4")
        with pytest.raises(UsageError, match="the source changed: its content id was x and is now mtime:"):
            find_source(replace(row, content_id="x"), None, SourceOptions())

    def test_a_source_that_is_gone(self, made):
        row = find_video(connect(made.output), "turned.mp4")
        gone = replace(row, uri=f"{row.uri}.old")
        with pytest.raises(UsageError, match=r"cannot be opened .*; name a copy of the original with --source"):
            find_source(gone, None, SourceOptions())


@pytest.mark.parametrize(
    ("settings", "path", "message"),
    [
        ({"video": "none.mp4"}, "a.png", "the last parts of one, such as "),
        ({"video": "turned.mp4", "track_id": 7}, "a.png", "--track 7: not in that part of the video; it has: 0"),
        ({"video": "turned.mp4", "columns": ("AU99",)}, "a.mp4", "--plot AU99: cannot be plotted; choose from: AU01"),
        (
            {"video": "turned.mp4", "start_us": 10**9},
            "a.png",
            "no frames in that range; its frames are from 0:0",
        ),
        ({"video": "turned.mp4"}, "a.gif", "--out .*a.gif: must end in .mp4"),
        ({"video": "turned.mp4", "release": "r"}, "a.png", "--release r: not in this output"),
    ],
)
def test_what_cannot_be_drawn_is_said(made, tmp_path, settings, path, message):
    with pytest.raises(UsageError, match=message) as caught:
        make_preview(made.output, str(tmp_path / path), PreviewSettings(**settings))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_contours_are_paths_over_the_mesh():
    from featray.names import DLIB68_VERTICES
    from featray.views import contours as c

    assert all(0 <= vertex < 478 for path in CONTOURS for vertex in path)
    closed = [path for path in CONTOURS if path not in (c.NOSE_BRIDGE, c.NOSE_BASE)]
    assert all(path[0] == path[-1] and len(set(path)) == len(path) - 1 for path in closed)
    # The 68 landmarks come from another source: each group must lie on its contour.
    groups = {
        (0, 17): c.FACE_OVAL, (17, 22): c.RIGHT_BROW, (22, 27): c.LEFT_BROW, (36, 42): c.RIGHT_EYE,
        (42, 48): c.LEFT_EYE, (48, 60): c.OUTER_LIPS, (60, 68): c.INNER_LIPS,
    }  # fmt: skip
    for (start, end), path in groups.items():
        assert set(DLIB68_VERTICES[start:end]) <= set(path)
