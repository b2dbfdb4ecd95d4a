"""Repeated frames are computed once; every row is written, with the same numbers as if each were computed."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from featray.config import DecodeConfig, EveryNth
from featray.config_identify import IdentifyConfig
from featray.extract.chunks import extract_chunks
from featray.extract.plan import VideoTask, open_source, plan_video
from featray.graph.rows import chunk_row
from featray.graph.stages import Infer, InferSettings, LandParts
from featray.model.checkpoint import read_checkpoint
from featray.records import dump
from featray.run.shards import cut_shards
from featray.sources.listing import list_videos
from featray.tables.landing import write_plan
from featray.tables.layout import Partition, open_output
from featray.tables.lease import UnheldPartition
from featray.tables.merge import Embedded
from featray.tables.publish import PublishSettings, publish_shard
from featray.video.repeats import digest
from tests.fixtures.repeated import ANSWER, NUMBERS, moving, write_pictures
from tests.fixtures.runs import make_config

pytestmark = pytest.mark.slow

KEY = "ab" * 32
TABLES = ("faces", "blendshapes", "mesh", "frames", "embeddings", "videos", "errors")


class Remembered:
    """The real detector, called once for each picture; it records the frames it is given."""

    batch_frames = 1

    def __init__(self, detector, *, by_picture: bool = True) -> None:
        self._detector, self._known = detector, {}
        self.by_picture, self.asked = by_picture, []

    def __call__(self, frames):
        self.asked += [frame.index for frame in frames]
        return [self._faces(frame) for frame in frames]

    def _faces(self, frame):
        key = digest(frame)
        if key not in self._known:
            (self._known[key],) = self._detector([frame])
        return self._known[key]


class Moved(Remembered):
    """Boxes from another source: each frame has its own, even if pictures are equal."""

    def _faces(self, frame):
        faces = super()._faces(frame)
        return type(faces)(faces.box_xyxy + np.float32(frame.index % 3), faces.score, faces.landmarks5)


@pytest.fixture(scope="module")
def pictures(props):
    return moving(props)


@pytest.fixture(scope="module")
def clip(pictures, tmp_path_factory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("repeated") / "clip.mp4", pictures, NUMBERS)


@pytest.fixture(scope="module")
def remembered(detector) -> Remembered:
    return Remembered(detector)


@pytest.fixture(scope="module")
def infer(small_network, kept_cache) -> Infer:
    sha256 = read_checkpoint(small_network).sha256
    settings = IdentifyConfig(enabled=True, accept_biometric=True, min_face_px=8, every_s=0.1)
    engine = ("openvino", "fp32", "pyfeat", 256, 1, False, kept_cache)
    return Infer(InferSettings(str(small_network), None, sha256, None, *engine, identify=settings))


@pytest.fixture
def publish(infer, tmp_path):
    """Return a function that publishes a clip and returns its tables, and the chunks by unit.

    `compare` can be set for each unit.
    """

    def publish(clip, detector, *, unit_frames=512, every=1, compare=lambda unit: True, sample="all"):
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        settings = DecodeConfig(sample=sample, unit_frames=unit_frames)
        (video,) = list_videos(make_config([clip], out).input)
        ((manifest, (task,)),) = cut_shards([VideoTask(video, KEY, "")], "run")
        partition = UnheldPartition(Partition(open_output(str(out), create=True), "d", "r"))
        plan = plan_video(video, settings, {}, every)
        write_plan(partition.landing(video.video_id, KEY), plan)
        land, chunks = LandParts(partition, "run", 1), {}
        for unit in task.units(plan, {}):
            number = unit.unit.index
            open_file = partial(open_source, video, {})
            chunks[number] = list(extract_chunks(unit, open_file, settings, detector, every, compare(number)))
            for chunk in chunks[number]:
                for row in infer(chunk_row(dump(unit).decode(), chunk)):
                    land(row)
        embedded = Embedded("face-api", 100_000)
        told = PublishSettings("run", ("faces", "blendshapes", "mesh"), (), published_at_us=1, embedded=embedded)
        publish_shard(partition, manifest, told)
        tables = {}
        for name in TABLES:
            rows = [pq.read_table(file) for file in sorted((out / name).rglob("*.parquet"))]
            tables[name] = [row for part in rows for row in part.to_pylist()]
        return tables, chunks

    return publish


def repeats(tables) -> list[int | None]:
    return [row["repeats"] for row in tables["frames"]]


def without_repeats(tables):
    frames = [{name: value for name, value in row.items() if name != "repeats"} for row in tables["frames"]]
    return {**tables, "frames": frames, "errors": [{**row, "at": None} for row in tables["errors"]]}


def chips(chunks) -> int:
    return sum(len(chunk.chips) for of_unit in chunks.values() for chunk in of_unit)


@pytest.mark.parametrize("every", [1, 5])
def test_tables_are_those_of_frames_that_are_each_computed(publish, clip, remembered, every) -> None:
    remembered.asked.clear()
    expected, all_chunks = publish(clip, remembered, every=every, compare=lambda unit: False)
    assert len(expected["frames"]) == len(expected["faces"]) == len(NUMBERS) and len(expected["embeddings"]) > 10
    assert set(repeats(expected)) == {None}
    asked, alone = len(remembered.asked), sum(one is None for one in ANSWER)
    for unit_frames in (512, 16):
        remembered.asked.clear()
        tables, chunks = publish(clip, remembered, every=every, unit_frames=unit_frames)
        assert without_repeats(tables) == without_repeats(expected)
        assert repeats(tables) == ANSWER
        assert (len(chunks) > 3) == (unit_frames == 16)
        assert len(remembered.asked) < asked
        if every == 1:
            # Besides the pictures that differ, a unit computes its first frame, even if it equals the frame before.
            again = sum(ANSWER[of_unit[0].frames["frame_index"][0].as_py()] is not None for of_unit in chunks.values())
            assert len(remembered.asked) == chips(chunks) == alone + again
        else:
            assert chips(chunks) <= chips(all_chunks) - 15


def test_where_other_frames_are_sampled_others_repeat(publish, clip, remembered) -> None:
    sampled = NUMBERS[::2]
    tables, _ = publish(clip, remembered, sample=EveryNth(every=2), unit_frames=16)
    answer = [2 * sampled.index(n) if i and sampled[i - 1] == n else None for i, n in enumerate(sampled)]
    assert repeats(tables) == answer and len(set(answer)) == 4


def test_chunks_do_not_depend_on_what_repeats_and_a_retry_repeats_them(publish, pictures, remembered, tmp_path) -> None:
    """300 frames of one picture make two chunks, as many as 300 different ones would, with one chip each."""
    still = write_pictures(tmp_path / "still.mp4", pictures, [17] * 300, keyframe_every=1000)
    (tables, chunks), (again, retried) = publish(still, remembered), publish(still, remembered)
    assert [(len(c.chips), c.faces.num_rows, c.frames.num_rows) for c in chunks[0]] == [(1, 256, 256), (1, 44, 44)]
    for one, other in zip(chunks[0], retried[0], strict=True):
        assert one.faces == other.faces and one.frames == other.frames and np.array_equal(one.chips, other.chips)
    assert tables == again
    assert repeats(tables) == [None] + [0] * 299
    assert len({row["track_id"] for row in tables["faces"]}) == 1


def test_boxes_that_are_given_are_asked_for_on_every_frame(publish, clip, detector) -> None:
    moved = Moved(detector, by_picture=False)
    expected, all_chunks = publish(clip, moved, compare=lambda unit: False)
    tables, chunks = publish(clip, moved)
    assert len(moved.asked) == 2 * len(NUMBERS)
    assert without_repeats(tables) == without_repeats(expected)
    assert repeats(tables) == ANSWER
    assert chips(chunks) == chips(all_chunks), "another box in the same picture is another chip"


def test_units_that_landed_before_frames_were_compared(publish, clip, remembered) -> None:
    expected, _ = publish(clip, remembered, unit_frames=16)
    tables, chunks = publish(clip, remembered, unit_frames=16, compare=lambda unit: unit != 1)
    assert without_repeats(tables) == without_repeats(expected)
    first, end = (chunks[unit][0].frames["frame_index"][0].as_py() for unit in (1, 2))
    found = repeats(tables)
    assert found[:first] == ANSWER[:first] and set(found[first:end]) == {None}
    later = [i for i, one in enumerate(ANSWER) if i > end and one is not None and one >= end]
    assert later and all(found[i] == ANSWER[i] for i in later)


def test_damage_in_a_run_of_repeats(publish, pictures, remembered, tmp_path) -> None:
    place = write_pictures(tmp_path / "damaged.mp4", pictures, [3] * 8 + [17] * 24 + [5] * 8, keyframe_every=8)
    data = bytearray(place.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = bytes(400)
    place.write_bytes(data)
    for unit_frames in (512, 16):
        expected, _ = publish(place, remembered, unit_frames=unit_frames, compare=lambda unit: False)
        assert expected["errors"], "the damage is noticed"
        tables, _ = publish(place, remembered, unit_frames=unit_frames)
        assert without_repeats(tables) == without_repeats(expected)
        assert sum(one is not None for one in repeats(tables)) > 20
