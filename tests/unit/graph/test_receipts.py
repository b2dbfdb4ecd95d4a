"""Receipts: the driver's information about the parts of a unit."""

import json

import numpy as np

from featray.config import InputConfig
from featray.extract.chunks import DETECTED_SCHEMA, Chunk
from featray.extract.plan import Outcome, VideoPlan, VideoTask
from featray.graph.rows import chunk_row, feature_row
from featray.graph.stages import LandParts
from featray.records import dump
from featray.schema import FRAMES_SCHEMA, LANDED_SCHEMA
from featray.sources.listing import list_videos
from featray.tables.layout import Partition, open_output
from featray.video.units import WHOLE_VIDEO


def test_the_times_of_a_units_parts_add_up(face_clip, tmp_path):
    (video,) = list_videos(InputConfig(uris=[str(face_clip)]))
    (unit,) = VideoTask(video, "key", "shard").units(VideoPlan(None, WHOLE_VIDEO), {})
    land = LandParts(Partition(open_output(str(tmp_path / "out"), create=True), "d", "r"), "run", 1)
    total = {}
    for part, infer_seconds in enumerate((0.5, 0.25)):
        outcome = Outcome(frames_sampled=2 * part, seconds={"decode": 1.0 + part, "detect": 3.0})  # of the unit so far
        nothing = np.empty((0, 256, 256, 3), np.uint8), DETECTED_SCHEMA.empty_table(), FRAMES_SCHEMA.empty_table()
        row = chunk_row(dump(unit).decode(), Chunk(part, part == 1, *nothing, outcome))
        (receipt,) = land(feature_row(row, LANDED_SCHEMA.empty_table(), infer_seconds)).to_pylist()
        for stage, seconds in json.loads(receipt["seconds"]).items():
            total[stage] = total.get(stage, 0) + seconds
    assert total == {"infer": 0.75, "decode": 2.0, "detect": 3.0}
