"""Command line. `featray derive`: tracks and events for what is published."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featray.cli.storage_flags import open_told, storage_flags
from featray.cli.upkeep import in_each
from featray.errors import counted

if TYPE_CHECKING:
    from featray.config import ExecutorSetting
    from featray.upkeep.derive import Derived


@click.command(short_help="Derive tracks and events from the faces of OUT.")
@click.argument("out")
@click.argument("settings", required=False, metavar="[CONFIG]", type=click.Path(path_type=Path))
@click.option(
    "--set", "overrides", multiple=True, metavar="derive.KEY=VALUE", help="Set one key, as for `featray run`."
)
@click.option(
    "--executor",
    type=click.Choice(["auto", "ray", "local"]),
    default="auto",
    show_default=True,
    help="Who does the work; auto: Ray, where there is a cluster.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@storage_flags
def derive(
    out: str,
    settings: Path | None,
    overrides: tuple[str, ...],
    executor: ExecutorSetting,
    as_json: bool,
    config: Path | None,
    options: tuple[str, ...],
) -> None:
    """Derive `tracks` and `events` from the faces of the output OUT, as the section `derive:` of CONFIG says.

    CONFIG is a run's config, or a file with that section alone; without one the defaults count. Does not need the
    videos. What is derived under these settings already is not done again, unless its neutral videos or persons have
    changed; other settings make another derivation, beside those there are. Refused while a run is on.
    """
    from featray.config import load_derive
    from featray.findings.derive import Derivation
    from featray.upkeep.derive import derive_partition

    derivation = Derivation(load_derive(settings, overrides))
    output = open_told(out, config, options)
    nothing = "nothing is published here"
    in_each(output, lambda one: derive_partition(one, derivation, executor), as_json, _derived, nothing)


def _derived(done: Derived) -> tuple[dict[str, Any], Iterator[str]]:
    """Return what was derived in a release, for machines and for people."""
    already = f", {done.already} were already" if done.already else ""
    rows = f"{counted(done.tracks, 'track')}, {counted(done.events, 'event')}"
    changed = "their neutral videos" if done.persons is None else "persons"
    again = f", {done.again} of them since {changed} have changed" if done.again else ""
    sources = "" if done.neutral_videos is None else f"; {counted(done.neutral_videos, 'neutral video')}"
    sources += "" if done.persons is None else f"; {counted(done.persons, 'person')}"
    words = f"derivation {done.derivation}: {counted(done.shards, 'shard')} derived{again}{already}; {rows}{sources}"
    return asdict(done), iter([words, *filter(None, [done.note])])
