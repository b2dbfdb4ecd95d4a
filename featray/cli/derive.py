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
    from featray.upkeep.derive import Derived


@click.command(short_help="Derive tracks and events from the faces of OUT.")
@click.argument("out")
@click.argument("settings", required=False, metavar="[CONFIG]", type=click.Path(path_type=Path))
@click.option(
    "--set", "overrides", multiple=True, metavar="derive.KEY=VALUE", help="Set one key, as for `featray run`."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@storage_flags
def derive(
    out: str,
    settings: Path | None,
    overrides: tuple[str, ...],
    as_json: bool,
    config: Path | None,
    options: tuple[str, ...],
) -> None:
    """Derive `tracks` and `events` from the faces of the output OUT, as the section `derive:` of CONFIG says.

    CONFIG is a run's config, or a file with that section alone; without one the defaults count. Needs neither Ray nor
    the videos. What is derived under these settings already is not done again; other settings make another
    derivation, beside those there are. Refused while a run is on.
    """
    from featray.config import load_derive
    from featray.findings.derive import Derivation
    from featray.upkeep.derive import derive_partition

    derivation = Derivation(load_derive(settings, overrides))
    output = open_told(out, config, options)
    in_each(output, lambda one: derive_partition(one, derivation), as_json, _derived, "nothing is published here")


def _derived(done: Derived) -> tuple[dict[str, Any], Iterator[str]]:
    """What was derived in a release, for machines and for people."""
    already = f", {done.already} were already" if done.already else ""
    rows = f"{counted(done.tracks, 'track')}, {counted(done.events, 'event')}"
    return asdict(done), iter(
        [f"derivation {done.derivation}: {counted(done.shards, 'shard')} derived{already}; {rows}"]
    )
