"""Ground. Records as JSON: frozen dataclasses kept in rows and in storage, validated when they are read.

Anyone who can write to an output can write its records. Values that become part of a path, of SQL or of a date must
therefore have one of the types below, which restrict them.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Final, TypeVar

from pydantic import Field, TypeAdapter

VideoId = Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
WorkKey = Annotated[str, Field(pattern="^[0-9a-f]{17,64}$")]
RecordName = Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
"""Name of a shard, commit, run or erasure: the name of its file, and part of other files' names."""
FieldName = Annotated[str, Field(pattern="^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
"""Name of a path field, as parsed by `config.path_field_names`."""
DerivationName = Annotated[str, Field(pattern="^d-[0-9a-f]{8}$")]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
"""The first hex digits of a sha256."""
Count = Annotated[int, Field(ge=0, lt=1 << 62)]
SummedCount = Annotated[int, Field(ge=0, lt=1 << 48)]
"""Of which a column of int64 holds the sum, of however many there are."""
SmallCount = Annotated[int, Field(ge=0, lt=1 << 31)]
"""A count that fits an int32 column."""
Ticks = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]
"""Stream timestamps in FFmpeg's range."""
Micros = Annotated[int, Field(ge=0, lt=253_402_214_400_000_000)]
"""Microseconds since the epoch; the last second is in the year 9999 in every time zone."""

_FOLDERS: Final = r"(?:[A-Za-z_][A-Za-z0-9_]*=[^/\\*?\[\x00-\x1f\x7f]*/)*"
TablePath = Annotated[str, Field(pattern=rf"^[a-z_]+/{_FOLDERS}part-[^/\\*?\[\x00-\x1f\x7f]+\.parquet$")]
"""Path of a table's file, relative to the output's root. Glob characters are refused: DuckDB would expand them."""

_Record = TypeVar("_Record")


def dump(record: object) -> bytes:
    """Return a record as JSON."""
    # Not pydantic's own JSON: file names may contain lone surrogates, which JSON can represent only as escapes.
    return json.dumps(_adapter(type(record)).dump_python(record, mode="json")).encode()


def load(kind: type[_Record], text: str | bytes) -> _Record:
    """Return the record from the JSON that `dump` wrote.

    Fields added by a newer version are ignored; fields missing from an older one take their defaults.

    Raises:
        ValueError: the text is not JSON, is another record, or has a value that its type does not allow.
    """
    try:
        record: _Record = _adapter(kind).validate_python(json.loads(text))
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    return record


def digest_of_extra(text: str | None) -> str:
    """Return a digest of what `videos.extra` contains, whatever the order of its columns; empty for no column."""
    found = read_extra(text)
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16] if found else ""


def read_extra(text: str | None) -> dict[str, Any]:
    """Return the columns in a row's `videos.extra`; empty if it is not a JSON object."""
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
