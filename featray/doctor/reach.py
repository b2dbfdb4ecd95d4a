"""Doctor. Check whether a place can be listed, read and written, with the credentials that a run would use."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

from featray.doctor.check import Check
from featray.errors import FeatrayError, counted
from featray.store.storage import Location, delete, exists, locate, read_bytes, storage_errors, write_bytes

_MEND = "check the address, and the credentials in the environment or --storage-option"


def reach(uri: str, storage_options: dict[str, Any], *, write: bool) -> Iterator[Check]:
    """List the place and read the first bytes of its first object; with `write`, write and delete a small object."""
    try:
        place = locate(uri, storage_options)
        entries = _entries(place)
    except FeatrayError as error:
        yield Check("reach", "list", "missing", str(error), _MEND)
        return
    more = " or more" if len(entries) >= _LISTED else ""
    yield Check("reach", "list", "ok", f"{place.uri}: {counted(len(entries), 'entry', 'entries')}{more}")
    objects = [entry for entry in entries if entry["type"] == "file"]
    if objects:
        yield _read(place, objects[0])
    else:
        yield Check("reach", "read", "ok", f"{place.uri}: not tried, there is no object at this level")
    if write:
        yield _write(place)


_LISTED = 1000


def _entries(place: Location) -> list[dict[str, Any]]:
    with storage_errors(place.uri):
        place.fs.invalidate_cache()
        if place.fs.isfile(place.path):
            return [place.fs.info(place.path)]
        return list(place.fs.ls(place.path, detail=True))[:_LISTED]


def _read(place: Location, entry: dict[str, Any]) -> Check:
    source = place.at(entry["name"])
    try:
        with storage_errors(source.uri):
            first = source.fs.cat_file(source.path, start=0, end=min(16, int(entry.get("size") or 16)))
    except FeatrayError as error:
        return Check("reach", "read", "missing", str(error), _MEND)
    return Check("reach", "read", "ok", f"{source.uri}: read its first {counted(len(first), 'byte')}")


def _write(place: Location) -> Check:
    # Without a table's suffix and outside table folders, so that no reader can mistake it for a table's file.
    target = place.child(f".featray-doctor-{uuid.uuid4().hex}")
    try:
        write_bytes(target, b"featray doctor")
        same = read_bytes(target) == b"featray doctor"
        delete(target)
        gone = not exists(target)
    except FeatrayError as error:
        return Check("reach", "write", "missing", str(error), _MEND)
    words = f"{place.uri}: wrote, read back and deleted an object"
    if same and gone:
        return Check("reach", "write", "ok", words)
    return Check(
        "reach", "write", "missing", f"{target.uri}: differs when read back, or still exists after deletion", _MEND
    )
