import contextlib
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from featray.errors import OutputError
from featray.extract.plan import Failure, Outcome, VideoPlan
from featray.records import dump
from featray.schema import FRAMES_SCHEMA, LANDED_SCHEMA
from featray.store.location import locate
from featray.store.storage import write_bytes
from featray.tables.commits import ManifestVideo, ShardManifest
from featray.tables.landing import PartHeader, landed_units, read_part, read_plan, write_part, write_plan
from featray.tables.layout import Partition, open_output
from featray.tables.lease import UnheldPartition
from featray.tables.publish import PublishSettings, publish_shard
from featray.video.container import Header
from featray.video.units import Unit


def header(unit, part, outcome=None):
    return PartHeader("0123456789abcdef", "ab" * 32, unit, part, "run", 1, 123, outcome)


def faces(count):
    columns = {}
    for field in LANDED_SCHEMA:
        if field.name == "mesh_xyz":
            columns[field.name] = pa.array([[0.5] * 1434] * count, field.type)
        elif field.name == "landmarks5":
            columns[field.name] = pa.array([[1.0] * 10] * count, field.type)
        else:
            columns[field.name] = pa.array(np.arange(count)).cast(field.type)
    return pa.table(columns, schema=LANDED_SCHEMA)


@pytest.fixture
def folder(tmp_path):
    return locate(str(tmp_path))


def test_a_part_comes_back_as_it_landed(folder):
    row = {"frame_index": 0, "pts_us": 0, "status": "ok", "faces": 1, "keyframe": True, "thumbnail": bytes(6912)}
    frames = pa.Table.from_pylist([row], schema=FRAMES_SCHEMA)
    outcome = Outcome(frames_decoded=3, frames_sampled=1, failures=[Failure("decode", "timeout", "x")])
    write_part(folder, header(0, 0, outcome), faces(7), frames)
    ((name,),) = landed_units(folder).values()
    part = read_part(folder.child(name))
    assert part.faces == faces(7)
    assert part.frames == frames
    assert part.outcome.frames_decoded == 3
    assert part.outcome.failures == [Failure("decode", "timeout", "x")]


@pytest.mark.parametrize(("column", "length"), [("mesh_xyz", 2), ("landmarks5", 1)])
def test_a_list_of_another_length_is_damage(folder, column, length):
    rows = faces(2)
    short = pa.array([[0.5] * length] * 2, rows[column].type)
    rows = rows.set_column(rows.column_names.index(column), rows.schema.field(column), short)
    write_part(folder, header(0, 0, Outcome()), rows, FRAMES_SCHEMA.empty_table())
    ((name,),) = landed_units(folder).values()
    with pytest.raises(OutputError, match=f"{name}: damaged; delete its folder"):
        read_part(folder.child(name))


def test_a_unit_has_landed_when_its_last_part_and_all_before_it_are_there(folder):
    write_part(folder, header(0, 0), faces(1), FRAMES_SCHEMA.empty_table())
    write_part(folder, header(1, 0), faces(1), FRAMES_SCHEMA.empty_table())
    write_part(folder, header(1, 2, Outcome()), faces(1), FRAMES_SCHEMA.empty_table())
    assert landed_units(folder) == {}
    write_part(folder, header(0, 1, Outcome()), faces(1), FRAMES_SCHEMA.empty_table())
    write_part(folder, header(2, 0, Outcome()), faces(0), FRAMES_SCHEMA.empty_table())
    assert {unit: len(parts) for unit, parts in landed_units(folder).items()} == {0: 2, 2: 1}


def test_of_several_last_parts_the_furthest_that_can_be_reached_counts(folder):
    """Attempts that lost a part in the middle, and one that ended earlier, with a failure."""
    for part, outcome in ((1, Outcome()), (0, Outcome())):
        write_part(folder, header(0, part, outcome), faces(1), FRAMES_SCHEMA.empty_table())
    for part, outcome in ((0, None), (2, Outcome()), (1, Outcome())):
        write_part(folder, header(1, part, outcome), faces(1), FRAMES_SCHEMA.empty_table())
    assert landed_units(folder) == {
        0: ["u000000-p0000-last.arrow"],
        1: ["u000001-p0000.arrow", "u000001-p0001-last.arrow"],
    }
    write_part(folder, header(1, 1), faces(1), FRAMES_SCHEMA.empty_table())
    assert [name[8:13] for name in landed_units(folder)[1]] == ["p0000", "p0001", "p0002"]


def test_a_failed_retry_wins_over_parts_of_the_attempt_before_it(folder):
    write_part(folder, header(0, 0), faces(1), FRAMES_SCHEMA.empty_table())
    write_part(folder, header(0, 0, Outcome()), faces(0), FRAMES_SCHEMA.empty_table())
    ((name,),) = landed_units(folder).values()
    assert name.endswith("-last.arrow")


def test_a_damaged_part_is_named(folder):
    place = folder.child("u000000-p0000-last.arrow")
    write_bytes(place, b"not arrow")
    with pytest.raises(OutputError, match=r"u000000-p0000-last\.arrow: damaged"):
        read_part(place)


def test_a_part_of_which_bytes_are_wrong_is_read_or_named(folder):
    frames = pa.Table.from_pylist([{"frame_index": 0, "pts_us": 0, "faces": 1}], schema=FRAMES_SCHEMA)
    write_part(folder, header(0, 0, Outcome()), faces(3), frames)
    ((name,),) = landed_units(folder).values()
    place = folder.child(name)
    data, chance = Path(place.path).read_bytes(), random.Random(0)
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        write_bytes(place, bytes(damaged[: chance.choice([len(data), chance.randrange(len(data))])]))
        with contextlib.suppress(OutputError):
            assert read_part(place).faces.schema == LANDED_SCHEMA


@pytest.mark.parametrize(
    ("faces_changed", "frames_changed"),
    [
        ({"box_x1": pa.array([None], pa.float32())}, {}),
        ({"frame_index": pa.array(["x"])}, {}),
        ({}, {"thumbnail": pa.array([b"xy"], pa.binary())}),
        ({}, {"pts_us": pa.array([None], pa.int64())}),
    ],
)
def test_rows_that_nothing_landed_are_refused(folder, faces_changed, frames_changed):
    frames = pa.Table.from_pylist([{"frame_index": 0, "pts_us": 0, "faces": 1}], schema=FRAMES_SCHEMA)
    sink = pa.BufferOutputStream()
    for rows, changed in ((faces(1), faces_changed), (frames, frames_changed)):
        for column, values in changed.items():
            rows = rows.set_column(rows.schema.get_field_index(column), column, values)
        rows = rows.replace_schema_metadata({b"featray.landing": dump(header(0, 0, Outcome()))})
        with pa.ipc.new_stream(sink, rows.schema) as stream:
            stream.write_table(rows)
    write_bytes(folder.child("u000000-p0000-last.arrow"), sink.getvalue().to_pybytes())
    with pytest.raises(OutputError, match=r"u000000-p0000-last\.arrow: damaged"):
        read_part(folder.child("u000000-p0000-last.arrow"))


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("frame_index", [0, 1]),
        ("frame_index", [0, 9]),
        ("frame_index", [1, 0]),
        ("box_x1", [0.0, float("nan")]),
        ("box_y2", [0.0, float("inf")]),
    ],
)
def test_faces_of_frames_that_are_not_there_are_not_published(tmp_path, column, values):
    partition = UnheldPartition(Partition(open_output(str(tmp_path / "out"), create=True), "d", "r"))
    video = ManifestVideo("0123456789abcdef", "file:///v.mp4", "ab" * 32)
    folder = partition.landing(video.video_id, video.work_key)
    write_plan(folder, VideoPlan(None, (Unit(0),)))
    rows = [{"frame_index": i, "pts_us": i, "status": "ok", "faces": 1, "keyframe": True} for i in range(2)]
    found = faces(2)
    place = found.schema.get_field_index(column)
    found = found.set_column(place, found.schema.field(place), pa.array(values, found.schema.field(place).type))
    outcome = Outcome(frames_decoded=2, frames_sampled=2)
    write_part(folder, header(0, 0, outcome), found, pa.Table.from_pylist(rows, schema=FRAMES_SCHEMA))
    manifest, settings = ShardManifest("s", "run", {}, [video]), PublishSettings("run", ("faces",), ())
    if values == [0, 1]:
        assert publish_shard(partition, manifest, settings).videos[0].faces == 2
    else:
        with pytest.raises(OutputError, match=r"u000000-p0000-last\.arrow: damaged"):
            publish_shard(partition, manifest, settings)


@pytest.mark.parametrize(
    "values",
    [np.zeros(1 << 24, np.int64), pa.Array.from_buffers(pa.null(), (1 << 31) - 1, [None])],
    ids=["zeros", "nulls"],
)
def test_a_part_that_unfolds_is_refused_before_it_does(folder, values):
    """A few kilobytes with eight batches, each of which takes 128 MB or has two thousand million rows."""
    sink, rows = pa.BufferOutputStream(), pa.RecordBatch.from_arrays([pa.array(values)], ["pts_us"])
    rows = rows.replace_schema_metadata({b"featray.landing": dump(header(0, 0, Outcome()))})
    with pa.ipc.new_stream(sink, rows.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as stream:
        for _ in range(8):
            stream.write_batch(rows)
    place = folder.child("u000000-p0000-last.arrow")
    write_bytes(place, sink.getvalue().to_pybytes())
    assert Path(place.path).stat().st_size < 1 << 20
    before = pa.default_memory_pool().max_memory()
    with pytest.raises(OutputError, match=r"u000000-p0000-last\.arrow: damaged"):
        read_part(place)
    assert pa.default_memory_pool().max_memory() < before + (256 << 20)


def test_a_part_of_an_older_version_lacks_columns_that_came_later(folder):
    frames = pa.Table.from_pylist([{"frame_index": 0, "pts_us": 0, "faces": 1}], schema=FRAMES_SCHEMA)
    sink = pa.BufferOutputStream()
    older = faces(1).drop_columns(["AU01"])
    for rows in (older.replace_schema_metadata({b"featray.landing": dump(header(0, 0, Outcome()))}), frames):
        with pa.ipc.new_stream(sink, rows.schema) as stream:
            stream.write_table(rows)
    write_bytes(folder.child("u000000-p0000-last.arrow"), sink.getvalue().to_pybytes())
    part = read_part(folder.child("u000000-p0000-last.arrow"))
    assert part.faces["AU01"].null_count == 1 and part.faces.schema == LANDED_SCHEMA


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[" * 200_000,
        b'{"header": null, "units": []}',
        b'{"header": null, "units": [{"index": 1}]}',
        b'{"header": null, "units": [{"index": 0, "start_pts": 1e400}]}',
        b'{"header": null, "units": [{"index": 0}], "failure": ["plan", "../x", "y"]}',
        b'{"header": {"container": "mov", "codec": "h264", "time_base": "1/0", "duration_us": null,'
        b' "frames_promised": null, "frames_estimated": null}, "units": [{"index": 0}]}',
    ],
)
def test_a_damaged_plan_is_named(folder, text):
    write_bytes(folder.child("plan.json"), text)
    with pytest.raises(OutputError, match=r"plan\.json: damaged; delete its folder"):
        read_plan(folder)


def test_a_plan_comes_back_as_it_landed(folder):
    assert read_plan(folder) is None
    plan = VideoPlan(Header("mov", "h264", "1/24", 5, 6, 7), (Unit(0, end_pts=9), Unit(1, 9, None, 3, 0, 8)))
    write_plan(folder, plan)
    assert read_plan(folder) == plan
    failed = VideoPlan(None, (Unit(0),), ("plan", "not_a_video", "x"))
    write_plan(folder, failed)
    assert read_plan(folder) == failed
