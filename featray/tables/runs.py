"""Tables. The `runs` table: one row a run, one small file a run.

A run's row is written when it starts and, to another file, when it ends. A marker under
`_featray/running/` holds the row in between; one that is left over belongs to a run that
was killed, and the next run writes its row for it.
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
from featray.store.scratch import scratch_folder
from featray.store.storage import Location, delete, list_files, read_record, write_bytes
from featray.tables.commits import Commit, read_commit, write_commit
from featray.tables.layout import Partition
from featray.tables.lease import HeldPartition
from featray.tables.provenance import footer
from featray.tables.writer import TableWriter


def begin_run(partition: HeldPartition, row: dict[str, Any]) -> None:
    """Note that a run is on."""
    partition.check()
    write_marker(partition, row)
    _write_row(partition, row)


def write_marker(partition: Partition, row: dict[str, Any]) -> None:
    """Keep the row of a run that is on."""
    text = json.dumps({k: v.isoformat() if isinstance(v, datetime) else v for k, v in row.items()})
    write_bytes(marker(partition, row["run_id"]), text.encode())


def end_part(partition: Partition, run_id: str, facts: dict[str, Any]) -> None:
    """Note how a part ended, in its marker; nothing if a run that published meanwhile has written its row."""
    with suppress(NotFound):
        write_marker(partition, {**parse_marker(partition, run_id, read_record(marker(partition, run_id))), **facts})


def end_run(partition: HeldPartition, row: dict[str, Any]) -> None:
    """Write the final row of a run, in a file of its own: until its commit is there, the first one counts."""
    _write_row(partition, row, final=True)
    _forget(partition, row["run_id"])


def _forget(partition: HeldPartition, run_id: str) -> None:
    """Delete what only a run that is on needs: the file with its first row, then its marker."""
    partition.check()
    delete(partition.folder("runs").child(f"part-{run_id}-000.parquet"))
    delete(marker(partition, run_id))


def close_killed_runs(partition: HeldPartition) -> int:
    """Give parts, and runs that ended without a word, their final row; how many there were."""
    rows = running_rows(partition)
    for row in rows:
        commit = read_commit(partition, f"run-{row['run_id']}")
        if commit is not None and any(f"part-{row['run_id']}-end-" in file.path for file in commit.files):
            _forget(partition, row["run_id"])  # it ended, and was killed while it tidied up
        else:
            end_run(partition, row if row["finished_at"] else {**row, "status": "interrupted"})
    return len(rows)


def parse_marker(partition: Partition, run_id: str, text: bytes) -> dict[str, Any]:
    """The row of `runs` that is stored under a run's id.

    Raises:
        ValueError: it is damaged, or no row of this partition and run.
    """
    try:
        row = json.loads(text)
        for name in ("started_at", "finished_at"):
            row[name] = datetime.fromisoformat(row[name]) if row.get(name) else None
        (row,) = pa.Table.from_pylist([row], schema=arrow_schema("runs")).to_pylist()
    except (RecursionError, TypeError, KeyError, AttributeError, OverflowError, pa.ArrowException) as error:
        raise ValueError("is no row of `runs`") from error
    TypeAdapter(RecordName).validate_python(run_id)
    if (row["run_id"], row["dataset"], row["release"]) != (run_id, partition.dataset, partition.release):
        raise ValueError("is the row of another run")
    if row["config"] is None or row["started_at"] is None:
        raise ValueError("is no row of `runs`")
    found: dict[str, Any] = row
    return found


def running_rows(partition: Partition, damaged: list[str] | None = None) -> list[dict[str, Any]]:
    """Rows of runs that have begun and not ended: one that is on, or was killed.

    Args:
        partition: whose.
        damaged: takes a line for each marker that cannot be read, which is then passed over.

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
            mend = "delete it, and the row that the run wrote at its start stays as it is"
            problem = on_one_line(f"{place.uri}: damaged note that a run is on; {mend}")
        if damaged is None:
            raise OutputError(problem)
        damaged.append(problem)
    return rows


def marker(partition: Partition, run_id: str = "") -> Location:
    """The note that a run is on, or the folder of them."""
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
