"""Command line. `featray doctor`: what works here, what does not, and what mends it.

Imported by the command line at every start, so only click is imported here at the top.
"""

from __future__ import annotations

import json
import sys

import click

from featray.cli.storage_flags import parse_storage_options, storage_option_flag


@click.command()
@click.argument("uris", nargs=-1)
@click.option("--write", is_flag=True, help="Also write a small object below each URI, and delete it.")
@storage_option_flag
@click.option("--no-ray", is_flag=True, help="Do not start Ray, which takes some ten seconds.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(uris: tuple[str, ...], write: bool, options: tuple[str, ...], no_ray: bool, as_json: bool) -> None:
    """Say what works on this machine, what does not, and what mends it.

    Packages, decoder, detector, engines, GPUs, weights, memory, disk and Ray; with URIS also whether
    this machine may list and read them. Prints no secret. Exit status: 0 if a run can work, else 1.

    \b
    featray doctor
    featray doctor s3://bucket/raw/ s3://bucket/facial/ --write
    """
    from featray.doctor.examine import examine

    checks = examine(uris, parse_storage_options(options), write=write, ray=not no_ray)
    shown = []
    for check in checks:
        shown.append(check)
        if not as_json:
            mark = {"ok": "ok      ", "missing": "MISSING ", "absent": "-       "}[check.state]
            click.echo(f"{mark}{check.group:<10}{check.name:<33} {check.found}")
            if check.mend:
                click.echo(f"{'':18}{'':<33} -> {check.mend}")
    missing = sum(check.state == "missing" for check in shown)
    if as_json:
        click.echo(json.dumps({"ok": not missing, "checks": [check.to_json() for check in shown]}, indent=2))
    elif missing:
        click.echo(f"\n{missing} to mend before a run can work; what is marked - is only needed for extras")
    else:
        click.echo("\nA run can work here; what is marked - is only needed for extras")
    sys.exit(1 if missing else 0)
