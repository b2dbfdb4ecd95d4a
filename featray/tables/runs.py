"""The `runs` table: one row a run, one small file a run.

A run's row is written when it starts and again when it ends. A marker under
`_featray/running/` holds the row in between; one that is left over belongs to a run that
was killed, and the next run writes its row for it.
"""

from __future__ import annotations

import json
import tempfile
import time
from datetime import datetime
from typing import Any

from featray.provenance import footer
from featray.sources.storage import Location, delete, list_files, read_bytes, write_bytes
from featray.tables.commits import Commit, write_commit
from featray.tables.layout import Partition
from featray.tables.writer import TableWriter


def begin_run(partition: Partition, row: dict[str, Any]) -> None:
    """Note that a run is on."""
    text = json.dumps({k: v.isoformat() if isinstance(v, datetime) else v for k, v in row.items()})
    write_bytes(marker(partition, row["run_id"]), text.encode())
    _write_row(partition, row)


def end_run(partition: Partition, row: dict[str, Any]) -> None:
    """Write the final row of a run."""
    _write_row(partition, row)
    delete(marker(partition, row["run_id"]))


def close_killed_runs(partition: Partition) -> int:
    """Give runs that ended without a word their final row; how many there were."""
    paths = [path for path in list_files(marker(partition)) if path.endswith(".json")]
    for path in paths:
        row = json.loads(read_bytes(Location(partition.output.root.fs, path, path)))
        row["started_at"] = datetime.fromisoformat(row["started_at"])
        end_run(partition, {**row, "status": "interrupted"})
    return len(paths)


def marker(partition: Partition, run_id: str = "") -> Location:
    """The note that a run is on, or the folder of them."""
    name = f"{run_id}.json" if run_id else ""
    return partition.output.internal("running", partition.dataset, partition.release, name)


def _write_row(partition: Partition, row: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory(prefix="featray-run-") as scratch:
        writer = TableWriter(
            "runs",
            folder=partition.folder("runs"),
            stem=f"part-{row['run_id']}",
            scratch=scratch,
            footer=footer(row),
            path_fields=(),
            root=partition.output.root,
        )
        writer.write_rows([row])
        files = writer.close()
    write_commit(partition, Commit(f"run-{row['run_id']}", row["run_id"], time.time_ns() // 1000, files))
