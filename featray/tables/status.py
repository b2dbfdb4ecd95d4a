"""Tables. What an output holds, in numbers."""

from __future__ import annotations

from typing import Any

from featray.errors import printable
from featray.tables.done import STATUSES
from featray.tables.layout import Output
from featray.tables.query import connect, run_sql


def read_status(output: Output, release: str | None = None) -> dict[str, Any]:
    """Counts of videos by status, frames and faces, and the runs; of the latest release of each dataset.

    Returns:
        `{"videos": {"ok": n, "partial": n, "failed": n}, "frames": n, "faces": n, "runs": [...]}`
    """
    connection = connect(output, release, ("videos", "runs"))

    def rows(sql: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = run_sql(connection, sql).read_all().to_pylist()
        return found

    videos = {row["status"]: row["n"] for row in rows("SELECT status, count(*) AS n FROM videos GROUP BY status")}
    totals = rows("SELECT coalesce(sum(frames_sampled), 0) AS frames, coalesce(sum(faces), 0) AS faces FROM videos")[0]
    runs = rows(
        "SELECT run_id, dataset, release, status, started_at, finished_at, frames, faces, "
        "round(frames_per_s, 1) AS frames_per_s FROM runs ORDER BY started_at"
    )
    for run in runs:
        for name in ("run_id", "dataset", "release", "status"):
            run[name] = printable(run[name] or "")
        for name in ("started_at", "finished_at"):
            run[name] = run[name].isoformat(timespec="seconds") if run[name] else None
    return {
        "videos": {status: videos.get(status, 0) for status in STATUSES},
        "frames": int(totals["frames"]),
        "faces": int(totals["faces"]),
        "runs": runs,
    }
