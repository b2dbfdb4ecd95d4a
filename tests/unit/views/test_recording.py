"""`featray view`: Rerun's own reader finds the same values in a recording as in the tables and the video."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from click.testing import CliRunner

from featray.cli import main

RrdReader = pytest.importorskip("rerun.chunk", reason="Rerun is not installed: pip install 'featray[view]'").RrdReader


def _save(made, tmp_path, *words: str) -> dict[str, list[tuple[int | None, dict]]]:
    """Return rows by entity: time in µs, None if a row applies to the whole recording, and values by component."""
    path = tmp_path / "a.rrd"
    saved = CliRunner().invoke(main, ["view", made.output.root.uri, "--save", str(path), *words])
    assert saved.exit_code == 0, saved.output
    found: dict[str, list[tuple[int | None, dict]]] = {}
    for chunk in RrdReader(str(path)).stream():
        batch = chunk.to_record_batch()
        times = [None] * batch.num_rows
        if "time" in batch.schema.names:
            times = batch["time"].cast("int64").to_numpy() // 1000
        rows = found.setdefault(chunk.entity_path, [])
        rows += [(time, row) for time, row in zip(times, batch.to_pylist(), strict=True)]
    for rows in found.values():
        rows.sort(key=lambda row: -1 if row[0] is None else row[0])
    return found


@pytest.fixture(scope="module")
def saved(made, tmp_path_factory):
    return _save(made, tmp_path_factory.mktemp("rrd"), "--video", "turned.mp4")


@pytest.fixture(scope="module")
def faces(made):
    (video,) = made.rows("SELECT video_id FROM videos WHERE uri LIKE '%turned.mp4'")
    mine = f"video_id = '{video['video_id']}' ORDER BY frame_index, face_index"
    meshes = made.rows(f"SELECT mesh_xyz FROM mesh WHERE {mine}")
    return [face | mesh for face, mesh in zip(made.rows(f"SELECT * FROM faces WHERE {mine}"), meshes, strict=True)]


def test_boxes_are_those_of_the_table_at_its_times(saved, faces, made):
    sampled = made.rows(
        "SELECT pts_us FROM frames JOIN videos USING (video_id) WHERE uri LIKE '%turned.mp4' ORDER BY 1"
    )
    assert [time for time, _ in saved["/video/faces"]] == [row["pts_us"] for row in sampled]
    logged = [
        (time, label, *np.subtract(centre, half), *np.add(centre, half))
        for time, row in saved["/video/faces"]
        for label, centre, half in zip(
            row["Boxes2D:labels"], row["Boxes2D:centers"], row["Boxes2D:half_sizes"], strict=True
        )
    ]
    assert len(logged) == len(faces) > 5
    for one, row in zip(logged, faces, strict=True):
        assert one[:2] == (row["pts_us"], f"track {row['track_id']}")
        np.testing.assert_allclose(one[2:], [row[f"box_{side}"] for side in ("x1", "y1", "x2", "y2")], atol=1e-3)


@pytest.mark.parametrize(
    ("group", "column"),
    [("action_units", "AU12"), ("emotions", "emotion_happy"), ("affect", "valence"), ("pose", "pose_yaw")],
)
def test_curves_are_the_columns_of_each_track(saved, faces, group, column):
    tracks = {row["track_id"] for row in faces}
    for track in tracks:
        logged = [(t, row["Scalars:scalars"][0]) for t, row in saved[f"/signals/{group}/{column}/track_{track}"]]
        assert logged == [(row["pts_us"], row[column]) for row in faces if row["track_id"] == track]


def test_meshes_are_those_of_the_table(saved, faces):
    in_3d = [point for _, row in saved["/head/mesh"] for point in row.get("Points3D:positions") or []]
    in_2d = [point for _, row in saved["/video/mesh"] for point in row["Points2D:positions"]]
    expected = np.concatenate([np.reshape(row["mesh_xyz"], (-1, 3)) for row in faces])
    np.testing.assert_allclose(in_3d, expected, rtol=1e-6)
    np.testing.assert_allclose(in_2d, expected[:, :2], rtol=1e-6)


def test_events_begin_and_end_as_the_table_says(saved, made):
    events = made.rows("SELECT e.* FROM events e JOIN videos USING (video_id) WHERE uri LIKE '%turned.mp4'")
    assert events
    for event in events:
        lane = saved[f"/events/track_{event['track_id']}/{event['kind']}"]
        times = {time: row["StateChange:state"] for time, row in lane}
        assert times[event["start_us"]] == [event["kind"].removeprefix("emotion_").replace("_", " ")]
        assert times[max(event["end_us"], event["start_us"] + 1)] == [""]


def test_the_video_is_upright_and_on_its_own_clock(saved, made):
    samples = [(time, row["VideoStream:sample"][0]) for time, row in saved["/video"] if row.get("VideoStream:sample")]
    decoder = av.CodecContext.create("h264", "r")
    shown = [frame for _, data in samples for frame in decoder.decode(av.Packet(bytes(data)))]
    shown += decoder.decode(None)
    with av.open(str(made.clips / "turned.mp4")) as clip:
        times = sorted(round(frame.pts * frame.time_base * 1_000_000) for frame in clip.decode(video=0))
    assert [time for time, _ in samples] == pytest.approx(times, abs=1) and len(shown) == len(times)
    assert (shown[0].width, shown[0].height) == (320, 180)


def test_notes_say_that_the_weights_are_synthetic(saved):
    ((_, row),) = saved["/notes"]
    (text,) = row["TextDocument:text"]
    assert "turned.mp4" in text and "SYNTHETIC WEIGHTS" in text


def test_blurred_heads_are_cells_and_names_are_gone(made, tmp_path):
    blurred = _save(made, tmp_path, "--video", "turned.mp4", "--blur")
    ((_, row),) = blurred["/notes"]
    assert "turned" not in row["TextDocument:text"][0]
    samples = [row["VideoStream:sample"][0] for _, row in blurred["/video"] if row.get("VideoStream:sample")]
    decoder = av.CodecContext.create("h264", "r")
    frame = decoder.decode(av.Packet(bytes(samples[0])))[0] if samples else None
    frame = frame or decoder.decode(None)[0]
    (face,) = made.rows(
        "SELECT * FROM faces JOIN videos USING (video_id) WHERE uri LIKE '%turned.mp4' ORDER BY pts_us LIMIT 1"
    )
    x, y, side = (int(face[name]) for name in ("crop_x", "crop_y", "crop_side"))
    head = frame.to_ndarray(format="gray")[max(0, y) : y + side, max(0, x) : x + side].astype(float)
    assert np.median(np.abs(np.diff(head, axis=1))) < 1


def test_a_range_and_a_wrong_ending(made, tmp_path):
    part = _save(made, tmp_path, "--video", "turned.mp4", "--from", "0.2", "--to", "0.6")
    assert all(200_000 <= time <= 600_000 for time, _ in part["/video/faces"])
    wrong = CliRunner().invoke(
        main, ["view", made.output.root.uri, "--video", "turned.mp4", "--save", str(tmp_path / "a.mp4")]
    )
    assert wrong.exit_code == 2 and "must end in .rrd" in wrong.output


@pytest.mark.parametrize(("web", "words"), [([], "without a screen, use --web or --save FILE"), (["--web"], "message")])
def test_a_viewer_that_fails_ends_the_command(made, monkeypatch, web, words):
    failed = [sys.executable, "-c", "import sys; print('Error: no DISPLAY', file=sys.stderr); sys.exit(1)"]
    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda command, **options: real(failed, **options))
    told = CliRunner().invoke(main, ["view", made.output.root.uri, "--video", "turned.mp4", *web])
    assert told.exit_code == 1 and told.stderr.count("\n") == 1
    assert "view: Rerun's viewer ended with exit status 1; " in told.stderr and words in told.stderr


def test_nothing_of_the_viewer_outlives_the_command(made, tmp_path):
    """With a shell in the viewer's place, which starts a process of its own as Rerun does."""
    code = (
        "import subprocess, sys, featray.cli; real = subprocess.Popen\n"
        f"script = 'sleep 300 & echo $! > {tmp_path}/inner.tmp; mv {tmp_path}/inner.tmp {tmp_path}/inner; wait'\n"
        "subprocess.Popen = lambda command, **options: real(['sh', '-c', script], **options)\n"
        "featray.cli.main()"
    )
    words = ["view", made.output.root.uri, "--video", "turned.mp4", "--web"]
    command = subprocess.Popen([sys.executable, "-c", code, *words])
    until = time.monotonic() + 60
    while not (tmp_path / "inner").exists():
        assert time.monotonic() < until and command.poll() is None
        time.sleep(0.05)
    command.terminate()
    command.wait(30)
    inner = int((tmp_path / "inner").read_text())
    while Path(f"/proc/{inner}/stat").exists() and ") Z " not in Path(f"/proc/{inner}/stat").read_text():
        assert time.monotonic() < until, "it still runs"
        time.sleep(0.05)


def test_without_rerun_the_command_names_the_extra(made, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)  # importing it raises ImportError, as when it is not installed
    words = ["view", made.output.root.uri, "--video", "turned.mp4", "--save", str(tmp_path / "a.rrd")]
    told = CliRunner().invoke(main, words)
    assert told.exit_code == 2 and "pip install 'featray[view]'" in told.output
