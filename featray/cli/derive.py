"""Command line. `featray derive`: tracks and events for published rows."""

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
    help="Executor; auto: Ray if there is a cluster.",
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
    """Derive `tracks` and `events` from the faces of the output OUT, with the section `derive:` of CONFIG.

    CONFIG is a run's config, or a file with only that section; without CONFIG the defaults apply. The videos are not
    needed. Shards that are already derived with these settings are skipped, unless their neutral videos or persons
    have changed, or rows were erased. Other settings add another derivation and keep existing ones. A release with an
    active run is refused; the others are processed.
    """
    from featray.config import load_derive
    from featray.findings.derive import Derivation
    from featray.upkeep.derive import derive_partition

    derivation = Derivation(load_derive(settings, overrides))
    output = open_told(out, config, options)
    nothing = "nothing to derive: no published rows"
    in_each(output, lambda one: derive_partition(one, derivation, executor), as_json, _derived, nothing)


def _derived(done: Derived) -> tuple[dict[str, Any], Iterator[str]]:
    """Return what was derived in a release, as plain data and as text lines."""
    already = f", {done.already} were already" if done.already else ""
    rows = f"{counted(done.tracks, 'track')}, {counted(done.events, 'event')}"
    changed = "their neutral videos" if done.persons is None else "persons"
    again = f", {done.again} of them since {changed} have changed or rows were erased" if done.again else ""
    sources = "" if done.neutral_videos is None else f"; {counted(done.neutral_videos, 'neutral video')}"
    sources += "" if done.persons is None else f"; {counted(done.persons, 'person')}"
    words = f"derivation {done.derivation}: {counted(done.shards, 'shard')} derived{again}{already}; {rows}{sources}"
    return asdict(done), iter([words, *filter(None, [done.note])])
