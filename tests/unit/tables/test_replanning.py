"""The next run plans a video again if planning failed temporarily, and nothing of the failure remains."""

from dataclasses import asdict, replace

import pyarrow as pa
import pytest

from featray.config import DecodeConfig, DetectConfig, EveryNth, InputConfig
from featray.errors import ErrorCode
from featray.extract.child import ChildSettings
from featray.extract.isolation import IsolatedDecoder
from featray.extract.plan import Outcome, UnitTask, VideoPlan, VideoTask
from featray.graph.stages import PlanVideos
from featray.records import dump, load
from featray.schema import FRAMES_SCHEMA, LANDED_SCHEMA
from featray.sources.listing import list_videos
from featray.store.storage import write_bytes
from featray.tables.landing import landed_units, read_plan, write_plan
from featray.tables.layout import Partition, open_output
from featray.tables.ledger import land_unit_part
from featray.video.units import WHOLE_VIDEO

KEY = "ab" * 32


@pytest.fixture
def partition(tmp_path):
    return Partition(open_output(str(tmp_path / "out"), create=True), "d", "r")


@pytest.fixture
def planner(partition):
    made = PlanVideos(
        partition,
        IsolatedDecoder(ChildSettings(DecodeConfig(sample=EveryNth(every=12), unit_frames=16), DetectConfig(), {})),
    )
    yield made
    made._decoder.close()


@pytest.mark.parametrize(
    ("code", "again"), [(ErrorCode.FETCH_FAILED, True), (ErrorCode.NOT_A_VIDEO, False)], ids=lambda value: str(value)
)
def test_a_plan_that_failed(partition, planner, face_clip, code, again):
    (video,) = list_videos(InputConfig(uris=[str(face_clip)]))
    task = VideoTask(video, KEY, "shard", resume=True)
    folder = partition.landing(video.video_id, KEY)
    failed = VideoPlan(None, WHOLE_VIDEO, ("plan", str(code), "it was so"))
    write_plan(folder, failed)
    (unit,) = task.units(failed, {})
    outcome = Outcome(failures=[failed.failure])
    land_unit_part(partition, unit, "run", 0, LANDED_SCHEMA.empty_table(), FRAMES_SCHEMA.empty_table(), outcome)
    (table,) = planner(pa.table({"task": [dump(task).decode()]}))
    units = [load(UnitTask, text) for text in table["task"].to_pylist()]
    if again:
        assert [(unit.landed_parts, unit.failure) for unit in units] == [(0, None)] * 3
        assert landed_units(folder) == {}, "or the run after this one takes it for the first unit"
        assert len(read_plan(folder).units) == 3
    else:
        assert [unit.landed_parts for unit in units] == [1]
        assert asdict(read_plan(folder)) == asdict(failed)


@pytest.mark.parametrize("known", [True, False], ids=["of today", "older"])
def test_what_landed_before_hdr_was_looked_at_is_done_again(partition, planner, face_clip, known):
    """Otherwise one half of a video would be tone-mapped and the other not."""
    (video,) = list_videos(InputConfig(uris=[str(face_clip)]))
    task = VideoTask(video, KEY, "shard", resume=True)
    folder = partition.landing(video.video_id, KEY)
    plan = planner._plan(video)
    assert plan.header.transfer == "smpte170m"
    if not known:
        plan = replace(plan, header=replace(plan.header, transfer=None))
    write_plan(folder, plan)
    unit = next(task.units(plan, {}))
    land_unit_part(partition, unit, "run", 0, LANDED_SCHEMA.empty_table(), FRAMES_SCHEMA.empty_table(), Outcome())
    (table,) = planner(pa.table({"task": [dump(task).decode()]}))
    units = [load(UnitTask, text) for text in table["task"].to_pylist()]
    assert [unit.landed_parts for unit in units] == [int(known), 0, 0]
    assert read_plan(folder).header.transfer == "smpte170m"


def test_a_plan_that_is_damaged(partition, planner, face_clip):
    (video,) = list_videos(InputConfig(uris=[str(face_clip)]))
    folder = partition.landing(video.video_id, KEY)
    task = VideoTask(video, KEY, "shard")
    list(planner(pa.table({"task": [dump(task).decode()]})))
    plan = read_plan(folder)
    outcome, nothing = Outcome(frames_decoded=3), (LANDED_SCHEMA.empty_table(), FRAMES_SCHEMA.empty_table())
    land_unit_part(partition, next(task.units(plan, {})), "run", 0, *nothing, outcome)
    write_bytes(folder.child("plan.json"), b'{"header": null, "units": [')
    (table,) = planner(pa.table({"task": [dump(replace(task, resume=True)).decode()]}))
    assert [load(UnitTask, text).landed_parts for text in table["task"].to_pylist()] == [0] * 3
    assert read_plan(folder) == plan and landed_units(folder) == {}
