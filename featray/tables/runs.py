"""Tables. The `runs` table: one row and one small file per run.

A run's row is written when it starts and, to another file, when it ends. In between, a marker
under `_featray/running/` contains the row. A marker that is left over belongs to a killed run,
and the next run writes the final row for it.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from datetime import datetime
from typing import Any

import pyarrow as pa
from pydantic import TypeAdapter

from featray.errors import NotFound, OutputError, on_one_line
from featray.records import RecordName
from featray.schema import arrow_schema
from featray.store.location import Location
from featray.store.scratch import scratch_folder
from featray.store.storage import delete, list_files, read_record, write_bytes
from featray.tables.commits import Commit, read_commit, write_commit
from featray.tables.layout import Partition
from featray.tables.lease import HeldPartition
from featray.tables.provenance import footer
from featray.tables.writer import TableWriter


def begin_run(partition: HeldPartition, row: dict[str, Any]) -> None:
    """Record that a run has started."""
    partition.check()
    write_marker(partition, row)
    _write_row(partition, row)


def write_marker(partition: Partition, row: dict[str, Any]) -> None:
    """Store the row of a running run in its marker."""
    text = json.dumps({k: v.isoformat() if isinstance(v, datetime) else v for k, v in row.items()})
    write_bytes(marker(partition, row["run_id"]), text.encode())


def end_part(partition: Partition, run_id: str, facts: dict[str, Any]) -> None:
    """Record in its marker how a part ended; do nothing if a publishing run has already written its final row."""
    with suppress(NotFound):
        write_marker(partition, {**parse_marker(partition, run_id, read_record(marker(partition, run_id))), **facts})


def end_run(partition: HeldPartition, row: dict[str, Any]) -> None:
    """Write the final row of a run to its own file; until that is committed, the first row counts."""
    _write_row(partition, row, final=True)
    _forget(partition, row["run_id"])


def _forget(partition: HeldPartition, run_id: str) -> None:
    """Delete what only a running run needs: the file with its first row, then its marker."""
    partition.check()
    delete(partition.folder("runs").child(f"part-{run_id}-000.parquet"))
    delete(marker(partition, run_id))


def close_killed_runs(partition: HeldPartition) -> int:
    """Write the final rows of parts and of killed runs; return the number of those that were killed."""
    rows, killed = running_rows(partition), 0
    for row in rows:
        commit = read_commit(partition, f"run-{row['run_id']}")
        if commit is not None and any(f"part-{row['run_id']}-end-" in file.path for file in commit.files):
            _forget(partition, row["run_id"])  # it ended, but was killed during its cleanup
        else:
            killed += not row["finished_at"]
            end_run(partition, row if row["finished_at"] else {**row, "status": "interrupted"})
    return killed


def parse_marker(partition: Partition, run_id: str, text: bytes) -> dict[str, Any]:
    """Parse the row of `runs` stored under a run's id.

    Raises:
        ValueError: it is damaged or does not belong to this partition and run.
    """
    try:
        row = json.loads(text)
        for name in ("started_at", "finished_at"):
            row[name] = datetime.fromisoformat(row[name]) if row.get(name) else None
        (row,) = pa.Table.from_pylist([row], schema=arrow_schema("runs")).to_pylist()
    except (RecursionError, TypeError, KeyError, AttributeError, OverflowError, pa.ArrowException) as error:
        raise ValueError("is not a row of `runs`") from error
    TypeAdapter(RecordName).validate_python(run_id)
    if (row["run_id"], row["dataset"], row["release"]) != (run_id, partition.dataset, partition.release):
        raise ValueError("is the row of another run")
    if row["config"] is None or row["started_at"] is None:
        raise ValueError("is not a row of `runs`")
    found: dict[str, Any] = row
    return found


def running_rows(partition: Partition, damaged: list[str] | None = None) -> list[dict[str, Any]]:
    """Return the rows of runs that have started but not ended: they are running or were killed.

    Args:
        partition: the partition.
        damaged: receives a line for each unreadable marker, which is then skipped.

    Raises:
        OutputError: a marker cannot be read, and `damaged` is None.
    """
    rows, folder = [], marker(partition)
    for path in list_files(folder):
        run_id, _, suffix = path.rsplit("/", 1)[-1].rpartition(".")
        if suffix != "json":
            continue
        place = folder.at(path)
        try:
            rows.append(parse_marker(partition, run_id, read_record(place)))
            continue
        except OutputError as error:
            problem = str(error)
        except ValueError:
            fix = "delete it; the row that the run wrote at its start stays unchanged"
            problem = on_one_line(f"{place.uri}: damaged marker of a running run; {fix}")
        if damaged is None:
            raise OutputError(problem)
        damaged.append(problem)
    return rows


def marker(partition: Partition, run_id: str = "") -> Location:
    """Return the location of a run's marker, or of the folder of markers."""
    name = f"{run_id}.json" if run_id else ""
    return partition.output.internal("running", partition.dataset, partition.release, name)


def _write_row(partition: HeldPartition, row: dict[str, Any], *, final: bool = False) -> None:
    with scratch_folder("run") as scratch:
        writer = TableWriter(
            "runs",
            partition,
            folder=partition.folder("runs"),
            stem=f"part-{row['run_id']}{'-end' if final else ''}",
            scratch=scratch,
            footer=footer(row),
            path_fields=(),
        )
        writer.write_rows([row])
        files = writer.close()
    name = f"run-{row['run_id']}"
    old = read_commit(partition, name)
    write_commit(partition, Commit(name, row["run_id"], time.time_ns() // 1000, files))
    for file in old.files if old else []:
        if file.path not in {new.path for new in files}:
            partition.delete(file.path)
