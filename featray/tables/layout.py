"""Tables. The layout below `output.uri`, and opening or creating an output.

    <table>/dataset=<d>/release=<r>/[<field>=<v>/...]part-<shard>-<n>.parquet
    tracks, events: <table>/dataset=<d>/release=<r>/derivation=d-<8 hex>/[<field>=<v>/...]part-<shard>-<n>.parquet
    persons: persons/dataset=<d>/release=<r>/clustering=c-<8 hex>/part-persons-<12 hex>-<n>.parquet
    _featray/output.json                                    marks a featray output
    _featray/landing/<d>/<r>/<video_id>-<work key>/         the resume ledger of a video
    _featray/shards/<d>/<r>/<shard>.json                    the videos of an open shard
    _featray/commits/<d>/<r>/<shard>.json                   the contents of a published shard
    _featray/leases/<d>/<r>/<number>.json                   the current or last holder of the lease
    _featray/running/<d>/<r>/<run_id>.json                  the row of a run that has not ended
    _featray/edits/<d>/<r>/persons.json                     merges and splits of persons by users
    _featray/erased/<video_id>.json                         what was erased and must not come back

Table roots contain nothing but published Parquet files.
"""

from __future__ import annotations

import json
import os
import unicodedata
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Final
from urllib.parse import unquote

from featray.errors import ConfigError, NotFound, OutputError
from featray.identity import NULL_FOLDER, partition_folder
from featray.schema import ALL_TABLES, SCHEMA_VERSION
from featray.store.failures import NO_PLACE, storage_errors
from featray.store.location import GONE, MARKER, Location, locate
from featray.store.storage import PATTERN, exists, list_folders, read_record, write_bytes

INTERNAL = "_featray"
_PARTITIONS: Final = ("dataset", "release", "derivation", "clustering")
_FILE = "is a file; an output is a folder or a prefix: give the output.uri of a config"
_DAMAGED = "damaged; it must contain the schema_version of the tables"


@dataclass(frozen=True)
class Output:
    """An output location."""

    root: Location

    def table(self, name: str) -> Location:
        """Return the root of a table."""
        return self.root.child(name)

    def internal(self, *parts: str) -> Location:
        """Return a location in the internal folder."""
        return self.root.child(INTERNAL, *parts)

    def relative(self, path: str) -> str:
        """Return a filesystem path relative to the output's root, as in commits."""
        return path[len(self.root.path.rstrip("/")) + 1 :]


@dataclass(frozen=True)
class Partition:
    """One dataset and release of an output."""

    output: Output
    dataset: str
    release: str

    def folder(self, table: str, fields: dict[str, str | None] | None = None) -> Location:
        """Return the folder of a table's files for these path-field values."""
        values = {"dataset": self.dataset, "release": self.release, **(fields or {})}
        return self.output.table(table).child(*(partition_folder(*field) for field in values.items()))

    def has_file(self, table: str, path: str) -> bool:
        """Return whether a path below the output's root is in a folder of this table, dataset and release."""
        folders = [table, f"dataset={self.dataset}", f"release={self.release}"]
        return [unquote(part) for part in path.split("/")[:3]] == folders

    @staticmethod
    def fields_of(path: str) -> dict[str, str | None]:
        """Return the path fields of a file from its path below the root; None for null."""
        parts = [part.partition("=") for part in path.split("/")[1:-1]]
        return {
            name: None if value == NULL_FOLDER else unquote(value)
            for name, _, value in parts
            if name not in _PARTITIONS
        }

    def table_folders(self) -> list[Location]:
        """Return the folders of all tables."""
        return [self.folder(table) for table in ALL_TABLES]

    @staticmethod
    def landing_name(video_id: str, work_key: str) -> str:
        """Return the name of a video's landing folder; it includes the work key, so that different work never mixes."""
        return f"{video_id}-{work_key[:16]}"

    def landing(self, video_id: str = "", work_key: str = "") -> Location:
        """Return the landing folder of a video, or of the whole partition."""
        name = self.landing_name(video_id, work_key) if video_id else ""
        return self.output.internal("landing", self.dataset, self.release, name)

    def shard(self, name: str = "") -> Location:
        """Return the location of an open shard's manifest, or of the folder of manifests."""
        return self.output.internal("shards", self.dataset, self.release, f"{name}.json" if name else "")

    def commit(self, name: str = "") -> Location:
        """Return the location of a published shard's commit, or of the folder of commits."""
        return self.output.internal("commits", self.dataset, self.release, f"{name}.json" if name else "")

    def lease(self, number: int | None = None) -> Location:
        """Return the location of a lease, or of the folder of leases; see `lease.py`."""
        name = "" if number is None else f"{number:08d}.json"
        return self.output.internal("leases", self.dataset, self.release, name)


def open_output(uri: str, storage_options: dict[str, Any] | None = None, *, create: bool = False) -> Output:
    """Open an output, or create one in an empty place.

    Args:
        uri: the output's root.
        storage_options: options for fsspec.
        create: whether to create an output if there is none.

    Raises:
        ConfigError: the URI has a character with which files can be written but not read.
        OutputError: the place contains something else, or nothing and `create` is false.
    """
    root = locate(uri, storage_options)
    output = Output(replace(root, root=root.path))
    if not PATTERN.isdisjoint(output.root.path):
        raise ConfigError(f"{output.root.uri}: an output's URI must not contain `*`, `?` or `[`; choose another place")
    marker = output.root.child(MARKER)
    if output.root.is_local and os.path.isfile(output.root.path):
        raise OutputError(f"{output.root.uri}: {_FILE}")
    try:
        described = json.loads(read_record(marker))
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


def list_partitions(output: Output, odd: list[str] | None = None, *, having: str = "commits") -> list[Partition]:
    """Return every dataset and release with commits, or with `leases` or `landing`.

    Folders with names that no run creates are skipped, and added to `odd`.

    Raises:
        OutputError: the output was deleted after it was opened.
    """
    found = []
    for dataset in _named_folders(output, odd, having):
        for release in _named_folders(output, odd, having, dataset):
            found.append(Partition(output, dataset, release))
    if not found:
        check_there(output)
    return found


def check_there(output: Output) -> None:
    """Check that an output still exists, since a listing of a deleted one is empty, like that of a new one.

    Raises:
        OutputError: it does not.
    """
    if not exists(output.root.child(MARKER)):
        raise OutputError(f"{output.root.uri}: {GONE if output.root.is_local else 'was deleted meanwhile'}")


def other_releases(partition: Partition) -> list[str]:
    """Return the published releases of the dataset if this one has not been begun, else nothing."""
    output, dataset = partition.output, partition.dataset
    published = _named_folders(output, None, "commits", dataset)
    begun = (name for having in ("leases", "landing") for name in _named_folders(output, None, having, dataset))
    return [] if partition.release in chain(published, begun) else published


def _named_folders(output: Output, odd: list[str] | None, *above: str) -> list[str]:
    names = list_folders(output.internal(*above))
    if odd is not None:
        odd += ["/".join([INTERNAL, *above, name]) for name in names if not _is_name(name)]
    return [name for name in names if _is_name(name)]


def _is_name(folder: str) -> bool:
    """Return whether a dataset or a release (which begins with a checkpoint's file name) may have this name."""
    odd = folder in (".", "..") or not PATTERN.isdisjoint(folder)
    return not odd and not any(unicodedata.category(one) in ("Cc", "Cs") for one in folder)


_OF_A_BEGINNING: Final = frozenset({"landing", "leases", "running", "shards"})
"""Internal folders of a run that has published nothing."""


def _is_occupied(output: Output, marker: Location) -> bool:
    """Return whether the place has anything except what a killed first run or a deleted output leaves."""
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
        raise OutputError(f"{output.root.uri}: {_FILE}")
    if not create:
        missing = f"is not a featray output (no {MARKER})"
        raise OutputError(f"{output.root.uri}: {missing}; give the output.uri of a run")
    if occupied and exists(marker):  # another process created the same output at the same time
        return
    if occupied:
        raise OutputError(f"{output.root.uri}: is neither empty nor a featray output; give an empty folder or prefix")
    if marker.is_local:
        with storage_errors(output.root.uri, missing=NO_PLACE):
            os.makedirs(output.root.path, exist_ok=True)
    write_bytes(marker, json.dumps({"format": "featray", "schema_version": SCHEMA_VERSION}).encode())
