"""Graph. The rows that travel between stages, and the receipt at the end.

One row is one block, so Ray schedules, retries and counts rows. Its columns:

    task    string        UnitTask as JSON
    part    int32         number of the chunk in the unit; -1: the unit had already landed
    chips   large_binary  m x 196,608 bytes, uint8 [m, 256, 256, 3]; dropped by inference
    faces   binary        Arrow stream: DETECTED_SCHEMA, n >= m rows; after inference LANDED_SCHEMA
    frames  binary        Arrow stream of FRAMES_SCHEMA: the frames of the faces
    last    bool          whether it is the unit's last chunk
    outcome string        Outcome as JSON: the unit's accounting up to this chunk
    problem string        after inference: why the network failed on these chips, else null
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featray.extract.chunks import Chunk
from featray.names import CHIP_PX
from featray.records import dump

ALREADY_LANDED: Final = -1
"""`part` of a row without data, whose unit was done in an earlier run."""

_CHIP_BYTES = CHIP_PX * CHIP_PX * 3
_SCHEMA = pa.schema(
    [
        ("task", pa.string()),
        ("part", pa.int32()),
        ("chips", pa.large_binary()),
        ("faces", pa.binary()),
        ("frames", pa.binary()),
        ("last", pa.bool_()),
        ("outcome", pa.string()),
    ]
)


def landed_row(task: str) -> pa.Table:
    """Return the row of a unit that had already landed."""
    return _row(task, ALREADY_LANDED)


def chunk_row(task: str, chunk: Chunk) -> pa.Table:
    """Return a chunk as a row; the chips are not copied."""
    return _row(
        task,
        chunk.part,
        chips=_binary_of(chunk.chips),
        faces=to_stream(chunk.faces),
        frames=to_stream(chunk.frames),
        last=chunk.last,
        outcome=dump(chunk.outcome).decode(),
    )


def feature_row(row: pa.Table, faces: pa.Table | None, seconds: float, problem: str | None = None) -> pa.Table:
    """Return a chunk row after inference, without chips, with complete faces and the time; or with the problem."""
    return pa.table(
        {
            "task": row["task"],
            "part": row["part"],
            "faces": pa.array([None if faces is None else to_stream(faces)], pa.binary()),
            "frames": row["frames"],
            "last": row["last"],
            "outcome": row["outcome"],
            "infer_seconds": pa.array([seconds], pa.float64()),
            "problem": pa.array([problem], pa.string()),
        }
    )


def chips_of(row: pa.Table) -> NDArray[np.uint8]:
    """Return the chips of a row, uint8 `[m, 256, 256, 3]`, a read-only view of the object store's memory."""
    data = row["chips"][0].as_buffer()
    return np.frombuffer(data, np.uint8).reshape(len(data) // _CHIP_BYTES, CHIP_PX, CHIP_PX, 3)


def to_stream(table: pa.Table) -> bytes:
    """Return a table as the bytes of an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def read_stream(data: Any) -> pa.Table:
    """Return the table of an Arrow stream, given as bytes or an Arrow buffer; the inverse of `to_stream`."""
    with pa.ipc.open_stream(data) as stream:
        return stream.read_all()


@dataclass(frozen=True)
class Receipt:
    """The driver's receipt for a landed part; small on purpose.

    Attributes:
        shard, video_id, unit, units, attempt, part, last: identify the part.
        frames, faces: number in this part.
        failed: the unit failed and gave no frame.
        resumed: the unit had landed in an earlier run; frames and faces are not counted again.
        retry: a failure that may be temporary: this part did not land, and the unit will be retried.
        error_code, problem: with the last part, a failure of the unit, preferably one that may be temporary; with any
            part, a failure of the network on it.
        seconds: time by stage, as JSON: of inference on this part; with the last part also of the other stages.
    """

    shard: str
    video_id: str
    unit: int
    units: int
    attempt: int
    part: int = 0
    last: bool = False
    frames: int = 0
    faces: int = 0
    failed: bool = False
    resumed: bool = False
    retry: bool = False
    error_code: str = ""
    problem: str = ""
    seconds: str = "{}"


RECEIPT_SCHEMA = pa.schema(
    [
        ("shard", pa.string()),
        ("video_id", pa.string()),
        ("unit", pa.int32()),
        ("units", pa.int32()),
        ("attempt", pa.int32()),
        ("part", pa.int32()),
        ("last", pa.bool_()),
        ("frames", pa.int64()),
        ("faces", pa.int64()),
        ("failed", pa.bool_()),
        ("resumed", pa.bool_()),
        ("retry", pa.bool_()),
        ("error_code", pa.string()),
        ("problem", pa.string()),
        ("seconds", pa.string()),
    ]
)


def _row(task: str, part: int, **columns: Any) -> pa.Table:
    values = {"task": task, "part": part, **columns}
    return pa.table({f.name: _one(values.get(f.name), f.type) for f in _SCHEMA}, schema=_SCHEMA)


def _one(value: Any, kind: pa.DataType) -> pa.Array:
    return value if isinstance(value, pa.Array) else pa.array([value], kind)


def _binary_of(chips: NDArray[np.uint8]) -> pa.Array:
    """Return a one-value large_binary array that shares the chips' memory."""
    offsets = pa.py_buffer(np.asarray([0, chips.nbytes], np.int64))
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, pa.py_buffer(np.ascontiguousarray(chips))])
