"""Upkeep. Find files in table folders that no commit names, and report where they come from and what removes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress

from featray.errors import NotFound
from featray.schema import ALL_TABLES, DERIVED_TABLES
from featray.store.exclusive import age_seconds
from featray.store.location import Location
from featray.store.storage import delete, list_files
from featray.tables.commits import read_manifests
from featray.tables.layout import Output, Partition
from featray.tables.lease import EXPIRY_SECONDS, HeldPartition
from featray.tables.person_edits import edits_folder
from featray.tables.replace import COMPACT_PREFIX, ERASE_PREFIX, PERSONS_PREFIX
from featray.tables.runs import marker, running_rows
from featray.tables.tombstones import place_of_erasures
from featray.upkeep.problems import Problem, Report


def uncommitted_files(output: Output, folders: Iterable[Location], committed: set[str]) -> Iterator[str]:
    """Yield the paths, relative to the output's root, of files below these folders that are not in `committed`."""
    for folder in folders:
        for path in map(output.relative, list_files(folder)):
            if path not in committed:
                yield path


def delete_strays(partition: HeldPartition, folders: list[Location], published: set[str], suffix: str) -> int:
    """Delete the files below these folders that end in `suffix` and are not in `published`; return their number."""
    found = uncommitted_files(partition.output, folders, published)
    strays = [path for path in found if path.endswith(suffix)]
    for path in strays:
        partition.check()  # if the lease is lost, a listed file may be one that another run is writing
        delete(partition.output.root.child(path))
    return len(strays)


def sweep_records(partition: HeldPartition) -> int:
    """Delete half-written records that killed processes left on a disk; return their number.

    They name videos, so an erasure has to delete them too. Those of erasures belong to all releases: another command
    may be writing one, so they are deleted once they are as old as an expired lease.
    """
    if not partition.output.root.is_local:
        return 0
    folders = [partition.commit(), partition.shard(), marker(partition), edits_folder(partition)]
    swept = delete_strays(partition, folders, set(), ".tmp")
    for path in uncommitted_files(partition.output, [place_of_erasures(partition.output)], set()):
        place = partition.output.root.child(path)
        with suppress(NotFound):
            if path.endswith(".tmp") and (age_seconds(place) or 0) > EXPIRY_SECONDS:
                delete(place)
                swept += 1
    return swept


def find_uncommitted(
    output: Output, partitions: list[Partition], committed: set[str], report: Report, *, everything: bool
) -> None:
    """Report the files in table folders that no commit names; damaged records are reported by the partition's check."""
    owners = {part: f"shard {shard} is open" for p in partitions for part, shard in open_stems(p).items()}
    for partition in partitions:
        owners |= {f"part-{row['run_id']}-": f"run {row['run_id']} is active" for row in running_rows(partition, [])}
    folders = [output.table(table) for table in ALL_TABLES] if everything else _folders(partitions)
    for path in uncommitted_files(output, folders, committed):
        name = path.rsplit("/", 1)[-1]
        owner = next((owner for stem, owner in owners.items() if name.lstrip(".").startswith(stem)), None)
        if owner:
            report.unfinished.append(f"{path}: in no commit yet; {owner}, and the next run replaces it")
        elif path.partition("/")[0] in DERIVED_TABLES:
            report.unfinished.append(f"{path}: in no commit; left by `featray derive`; it or the next run removes it")
        elif name.startswith(f"part-{PERSONS_PREFIX}"):
            report.unfinished.append(f"{path}: in no commit; left by `featray persons`; it or the next run removes it")
        elif ERASE_PREFIX in name or name.startswith(f"part-{COMPACT_PREFIX}"):
            fix = "featray erase" if ERASE_PREFIX in name else "featray publish or compact"
            report.unfinished.append(f"{path}: in no commit; left by an interrupted change; finish it with {fix}")
        elif name.endswith(".tmp"):
            fix = "the next run or `featray publish` removes it" if name.startswith(".part-") else "delete it"
            report.unfinished.append(f"{path}: left by a process that was killed while writing; {fix}")
        else:
            report.problems.append(Problem("", "no commit names it: its rows are not published", path))


def _folders(partitions: list[Partition]) -> list[Location]:
    return [folder for partition in partitions for folder in partition.table_folders()]


def open_stems(partition: Partition) -> dict[str, str]:
    """Return the name prefixes of files that open shards may have written, and the shard of each."""
    stems = {}
    for manifest in read_manifests(partition, []):
        stems[f"part-{manifest.shard}-"] = manifest.shard
        for video in manifest.videos:
            if video.replaces:
                stems[f"part-{video.replaces}-{manifest.shard}-"] = manifest.shard
    return stems
