"""Command line. `featray status`: the contents of an output, and its active run.

Imported by the command line at every start, so only click is imported here at the top.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from featray.cli.storage_flags import open_told, storage_flags
from featray.errors import counted, shown

_WATCH_SECONDS = 15
"""Interval of updates; a run reports its progress this often, with the renewal of its lease."""

_RUNS_SHOWN = 10
"""Number of runs listed as text, latest last; fewer with --watch on a terminal, to leave room for the active run."""

_RUNS_WATCHED = 3
_SETTINGS_SHOWN = 120
"""Characters of a derivation's settings that are shown; --json has all."""

_INDENT = 8


@click.command(short_help="Show the contents of OUT: videos, frames, faces, runs, and the active run.")
@click.argument("out")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; with --watch, one line per update.")
@click.option("--watch", is_flag=True, help=f"Update every {_WATCH_SECONDS} s, until no run is active.")
@click.option("--release", help="A release, or `all`; default: the latest of each dataset.")
@storage_flags
def status(
    out: str, as_json: bool, watch: bool, release: str | None, config: Path | None, options: tuple[str, ...]
) -> None:
    """Show the contents of the output OUT: videos by status, frames, faces, runs.

    For an active run, also shows its host and user, start, landed and published work, speed, and the time left. A run
    reports its progress every 15 s.
    """
    from featray.tables.status import read_status
    from featray.upkeep.rederive import chosen_settings, stale_shards

    output = open_told(out, config, options)
    with suppress(KeyboardInterrupt):  # nothing to clean up or resume
        _show(lambda: read_status(output, release, stale_shards, chosen_settings), as_json=as_json, watch=watch)


def _show(read: Callable[[], dict[str, Any]], *, as_json: bool, watch: bool) -> None:
    screen = sys.stdout.isatty() and not as_json
    while True:
        found = read()
        goes_on = watch and bool(found["live"])
        if as_json:
            click.echo(json.dumps(found, indent=None if watch else 2))
        else:
            lines = _lines(found, _RUNS_WATCHED if screen and goes_on else _RUNS_SHOWN)
            width = shutil.get_terminal_size().columns if screen else None
            text = "\n".join(_fitted(label, parts, width) for label, parts in lines)
            if screen and watch:
                click.clear()
            click.echo(text)
            if screen and goes_on:
                click.echo(_fitted("", [f"updates every {_WATCH_SECONDS} s;", "Ctrl-C ends this, not the run"], width))
        if not goes_on:
            return
        time.sleep(_WATCH_SECONDS)


def _fitted(label: str, parts: list[str], width: int | None) -> str:
    """Return a label and parts as a line, broken between parts to fit `width`; None never breaks it."""
    lines = [f"{label:<{_INDENT}}{parts[0]}"]
    for part in parts[1:]:
        if width is None or len(lines[-1]) + 2 + len(part) <= width:
            lines[-1] += f"  {part}"
        else:
            lines.append(f"{'':<{_INDENT + 2}}{part}")
    return "\n".join(lines)


def _lines(found: dict[str, Any], most_runs: int) -> Iterator[tuple[str, list[str]]]:
    """Yield the status as text: the label and the parts of each line."""
    yield from _count_lines(found)
    live = {run["run_id"] for run in found["live"]}
    if before := len(found["runs"][:-most_runs]):
        yield "", [f"{counted(before, 'earlier run')}: --json has all"]
    for row in found["runs"][-most_runs:]:
        state = row["status"]
        if state == "running" and row["run_id"] not in live:
            state = "killed; run it again to resume"
        started = f"{row['started_at'][:19]}Z" if row["started_at"] else "at an unknown time"
        yield "run", [row["run_id"], f"{row['dataset']}/{row['release']}", state, f"started {started}"]
    for one in found["derived"]:
        shards = "all shards" if one["shards"] == one["of"] else f"{one['shards']} of {counted(one['of'], 'shard')}"
        why = "neutral videos or persons have changed, or rows were erased"
        stale = [f"{counted(one['stale'], 'shard')} stale: {why}"] if one["stale"] else []
        yield (
            "derived",
            [
                one["derivation"],
                f"{one['dataset']}/{one['release']}",
                shards,
                f"{one['made'][:19]}Z",
                *([shown(one["settings"], _SETTINGS_SHOWN)] if one["settings"] else []),
                *(["(shown by views)"] if one["shown"] else []),
                *stale,
            ],
        )
    for one in found["who"]:
        tracks = f"{counted(one['persons'], 'person')} in {counted(one['tracks'], 'track')}"
        who = tracks if one["tracks"] else "nobody yet"
        yield "who", [f"{one['dataset']}/{one['release']}", counted(one["embeddings"], "embedding"), who]
    for one in found["waiting"]:
        begun = f"{counted(one['videos'], 'video')} begun or landed; `featray run` with the same config publishes them"
        yield "waiting", [f"{one['dataset']}/{one['release']}", begun]
    for run in found["live"]:
        yield from _live_lines(run)


def _count_lines(found: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Yield the counts, added up unless a dataset has several releases: those have the same videos."""
    releases = found["releases"]
    if len({one["dataset"] for one in releases}) == len(releases):
        yield "videos", [_statuses(found["videos"])]
        yield "frames", [f"{found['frames']:,}"]
        yield "faces", [f"{found['faces']:,}"]
        return
    for one in releases:
        counts = [counted(one["frames"], "frame"), counted(one["faces"], "face")]
        yield "videos", [f"{one['dataset']}/{one['release']}", _statuses(one["videos"]), *counts]


def _statuses(videos: dict[str, int]) -> str:
    return f"{videos['ok']:,} ok, {videos['partial']:,} partial, {videos['failed']:,} failed"


def _live_lines(run: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    from featray.run.progress import phrases
    from featray.tables.holder import Standing

    yield "now", [run["run_id"], f"{run['dataset']}/{run['release']}"]
    since = f"since {run['since'][:19]}Z"
    yield "", [f"host {run['host']}, pid {run['pid']}, user {run['user']}", since]
    if run["landed"] is None:
        yield "", ["is starting, or maintains the output"]
    else:
        first, *others = phrases(Standing(**run["landed"]))
        yield "", [f"landed     {first}", *others]
    yield "", [f"published  {counted(run['published_videos'], 'video')}"]
