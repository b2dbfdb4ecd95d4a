"""Tables. Count what an output contains."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from featray.errors import on_one_line
from featray.tables.done import STATUSES
from featray.tables.layout import Output, list_partitions
from featray.tables.lease import read_holder
from featray.tables.published import Published, read_steadily
from featray.tables.query import connect, literal, read_rows, run_sql

Stale = Callable[[Published], Mapping[str, int]]


def read_status(
    output: Output, release: str | None = None, stale: Stale = lambda published: MappingProxyType({})
) -> dict[str, Any]:
    """Return counts of videos by status, of frames and faces, and the runs; by default of the latest releases.

    Args:
        output: the output to read.
        release: a release, or `all`; None for the latest of each dataset.
        stale: returns the number of stale shards by derivation.

    Returns:
        `{"videos": {"ok": n, "partial": n, "failed": n}, "frames": n, "faces": n, "runs": [...], "derived": [...],
        "who": [...], "live": [...]}`;
        `derived` gives, for each derivation, when it was last made, how many of the published shards have it, and how
        many of those are stale;
        `who` gives, for each release with embeddings, their number, and the numbers of persons and of their tracks;
        `live` gives the current lease holders, usually runs, and their progress at the last renewal.
    """
    return read_steadily(output, lambda published: _read(output, release, published, stale), release)


def _read(output: Output, release: str | None, published: list[Published], stale: Stale) -> dict[str, Any]:
    connection = connect(output, release, ("videos", "runs", "persons"), published=published)

    def rows(sql: str) -> list[dict[str, Any]]:
        return read_rows(run_sql(connection, sql))

    videos = {row["status"]: row["n"] for row in rows("SELECT status, count(*) AS n FROM videos GROUP BY status")}
    totals = rows("SELECT coalesce(sum(frames_sampled), 0) AS frames, coalesce(sum(faces), 0) AS faces FROM videos")[0]
    runs = rows(
        "SELECT run_id, dataset, release, status, started_at, finished_at, frames, faces, "
        "round(frames_per_s, 1) AS frames_per_s FROM runs ORDER BY started_at"
    )
    for run in runs:
        for name in ("run_id", "dataset", "release", "status"):
            run[name] = on_one_line(run[name] or "")
        for name in ("started_at", "finished_at"):
            run[name] = run[name].isoformat(timespec="seconds") if run[name] else None
    return {
        "videos": {status: videos.get(status, 0) for status in STATUSES},
        "frames": int(totals["frames"]),
        "faces": int(totals["faces"]),
        "runs": runs,
        "derived": [
            {
                "dataset": on_one_line(one.partition.dataset),
                "release": on_one_line(one.partition.release),
                "derivation": name,
                "made": _utc(made_us),
                "shards": shards,
                "of": one.with_videos,
                "stale": changed.get(name, 0),
            }
            for one in published
            for changed in [stale(one)]
            for name, (made_us, shards) in sorted(one.derived.items())
        ],
        "who": list(_who(published, rows)),
        "live": list(_live(output, rows)),
    }


def _who(published: list[Published], rows: Callable[[str], list[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """Yield the numbers of embeddings, from commits, and of persons, from their table."""
    for one in published:
        embeddings = sum(file.rows for file in one.committed if file.table == "embeddings")
        if embeddings or one.files("persons"):
            names = {"dataset": one.partition.dataset, "release": one.partition.release}
            where = " AND ".join(f"{name} = {literal(value)}" for name, value in names.items())
            counts = "count(*) AS tracks, count(DISTINCT person_id) AS persons"
            (found,) = rows(f"SELECT {counts} FROM persons WHERE {where}")
            yield {**{name: on_one_line(value) for name, value in names.items()}, "embeddings": embeddings, **found}


def _live(output: Output, rows: Callable[[str], list[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """Yield the current lease holders and the number of videos that they have published."""
    for partition in list_partitions(output, having="leases"):
        holder = read_holder(partition)
        if holder is None:
            continue
        published = rows(f"SELECT count(*) AS n FROM videos WHERE run_id = {literal(holder.run_id)}")[0]["n"]
        standing = holder.standing
        yield {
            "run_id": holder.run_id,
            "dataset": on_one_line(partition.dataset),
            "release": on_one_line(partition.release),
            "host": on_one_line(holder.host),
            "pid": holder.pid,
            "user": on_one_line(holder.user),
            "since": _utc(holder.since_us),
            "renewed": _utc(holder.renewed_us),
            "published_videos": published,
            "landed": None if standing is None else asdict(standing),
            "frames_per_s": None if standing is None else round(standing.frames_per_s, 1),
            "seconds_left": None if standing is None else standing.seconds_left,
        }


def _utc(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds / 1e6, UTC).isoformat(timespec="seconds")
