"""What an output holds, in numbers."""

from __future__ import annotations

from typing import Any

from featray.tables.layout import Output
from featray.tables.query import connect


def read_status(output: Output, release: str | None = None) -> dict[str, Any]:
    """Counts of videos by status, frames and faces, and the runs; of the latest release of each dataset.

    Returns:
        `{"videos": {"ok": n, "partial": n, "failed": n}, "frames": n, "faces": n, "runs": [...]}`
    """
    connection = connect(output, release)
    videos = {"ok": 0, "partial": 0, "failed": 0}
    videos |= dict(connection.execute("SELECT status, count(*) FROM videos GROUP BY status").fetchall())
    totals = connection.execute(
        "SELECT coalesce(sum(frames_sampled), 0), coalesce(sum(faces), 0) FROM videos"
    ).fetchone()
    assert totals is not None
    runs = connection.execute(
        "SELECT run_id, dataset, release, status, started_at, finished_at, frames, faces, "
        "round(frames_per_s, 1) AS frames_per_s FROM runs ORDER BY started_at"
    )
    names = [column[0] for column in runs.description]
    rows = [dict(zip(names, row, strict=True)) for row in runs.fetchall()]
    for row in rows:
        for name in ("started_at", "finished_at"):
            row[name] = row[name].isoformat() if row[name] else None
    return {"videos": videos, "frames": int(totals[0]), "faces": int(totals[1]), "runs": rows}
