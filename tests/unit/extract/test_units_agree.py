"""Chunks and published rows are the same, however a video is cut into units."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featray.config import DecodeConfig, EveryNth, FramesPerSecond
from featray.extract.chunks import extract_chunks
from featray.extract.plan import Failure, Outcome, VideoTask, open_source, plan_video
from featray.faces.stride import find_faces
from featray.run.shards import cut_shards
from featray.schema import FRAMES_SCHEMA, LANDED_SCHEMA
from featray.sources.listing import list_videos
from featray.tables.landing import write_plan
from featray.tables.layout import Partition, open_output
from featray.tables.lease import UnheldPartition
from featray.tables.ledger import land_unit_part, landed_faces
from featray.tables.publish import PublishSettings, publish_shard
from tests.fixtures.found_faces import all_frames
from tests.fixtures.runs import make_config
from tests.fixtures.scenes import Scene, line, pan, still, write_clip

pytestmark = pytest.mark.slow

KEY = "ab" * 32
SAMPLES = {"all": "all", "every_3": EveryNth(every=3), "fps_10": FramesPerSecond(fps=10)}
CUTS = [33, 70, 97]
"""First frames of the clip's shots, except the first shot."""


class Known:
    """The real detector's results, each computed once."""

    batch_frames = 1
    by_picture = True

    def __init__(self, path: Path, detector) -> None:
        found = find_faces(all_frames(path), detector, every=1)
        self._faces = {seen.frame.index: seen.faces for seen in found}

    def __call__(self, frames):
        return [self._faces[frame.index] for frame in frames]


@pytest.fixture(scope="module", params=[("libx264", "mp4"), ("mpeg4", "avi")], ids=["times", "counted"])
def clip(request, props, tmp_path_factory) -> Path:
    """Return a clip of four shots, keyframes off the stride; in AVI, B-frames have no times, so frames are counted."""
    codec, suffix = request.param
    room, street = still(props.room, x=100), still(props.street)
    two = [(props.anna, line((120, 170), (6, 0), 190)), (props.bert, line((520, 190), (-6, 0), 180))]
    scenes = [
        Scene(33, room, [(props.anna, line((320, 180), (0.5, 0), 220, first=7))]),
        Scene(37, street, two),
        Scene(27, room),
        Scene(43, pan(props.street, px_a_frame=12), [(props.bert, line((200, 180), (5, 0), 200))]),
    ]
    place = tmp_path_factory.mktemp("clip") / f"clip.{suffix}"
    write_clip(place, scenes, codec=codec, keyframe_every=11)
    return place


@pytest.fixture(scope="module")
def known(clip: Path, detector) -> Known:
    return Known(clip, detector)


def publish(clip: Path, out: Path, known: Known, sample, unit_frames: int, every: int):
    """Publish a clip; return all chunks, its `frames` and `faces`, the number of units, and that of detected frames."""
    settings = DecodeConfig(sample=sample, unit_frames=unit_frames)
    (video,) = list_videos(make_config([clip], out).input)
    ((manifest, (task,)),) = cut_shards([VideoTask(video, KEY, "")], "run")
    partition = UnheldPartition(Partition(open_output(str(out), create=True), "d", "r"))
    plan = plan_video(video, settings, {}, every)
    write_plan(partition.landing(video.video_id, KEY), plan)
    chunks, outcome = {}, Outcome()
    units = list(task.units(plan, {}))
    random.Random(unit_frames).shuffle(units)
    for unit in units:
        chunks[unit.unit.index] = list(extract_chunks(unit, partial(open_source, video, {}), settings, known, every))
        for chunk in chunks[unit.unit.index]:
            faces = landed_faces(chunk.faces, {})
            last = chunk.outcome if chunk.last else None
            land_unit_part(partition, unit, "run", chunk.part, faces, chunk.frames, last)
        outcome.frames_detected += chunk.outcome.frames_detected
        assert chunk.outcome.failures == []
    publish_shard(partition, manifest, PublishSettings("run", ("faces",), ()))
    tables = {
        name: pa.concat_tables(map(pq.read_table, sorted((out / name).rglob("*.parquet")))).to_pydict()
        for name in ("frames", "faces")
    }
    flat = [chunk for index in sorted(chunks) for chunk in chunks[index]]
    return flat, tables, len(units), outcome.frames_detected


@pytest.mark.parametrize("sample", SAMPLES)
def test_units_of_any_length_give_the_same(clip, known, tmp_path, sample) -> None:
    results = {
        length: publish(clip, tmp_path / str(length), known, SAMPLES[sample], length, 5) for length in (16, 64, 512)
    }
    whole, tables, units, _ = results[512]
    assert units == 1
    assert results[16][2] >= 3
    for chunks, published, _, _ in results.values():
        assert published == tables
        assert np.array_equal(np.concatenate([c.chips for c in chunks]), np.concatenate([c.chips for c in whole]))
        faces, expected = (pa.concat_tables([c.faces.drop(["chip"]) for c in some]) for some in (chunks, whole))
        assert faces == expected


@pytest.mark.parametrize("every", [1, 5])
def test_cuts_between_units_are_seen_and_end_tracks(clip, known, tmp_path, every) -> None:
    chunks, tables, units, detected = publish(clip, tmp_path, known, "all", 16, every)
    frames, faces = tables["frames"], tables["faces"]
    cuts = [i for i, cut in zip(frames["frame_index"], frames["shot_cut"], strict=True) if cut]
    assert cuts == CUTS
    assert None not in frames["shot_cut"]
    borders = {chunk.frames["frame_index"][0].as_py() for chunk in chunks if chunk.part == 0}
    assert units > 5 and len(borders) == units
    shots = np.searchsorted(CUTS, faces["frame_index"], side="right")
    tracks = {shot: set(np.asarray(faces["track_id"])[shots == shot].tolist()) for shot in (0, 1, 3)}
    assert {shot: len(ids) for shot, ids in tracks.items()} == {0: 1, 1: 2, 3: 1}
    assert not tracks[0] & tracks[1] and not tracks[1] & tracks[3]
    repeats = sum(chunk.frames.num_rows - chunk.frames["repeats"].null_count for chunk in chunks)
    assert detected == (140 - repeats if every == 1 else detected)
    assert any(faces["interpolated"]) == (every > 1)


def test_a_cut_at_the_border_of_units(clip, known, tmp_path) -> None:
    """The second unit begins with the second shot, so the cut can only be detected from thumbnails."""
    chunks, tables, _, _ = publish(clip, tmp_path, known, "all", 33, 1)
    assert chunks[1].frames["frame_index"][0].as_py() == CUTS[0]
    assert chunks[1].frames["shot_cut"][0].as_py() is None
    assert [i for i, cut in enumerate(tables["frames"]["shot_cut"]) if cut] == CUTS
    assert [t is not None for t in chunks[0].frames["thumbnail"].to_pylist()] == [True] + [False] * 31 + [True]


def test_behind_a_unit_that_broke_off_no_cut_is_claimed(clip, known, tmp_path) -> None:
    settings = DecodeConfig(unit_frames=32)
    (video,) = list_videos(make_config([clip], tmp_path / "out").input)
    ((manifest, (task,)),) = cut_shards([VideoTask(video, KEY, "")], "run")
    partition = UnheldPartition(Partition(open_output(str(tmp_path / "out"), create=True), "d", "r"))
    plan = plan_video(video, settings, {})
    write_plan(partition.landing(video.video_id, KEY), plan)
    for unit in task.units(plan, {}):
        if unit.unit.index == 1:
            nothing = LANDED_SCHEMA.empty_table(), FRAMES_SCHEMA.empty_table()
            land_unit_part(partition, unit, "run", 0, *nothing, Outcome(failures=[Failure("decode", "timeout", "x")]))
            continue
        for chunk in extract_chunks(unit, partial(open_source, video, {}), settings, known):
            last = chunk.outcome if chunk.last else None
            land_unit_part(partition, unit, "run", chunk.part, landed_faces(chunk.faces, {}), chunk.frames, last)
    publish_shard(partition, manifest, PublishSettings("run", ("faces",), ()))
    (file,) = (tmp_path / "out" / "frames").rglob("*.parquet")
    frames = pq.read_table(file).to_pydict()
    unknown = [i for i, cut in zip(frames["frame_index"], frames["shot_cut"], strict=True) if cut is None]
    assert unknown == [plan.units[2].first_index]
