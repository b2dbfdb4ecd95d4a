"""Ground. Records as JSON: frozen dataclasses that travel in rows and lie in storage, checked as they are read."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import TypeAdapter

_Record = TypeVar("_Record")


def dump(record: object) -> bytes:
    """Return a record as JSON."""
    # Not pydantic's own JSON: names of files may hold half characters, which only escapes can say.
    return json.dumps(_adapter(type(record)).dump_python(record, mode="json")).encode()


def load(kind: type[_Record], text: str | bytes) -> _Record:
    """Return the record that `dump` made JSON of.

    Fields that a newer version added are passed over; those that an older one did not have take their defaults.

    Raises:
        ValueError: it is no JSON, or another record.
    """
    try:
        record: _Record = _adapter(kind).validate_python(json.loads(text))
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    return record


def _adapter(kind: Any) -> TypeAdapter[Any]:
    made = _made.get(kind)
    if made is None:
        made = _made[kind] = TypeAdapter(kind)
    return made


_made: dict[Any, TypeAdapter[Any]] = {}
