"""Frames in which the decoder concealed damage."""

from __future__ import annotations

import random
from functools import partial
from importlib.resources import files
from pathlib import Path

import av
import pytest

from featray.config import DecodeConfig
from featray.extract.chunks import extract_chunks
from featray.extract.plan import VideoTask, open_source, plan_video
from featray.sources.listing import list_videos
from tests.fixtures.runs import make_config


def damage(clip: Path, place: Path) -> list[int]:
    """Write a copy with noise inside a few packets; return the indices of the pictures that FFmpeg marks as corrupt."""
    with av.open(str(clip)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size > 200]
    chance, data = random.Random(5), bytearray(clip.read_bytes())
    for position, size in chance.sample(packets[10:], 8):
        data[position + size // 2 : position + size // 2 + 40] = chance.randbytes(40)
    place.write_bytes(data)
    with av.open(str(place)) as container:
        container.streams.video[0].thread_count = 1  # with several threads, some of the marks are lost
        return [i for i, picture in enumerate(container.decode(video=0)) if picture.is_corrupt]


@pytest.mark.parametrize(
    ("name", "unit_frames"),
    [
        ("no_face.mp4", 1000),
        ("no_face.mp4", 24),
        ("face.mp4", 1000),
        pytest.param("face.mp4", 24, marks=pytest.mark.long),  # all 472 frames again
    ],
)
def test_a_damaged_frame_without_a_face_is_not_called_empty(name, unit_frames, detector, tmp_path):
    clip = tmp_path / name
    damaged = damage(Path(str(files("featray") / "demo_clips" / name)), clip)
    assert len(damaged) == 8
    settings = DecodeConfig(sample="all", unit_frames=unit_frames)
    (video,) = list_videos(make_config([clip], tmp_path / "out").input)
    plan = plan_video(video, settings, {}, 1)
    rows, told = [], []
    for unit in VideoTask(video, "key", "").units(plan, {}):
        *_, last = chunks = list(extract_chunks(unit, partial(open_source, video, {}), settings, detector, 1))
        rows += [row for chunk in chunks for row in chunk.frames.to_pylist()]
        told += [message for _, _, message in last.outcome.failures]
    assert {row["frame_index"]: row["status"] for row in rows} == {
        row["frame_index"]: "ok" if row["faces"] else "decode_error" if row["frame_index"] in damaged else "no_face"
        for row in rows
    }
    assert any("damaged frames kept" in message for message in told)
    if name == "no_face.mp4":
        assert [row["frame_index"] for row in rows if row["status"] == "decode_error"] == damaged
    else:
        assert any(row["faces"] for row in rows if row["frame_index"] in damaged)
