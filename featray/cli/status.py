"""Command line. `featray status`: what an output holds, and the run that is on.

Imported by the command line at every start, so only click is imported here at the top.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from featray.cli.storage_flags import open_told, storage_flags

_WATCH_SECONDS = 15
"""As often as a run says how far it is, when it renews its lease."""


@click.command(short_help="Say what OUT holds: videos, frames, faces, runs, and the run that is on.")
@click.argument("out")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; with --watch, a line each time.")
@click.option("--watch", is_flag=True, help=f"Print it again every {_WATCH_SECONDS} s, until no run is on.")
@click.option("--release", help="A release, or `all`; default: the latest of each dataset.")
@storage_flags
def status(
    out: str, as_json: bool, watch: bool, release: str | None, config: Path | None, options: tuple[str, ...]
) -> None:
    """Say what the output OUT holds: videos by status, frames, faces, runs.

    Of a run that is on: who runs it, since when, what has landed and been published, its speed, and the time left. A
    run says how far it is every 15 s.
    """
    from featray.tables.status import read_status

    output = open_told(out, config, options)
    with suppress(KeyboardInterrupt):  # nothing was begun that could be gone on with
        _show(lambda: read_status(output, release), as_json=as_json, watch=watch)


def _show(read: Callable[[], dict[str, Any]], *, as_json: bool, watch: bool) -> None:
    while True:
        found = read()
        if watch and not as_json and sys.stdout.isatty():
            click.clear()
        if as_json:
            click.echo(json.dumps(found, indent=None if watch else 2))
        else:
            click.echo("\n".join(_lines(found)))
        if not watch or not found["live"]:
            return
        time.sleep(_WATCH_SECONDS)


def _lines(found: dict[str, Any]) -> Iterator[str]:
    """The answer for people."""
    videos = found["videos"]
    yield f"videos  {videos['ok']} ok, {videos['partial']} partial, {videos['failed']} failed"
    yield f"frames  {found['frames']:,}"
    yield f"faces   {found['faces']:,}"
    live = {run["run_id"] for run in found["live"]}
    for row in found["runs"]:
        state = row["status"]
        if state == "running" and row["run_id"] not in live:
            state = "killed; the same command goes on"
        yield f"run     {row['run_id']}  {row['dataset']}/{row['release']}  {state}  {row['started_at'][:19]}Z"
    for one in found["derived"]:
        shards = "all shards" if one["shards"] == one["of"] else f"{one['shards']} of {one['of']} shards"
        yield f"derived {one['derivation']}  {one['dataset']}/{one['release']}  {shards}  {one['made'][:19]}Z"
    for run in found["live"]:
        yield from _live_lines(run)


def _live_lines(run: dict[str, Any]) -> Iterator[str]:
    from featray.run.progress import in_words
    from featray.tables.holder import Standing

    since = f"{run['since'][:19]}Z"
    yield f"now     {run['run_id']}  {run['dataset']}/{run['release']}"
    yield f"        host {run['host']}, pid {run['pid']}, user {run['user']}, since {since}"
    if run["landed"] is None:
        yield "        is starting, or looks after the output"
    else:
        yield f"        landed     {in_words(Standing(**run['landed']))}"
    yield f"        published  {run['published_videos']:,} videos"
