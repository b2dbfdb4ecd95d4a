"""Tables. Write plans, parts of units and failures to the landing area, and read which units are done.

The landing area is the resume ledger: landed units are not processed again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featray.errors import RETRYABLE, ErrorCode, OutputError, counted
from featray.extract.plan import Failure, Outcome, UnitTask, VideoPlan, VideoTask
from featray.schema import EMBEDDED_SCHEMA, FRAMES_SCHEMA, LANDED_SCHEMA
from featray.sources.listing import Video
from featray.tables.landing import PartHeader, forget_units, landed_units, read_plan, write_part, write_plan
from featray.tables.layout import Partition
from featray.video.units import WHOLE_VIDEO

log = logging.getLogger(__name__)


def units_to_do(partition: Partition, task: VideoTask, make_plan: Callable[[Video], VideoPlan]) -> Iterator[UnitTask]:
    """Yield the units of a video, including those that have landed; its plan lands first.

    A resumed video keeps its plan, unless the plan is damaged, failed with a temporary error, or comes from a version
    that did not convert HDR and non-square pixels: a video must not be a mix of both treatments.
    """
    folder = partition.landing(task.video.video_id, task.work_key)
    is_void, plan = False, None
    try:
        plan = read_plan(folder) if task.resume else None
    except OutputError as error:
        log.warning("%s: planned again", error)
        is_void = True
    landed = {unit: len(names) for unit, names in landed_units(folder).items()} if plan else {}
    if plan is None or _is_outdated(plan):
        if plan is not None or is_void:  # landed units may belong to another plan, under the same names
            landed = {}
            forget_units(folder)
        plan = make_plan(task.video)
        write_plan(folder, plan)
    yield from task.units(plan, landed)


def _is_outdated(plan: VideoPlan) -> bool:
    if plan.failure:
        return plan.failure.code in RETRYABLE
    return plan.header is not None and plan.header.transfer is None


def land_unit_part(
    partition: Partition,
    task: UnitTask,
    run_id: str,
    part: int,
    faces: pa.Table,
    frames: pa.Table,
    outcome: Outcome | None,
    *,
    lost: bool = False,
) -> None:
    """Write one part of a unit to the ledger; `lost` marks a unit that was given up."""
    header = PartHeader(
        video_id=task.video.video_id,
        work_key=task.work_key,
        unit=task.unit.index,
        part=part,
        run_id=run_id,
        attempt=task.attempt,
        at_us=time.time_ns() // 1000,
        outcome=outcome,
    )
    folder = partition.landing(task.video.video_id, task.work_key)
    write_part(folder, header, faces, frames, lost=lost)


def land_lost(partition: Partition, tasks: list[VideoTask], run_id: str, problems: dict[tuple[str, int], str]) -> None:
    """Land a failure for every unit of these videos that gave no result in any attempt.

    This run publishes the failures. If it ends before that, the next run tries the units again.

    `problems` gives, by video and unit, the reason why the network failed in the last attempt.
    """
    for video in tasks:
        folder = partition.landing(video.video.video_id, video.work_key)
        plan = read_plan(folder)
        if plan is None:
            plan = VideoPlan(None, WHOLE_VIDEO)
            write_plan(folder, plan)
        done = landed_units(folder)
        for task in video.units(plan, {}):
            if task.unit.index not in done:
                problem = problems.get((video.video.video_id, task.unit.index))
                text = problem or f"no result in {counted(video.attempt, 'attempt')}; see the workers' logs"
                stage, code = ("infer", ErrorCode.INFERENCE_FAILED) if problem else ("reconcile", ErrorCode.LOST)
                outcome = Outcome(failures=[Failure(stage, code, text)])
                nothing = LANDED_SCHEMA.empty_table(), FRAMES_SCHEMA.empty_table()
                land_unit_part(partition, task, run_id, 0, *nothing, outcome, lost=True)


def landed_faces(faces: pa.Table, columns: dict[str, NDArray[np.float32]]) -> pa.Table:
    """Return detected faces with the network's columns; without blendshapes in the checkpoint, theirs are null."""
    arrays, known = [], set(faces.column_names)
    for field in LANDED_SCHEMA:
        if field.name in known:
            arrays.append(faces[field.name])
        elif field.name not in columns:
            arrays.append(pa.nulls(faces.num_rows, field.type))
        else:
            values = columns[field.name]
            arrays.append(_lists(values) if values.ndim == 2 else pa.array(values, field.type))
    return pa.table(arrays, schema=LANDED_SCHEMA)


def with_embeddings(
    landed: pa.Table, embeddings: NDArray[np.float32], qualities: NDArray[np.float32], rows: NDArray[np.intp]
) -> pa.Table:
    """Return landed faces with the columns of EMBEDDED_SCHEMA.

    Args:
        landed: rows of LANDED_SCHEMA.
        embeddings: `[n, width]`.
        qualities: `[n]`.
        rows: `[n]`, ascending: the rows of their faces; all other rows get nulls.
    """
    place = np.full(landed.num_rows, -1, np.int64)
    place[rows] = np.arange(len(rows))
    indices = pa.array(place, mask=place < 0)
    for field, values in zip(EMBEDDED_SCHEMA, (_lists(embeddings), pa.array(qualities, pa.float32())), strict=True):
        landed = landed.append_column(field, values.take(indices).cast(field.type))
    return landed


def _lists(values: NDArray[np.float32]) -> pa.Array:
    offsets = pa.array(np.arange(len(values) + 1, dtype=np.int32) * values.shape[1])
    return pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(values).ravel()))
