"""Command line. `featray doctor`: check the installation, and print the fix for whatever fails.

Imported by the command line at every start, so only click is imported here at the top.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featray.cli.storage_flags import parse_storage_options, storage_option_flag
from featray.errors import UsageError

if TYPE_CHECKING:
    from featray.doctor.check import Check


@click.command(short_help="Check whether this machine can run featray, and print fixes.")
@click.argument("uris", nargs=-1)
@click.option("--config", "path", type=click.Path(path_type=Path), help="A run's config: check its input and output.")
@click.option(
    "--write",
    is_flag=True,
    help="Also write a small object below the output of --config, or else below each of URIS, and delete it.",
)
@storage_option_flag
@click.option("--no-ray", is_flag=True, help="Do not start Ray, which takes about ten seconds.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(
    uris: tuple[str, ...], path: Path | None, write: bool, options: tuple[str, ...], no_ray: bool, as_json: bool
) -> None:
    """Check whether this machine can run featray, and print the fix for whatever fails, then all checks.

    Checks packages, decoder, detector, engines, GPUs, weights, memory, disk and Ray; with --config or URIS also whether
    these places can be listed and read. Prints no secrets. Exit status: 0 if a run can work, else 1.

    \b
    featray doctor
    featray doctor s3://bucket/raw/
    featray doctor --config mine.yaml --write
    """
    from featray.config import load_config
    from featray.doctor.examine import examine

    if path is not None and (uris or options):
        raise UsageError("doctor: --config names all places and their options; leave out URIS and --storage-option")
    config = None if path is None else load_config(path)

    if sys.stderr.isatty():
        and_ray = "" if no_ray else " and starting Ray, which takes about ten seconds"
        click.echo(f"checking this machine{and_ray}", err=True)
    checks = list(examine(uris, parse_storage_options(options), write=write, ray=not no_ray, config=config))
    missing = [check for check in checks if check.state == "missing"]
    if as_json:
        click.echo(json.dumps({"ok": not missing, "checks": [check.to_json() for check in checks]}, indent=2))
    else:
        click.echo("\n".join(_lines(checks, len(missing))))
    sys.exit(1 if missing else 0)


def _lines(checks: list[Check], missing: int) -> Iterator[str]:
    """Yield the verdict with what to fix, then all checks."""
    if missing:
        yield f"{missing} to fix before a run can work:"
        yield from (line for check in checks if check.state == "missing" for line in _check_lines(check))
    else:
        yield "ok: this machine can run featray"
    yield ""
    yield "All checks (-: needed only for extras):"
    for check in checks:
        yield from _check_lines(check)


def _check_lines(check: Check) -> Iterator[str]:
    mark = {"ok": "ok      ", "missing": "MISSING ", "absent": "-       "}[check.state]
    yield f"{mark}{check.group:<10}{check.name:<33} {check.found}"
    if check.fix:
        yield f"{'':18}{'':<33} -> {check.fix}"
