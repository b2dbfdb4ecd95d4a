"""Tables. Count what an output contains."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from featray.errors import on_one_line
from featray.store.storage import list_folders
from featray.tables.database import literal, read_rows
from featray.tables.done import STATUSES
from featray.tables.layout import Output, list_partitions
from featray.tables.lease import read_holder
from featray.tables.published import Published, read_steadily
from featray.tables.query import connect, run_sql

Stale = Callable[[Published], Mapping[str, int]]
Chosen = Callable[[Published], Mapping[str, str]]


def read_status(
    output: Output,
    release: str | None = None,
    stale: Stale = lambda published: MappingProxyType({}),
    chosen: Chosen = lambda published: MappingProxyType({}),
) -> dict[str, Any]:
    """Return counts of videos by status, of frames and faces, and the runs; by default of the latest releases.

    Args:
        output: the output to read.
        release: a release, or `all`; None for the latest of each dataset.
        stale: returns the number of stale shards by derivation.
        chosen: returns the settings other than the defaults by derivation.

    Returns:
        `{"videos": {"ok": n, "partial": n, "failed": n}, "frames": n, "faces": n, "releases": [...],
        "runs": [...], "derived": [...], "who": [...], "live": [...],
        "waiting": [...]}`;
        `releases` gives the counts of videos, frames and faces for each release;
        `derived` gives, for each derivation, when it was last made, how many of the published shards have it, and how
        many of those are stale, its settings, and whether views show it;
        `who` gives, for each release with embeddings, their number, and the numbers of persons and of their tracks;
        `live` gives the current lease holders, usually runs, and their progress at the last renewal;
        `waiting` gives the number of videos that were begun or have landed, in each release without such a holder.
    """
    return read_steadily(output, lambda published: _read(output, release, published, stale, chosen), release)


def _read(
    output: Output, release: str | None, published: list[Published], stale: Stale, chosen: Chosen
) -> dict[str, Any]:
    connection = connect(output, release, ("videos", "runs", "persons"), published=published)

    def rows(sql: str) -> list[dict[str, Any]]:
        return read_rows(run_sql(connection, sql))

    releases = _releases(rows)
    runs = rows(
        "SELECT run_id, dataset, release, status, started_at, finished_at, frames, faces, "
        "round(frames_per_s, 1) AS frames_per_s FROM runs ORDER BY started_at"
    )
    for run in runs:
        for name in ("run_id", "dataset", "release", "status"):
            run[name] = on_one_line(run[name] or "")
        for name in ("started_at", "finished_at"):
            run[name] = run[name].isoformat(timespec="seconds") if run[name] else None
    live = list(_live(output, rows))
    return {
        "videos": {status: sum(one["videos"][status] for one in releases) for status in STATUSES},
        "frames": sum(one["frames"] for one in releases),
        "faces": sum(one["faces"] for one in releases),
        "releases": releases,
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
                "settings": settings.get(name, ""),
                "shown": name == one.shown,
            }
            for one in published
            for changed, settings in [(stale(one), chosen(one))]
            for name, (made_us, shards) in sorted(one.derived.items())
        ],
        "who": list(_who(published, rows)),
        "live": live,
        "waiting": list(_waiting(output, live)),
    }


def _releases(rows: Callable[[str], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the counts of videos by status, of frames and of faces, by dataset and release."""
    counts = ", ".join(f"count(*) FILTER (status = {literal(status)}) AS {status}" for status in STATUSES)
    sums = "coalesce(sum(frames_sampled), 0) AS frames, coalesce(sum(faces), 0) AS faces"
    return [
        {
            "dataset": on_one_line(row["dataset"] or ""),
            "release": on_one_line(row["release"] or ""),
            "videos": {status: row[status] for status in STATUSES},
            "frames": int(row["frames"]),
            "faces": int(row["faces"]),
        }
        for row in rows(f"SELECT dataset, release, {counts}, {sums} FROM videos GROUP BY ALL ORDER BY ALL")
    ]


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


def _waiting(output: Output, live: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield what waits for a run that publishes it: of `--part`, or of a run that ended before."""
    for partition in list_partitions(output, having="landing"):
        names = {"dataset": on_one_line(partition.dataset), "release": on_one_line(partition.release)}
        videos = len(list_folders(partition.landing()))
        if videos and not any(names.items() <= run.items() for run in live):
            yield {**names, "videos": videos}


def _utc(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds / 1e6, UTC).isoformat(timespec="seconds")
