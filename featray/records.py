"""Ground. Records as JSON: frozen dataclasses that travel in rows and lie in storage, checked as they are read.

Whoever can write to an output can write its records. What becomes part of a path, of SQL or of a date is therefore
declared as one of the types below, which say what it may be.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, TypeVar

from pydantic import Field, TypeAdapter

VideoId = Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
WorkKey = Annotated[str, Field(pattern="^[0-9a-f]{17,64}$")]
RecordName = Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
"""Of a shard, commit, run or erasure: the name of its file, and part of the names of others."""
FieldName = Annotated[str, Field(pattern="^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
"""Of a path field, as `config.path_field_names` reads them."""
DerivationName = Annotated[str, Field(pattern="^d-[0-9a-f]{8}$")]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
"""The first hex digits of a sha256."""
Count = Annotated[int, Field(ge=0, lt=1 << 62)]
SummedCount = Annotated[int, Field(ge=0, lt=1 << 48)]
"""Of which a column of int64 holds the sum, of however many there are."""
SmallCount = Annotated[int, Field(ge=0, lt=1 << 31)]
"""For a column of int32."""
Ticks = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]
"""Of a stream's timestamps, as FFmpeg has them."""
Micros = Annotated[int, Field(ge=0, lt=253_402_214_400_000_000)]
"""Microseconds since the epoch, up to the last day of the year 9999, which is in that year everywhere."""

_FOLDERS: Final = r"(?:[A-Za-z_][A-Za-z0-9_]*=[^/\\*?\[\x00-\x1f\x7f]*/)*"
TablePath = Annotated[str, Field(pattern=rf"^[a-z_]+/{_FOLDERS}part-[^/\\*?\[\x00-\x1f\x7f]+\.parquet$")]
"""Of a file of a table, from the output's root on. Patterns of file names are none: DuckDB would expand them."""

_Record = TypeVar("_Record")


def dump(record: object) -> bytes:
    """Return a record as JSON."""
    # Not pydantic's own JSON: names of files may hold half characters, which only escapes can say.
    return json.dumps(_adapter(type(record)).dump_python(record, mode="json")).encode()


def load(kind: type[_Record], text: str | bytes) -> _Record:
    """Return the record that `dump` made JSON of.

    Fields that a newer version added are passed over; those that an older one did not have take their defaults.

    Raises:
        ValueError: it is no JSON, or another record, or a value is not what its type allows.
    """
    try:
        record: _Record = _adapter(kind).validate_python(json.loads(text))
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    return record


def read_extra(text: str | None) -> dict[str, Any]:
    """Return the columns that stand in a row's `videos.extra`; none if it is no JSON object."""
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _adapter(kind: Any) -> TypeAdapter[Any]:
    made = _made.get(kind)
    if made is None:
        made = _made[kind] = TypeAdapter(kind)
    return made


_made: dict[Any, TypeAdapter[Any]] = {}
