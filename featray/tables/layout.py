"""Tables. Where everything lies below `output.uri`, and whether a place is a featray output at all.

    <table>/dataset=<d>/release=<r>/[<field>=<v>/...]part-<shard>-<n>.parquet
    tracks, events: <table>/dataset=<d>/release=<r>/derivation=d-<8 hex>/[<field>=<v>/...]part-<shard>-<n>.parquet
    persons: persons/dataset=<d>/release=<r>/clustering=c-<8 hex>/part-persons-<12 hex>-<n>.parquet
    _featray/output.json                                    marks the place as ours
    _featray/landing/<d>/<r>/<video_id>-<work key>/         the resume ledger of a video
    _featray/shards/<d>/<r>/<shard>.json                    which videos an open shard holds
    _featray/commits/<d>/<r>/<shard>.json                   what a published shard holds
    _featray/leases/<d>/<r>/<number>.json                   who may publish, or was the last who might
    _featray/running/<d>/<r>/<run_id>.json                  the row of a run that has begun and not ended
    _featray/edits/<d>/<r>/persons.json                     what people have said of who is who
    _featray/erased/<video_id>.json                         what was erased and may not come back

Table roots hold nothing but published Parquet files.
"""

from __future__ import annotations

import json
import os
import unicodedata
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import unquote

from featray.errors import ConfigError, NotFound, OutputError
from featray.identity import NULL_FOLDER, partition_folder
from featray.schema import ALL_TABLES, SCHEMA_VERSION
from featray.store.storage import (
    Location,
    exists,
    list_folders,
    locate,
    read_bytes,
    storage_errors,
    write_bytes,
)

INTERNAL = "_featray"
_PARTITIONS: Final = ("dataset", "release", "derivation", "clustering")
_DAMAGED = "damaged; it should say which schema_version the tables have"


@dataclass(frozen=True)
class Output:
    """An output location."""

    root: Location

    def table(self, name: str) -> Location:
        """The root of a table."""
        return self.root.child(name)

    def internal(self, *parts: str) -> Location:
        """A place in the internal folder."""
        return self.root.child(INTERNAL, *parts)

    def relative(self, path: str) -> str:
        """A path of the filesystem as commits name it: from the output's root on."""
        return path[len(self.root.path.rstrip("/")) + 1 :]


@dataclass(frozen=True)
class Partition:
    """One dataset and release of an output."""

    output: Output
    dataset: str
    release: str

    def folder(self, table: str, fields: dict[str, str | None] | None = None) -> Location:
        """The folder of a table's files for these path-field values."""
        values = {"dataset": self.dataset, "release": self.release, **(fields or {})}
        return self.output.table(table).child(*(partition_folder(*field) for field in values.items()))

    @staticmethod
    def fields_of(path: str) -> dict[str, str | None]:
        """The path fields of a file, by its path below the root: name and value, None for null."""
        parts = [part.partition("=") for part in path.split("/")[1:-1]]
        return {
            name: None if value == NULL_FOLDER else unquote(value)
            for name, _, value in parts
            if name not in _PARTITIONS
        }

    def table_folders(self) -> list[Location]:
        """The folders of all tables."""
        return [self.folder(table) for table in ALL_TABLES]

    @staticmethod
    def landing_name(video_id: str, work_key: str) -> str:
        """Name of a video's landing folder: its work, so that other work never mixes with it."""
        return f"{video_id}-{work_key[:16]}"

    def landing(self, video_id: str = "", work_key: str = "") -> Location:
        """The landing folder of a video, or of the whole partition."""
        name = self.landing_name(video_id, work_key) if video_id else ""
        return self.output.internal("landing", self.dataset, self.release, name)

    def shard(self, name: str = "") -> Location:
        """The manifest of an open shard, or the folder of them."""
        return self.output.internal("shards", self.dataset, self.release, f"{name}.json" if name else "")

    def commit(self, name: str = "") -> Location:
        """The commit record of a published shard, or the folder of them."""
        return self.output.internal("commits", self.dataset, self.release, f"{name}.json" if name else "")

    def lease(self, number: int | None = None) -> Location:
        """The record of who holds the partition, or the folder of them; see `lease.py`."""
        name = "" if number is None else f"{number:08d}.json"
        return self.output.internal("leases", self.dataset, self.release, name)


def open_output(uri: str, storage_options: dict[str, Any] | None = None, *, create: bool = False) -> Output:
    """Open an output, or begin one in an empty place.

    Args:
        uri: the output's root.
        storage_options: for fsspec.
        create: whether to begin an output where there is none.

    Raises:
        ConfigError: the URI has a character that its files could be written with, but not read.
        OutputError: the place holds something else, or nothing (and `create` is false).
    """
    root = locate(uri, storage_options)
    output = Output(replace(root, root=root.path))
    if any(char in output.root.path for char in "*?["):  # fsspec reads several files by pattern
        raise ConfigError(f"{output.root.uri}: an output's URI may not hold `*`, `?` or `[`; name another place")
    marker = output.internal("output.json")
    try:
        described = json.loads(read_bytes(marker))
        version = described["schema_version"]
    except NotFound:
        _begin(output, marker, create)
        return output
    except (ValueError, KeyError, TypeError, RecursionError):
        raise OutputError(f"{marker.uri}: {_DAMAGED}") from None
    if not isinstance(version, int) or version < 1:
        raise OutputError(f"{marker.uri}: {_DAMAGED}")
    if version > SCHEMA_VERSION:
        raise OutputError(f"{output.root.uri}: written by a newer featray (schema {version}); upgrade featray")
    return output


def list_partitions(output: Output, odd: list[str] | None = None) -> list[Partition]:
    """Every dataset and release that has commits. Folders whose names no run gives are none; `odd` takes them."""
    found = []
    for dataset in _named_folders(output, odd):
        for release in _named_folders(output, odd, dataset):
            found.append(Partition(output, dataset, release))
    return found


def _named_folders(output: Output, odd: list[str] | None, *above: str) -> list[str]:
    names = list_folders(output.internal("commits", *above))
    if odd is not None:
        odd += ["/".join([INTERNAL, "commits", *above, name]) for name in names if not _is_name(name)]
    return [name for name in names if _is_name(name)]


def _is_name(folder: str) -> bool:
    """Return whether a dataset or a release, which begins with the name of a checkpoint's file, may be called so."""
    return folder not in (".", "..") and not any(unicodedata.category(one) in ("Cc", "Cs") for one in folder)


_OF_A_BEGINNING: Final = frozenset({"landing", "leases", "running", "shards"})
"""Folders of a run that has published nothing."""


def _is_occupied(output: Output, marker: Location) -> bool:
    """Return whether anything lies there but what a first run leaves if it is killed, or its output deleted."""
    fs, name = output.root.fs, marker.path.rsplit("/", 1)[-1]
    entries = [path.rstrip("/").rsplit("/", 1)[-1] for path in fs.ls(output.root.path, detail=False)]
    if entries == [INTERNAL]:
        place = output.internal()
        place.check_inside()
        entries = [path.rstrip("/").rsplit("/", 1)[-1] for path in fs.ls(place.path, detail=False)]
        entries = [entry for entry in entries if entry not in _OF_A_BEGINNING]
    return not all(entry.startswith(f".{name}.") for entry in entries)


def _begin(output: Output, marker: Location, create: bool) -> None:
    with storage_errors(output.root.uri):
        is_file = exists(output.root) and output.root.fs.isfile(output.root.path)
        occupied = not is_file and exists(output.root) and _is_occupied(output, marker)
    if is_file:
        raise OutputError(f"{output.root.uri}: is a file; name a folder or prefix for the tables")
    if not create:
        missing = f"is no featray output (no {INTERNAL}/output.json)"
        raise OutputError(f"{output.root.uri}: {missing}; name the output.uri of a run")
    if occupied and exists(marker):  # of several that begin the same output at once, another was faster
        return
    if occupied:
        raise OutputError(f"{output.root.uri}: is not empty and no featray output; name an empty folder or prefix")
    if marker.is_local:
        with storage_errors(output.root.uri, missing="cannot be created"):
            os.makedirs(output.root.path, exist_ok=True)
    write_bytes(marker, json.dumps({"format": "featray", "schema_version": SCHEMA_VERSION}).encode())
