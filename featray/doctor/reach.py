"""Doctor. Check whether a place can be listed, read and written, with the credentials that a run would use."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from featray.config import Config
from featray.doctor.check import Check
from featray.errors import FeatrayError, NotFound, counted
from featray.sources.listing import list_videos
from featray.store.failures import NO_PLACE, storage_errors
from featray.store.location import Location, locate
from featray.store.storage import delete, exists, read_bytes, write_bytes

_FIX = "check the address, and the credentials in the environment or the storage options"


def reach_config(config: Config, *, write: bool) -> Iterator[Check]:
    """Find and read a video of a config's input, and check its output; nothing is written to the input."""
    try:
        video = next(list_videos(config.input))
        source = locate(video.address, config.input.storage_options if video.takes_options else {})
    except FeatrayError as error:
        yield Check("reach", "list", "missing", str(error), _FIX)
    else:
        yield Check("reach", "list", "ok", f"{video.uri}: the first video of the input")
        if video.sequence is None:
            yield _read(source, video.size_bytes)
    yield from reach(config.output.uri, config.output.storage_options, write=write, may_be_new=True)


def reach(uri: str, storage_options: dict[str, Any], *, write: bool, may_be_new: bool | None = None) -> Iterator[Check]:
    """List the place and read the first bytes of an object in it; with `write`, write and delete a small object.

    `may_be_new`: whether it may be empty or missing, as a new output is; None: if it is to be written.
    """
    try:
        place = locate(uri, storage_options)
        entries = _entries(place)
        found = _first_object(place, entries)
    except NotFound as error:
        if not (write if may_be_new is None else may_be_new):
            yield Check("reach", "list", "missing", str(error), f"{_FIX}; --write, if it is a new output")
            return
        untried = "" if write else "; --write tries to write to it"
        yield Check("reach", "list", "ok", f"{place.uri}: is empty or does not exist yet, as a new output{untried}")
        if write:
            yield _write(place)
        return
    except FeatrayError as error:
        yield Check("reach", "list", "missing", str(error), _FIX)
        return
    more = " or more" if len(entries) >= _LISTED else ""
    yield Check("reach", "list", "ok", f"{place.uri}: {counted(len(entries), 'entry', 'entries')}{more}")
    if found is not None:
        yield _read(place.at(found["name"]), int(found.get("size") or 16))
    else:
        yield Check("reach", "read", "ok", f"{place.uri}: not tried, no object was found {_LEVELS} levels deep")
    if write:
        yield _write(place)


_LISTED = 1000
_LEVELS = 3
"""Levels of folders in which an object to read is looked for."""


def _entries(place: Location) -> list[dict[str, Any]]:
    with storage_errors(place.uri):
        place.fs.invalidate_cache()
        if place.fs.isfile(place.path):
            return [place.fs.info(place.path)]
        return list(place.fs.ls(place.path, detail=True))[:_LISTED]


def _first_object(place: Location, entries: list[dict[str, Any]], levels: int = _LEVELS) -> dict[str, Any] | None:
    """Return an object among the entries, else in the first folder that has one."""
    objects = [entry for entry in entries if entry["type"] == "file"]
    if objects or levels == 1:
        return objects[0] if objects else None
    for entry in entries[:_FOLDERS]:
        if entry["type"] == "directory" and entry["name"].strip("/") != place.path.strip("/"):
            folder = place.at(entry["name"])
            if found := _first_object(folder, _entries(folder), levels - 1):
                return found
    return None


_FOLDERS = 3
"""Folders opened at each level."""


def _read(source: Location, size_bytes: int) -> Check:
    try:
        with storage_errors(source.uri):
            first = source.fs.cat_file(source.path, start=0, end=min(16, size_bytes) if size_bytes > 0 else 16)
    except FeatrayError as error:
        return Check("reach", "read", "missing", str(error), _FIX)
    return Check("reach", "read", "ok", f"{source.uri}: read its first {counted(len(first), 'byte')}")


def _write(place: Location) -> Check:
    # Without a table's suffix and outside table folders, so that no reader can mistake it for a table's file.
    target = place.child(f".featray-doctor-{uuid.uuid4().hex}")
    made: list[Path] = []
    try:
        made = _make_folders(place)
        write_bytes(target, b"featray doctor")
        same = read_bytes(target) == b"featray doctor"
        delete(target)
        gone = not exists(target)
    except FeatrayError as error:
        return Check("reach", "write", "missing", str(error), _FIX)
    finally:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
    words = f"{place.uri}: wrote, read back and deleted an object"
    if same and gone:
        return Check("reach", "write", "ok", words)
    return Check(
        "reach", "write", "missing", f"{target.uri}: differs when read back, or still exists after deletion", _FIX
    )


def _make_folders(place: Location) -> list[Path]:
    """Create a missing local folder and its parents; return those created, the innermost first."""
    if not place.is_local:
        return []
    path = Path(place.path)
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    with storage_errors(place.uri, missing=NO_PLACE):
        path.mkdir(parents=True, exist_ok=True)
    return missing
