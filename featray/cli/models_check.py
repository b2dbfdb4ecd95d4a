"""Command line. `featray models check`, and the check that follows a pull.

Imported by the command line at every start, so only click is imported here at the top.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from featray.errors import FeatrayError, UsageError, counted, printable

if TYPE_CHECKING:
    from featray.config import ModelConfig
    from featray.meaning.check import Checked, KeptCheck
    from featray.meaning.pairs import Row
    from featray.model.checkpoint import Checkpoint


@click.command()
@click.argument("checkpoint")
@click.option(
    "--video", "videos", multiple=True, help="More footage: file or URI of a video of one person. May be repeated."
)
@click.option("--conventions", default="auto", show_default=True, help="Signs to try, as model.conventions.")
@click.option("--revision", help="Branch, tag or commit at which a file on the hub was pulled.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(checkpoint: str, videos: tuple[str, ...], conventions: str, revision: str | None, as_json: bool) -> None:
    """Check that the columns of CHECKPOINT mean what they say: a pulled v2.8 or hf://..., a path, or synthetic.

    Compares heads of the network that were trained on different labels with each other and with geometry, on the
    bundled clip and on the given videos. Exit status: 0 if nothing is opposed and enough pairs agree.

    \b
    featray models check v2.8
    featray models check v2.8 --video interview.mp4 --json
    """
    config = _config(checkpoint, conventions)
    opened = find_checkpoint(checkpoint, revision)
    checked = _check(opened, config, videos)
    if opened.revision and not videos and conventions == "auto":
        _keep(checked)
    click.echo(json.dumps(checked.to_json(), indent=2) if as_json else printable("\n".join(_lines(checked))))
    sys.exit(0 if checked.examination.passed else 1)


def find_checkpoint(spec: str, revision: str | None) -> Checkpoint:
    """Open a checkpoint without network access. Pulled weights need no second acceptance of the licence."""
    from featray.config import cache_dir
    from featray.model.source import is_on_hub, open_pulled_checkpoint, resolve_checkpoint

    if is_on_hub(spec):
        return open_pulled_checkpoint(spec, revision, cache_dir())
    if revision is not None:
        raise UsageError(f"--revision: {spec} is not on the hub; only its files have revisions")
    return resolve_checkpoint(spec, revision=None, sha256=None, accept_license=None, cache_dir=cache_dir())


def check_pulled(checkpoint: Checkpoint, spec: str) -> str:
    """Check pulled weights once, and return the result in one line; an error does not end a pull."""
    from featray.meaning.check import read_kept

    if not checkpoint.weights_trained:
        return "not done: these weights are not trained"
    kept = read_kept(checkpoint.path, checkpoint.sha256)
    if kept is None:
        click.echo("checking its columns on a clip; this takes a minute or two on a CPU", err=True)
        try:
            kept = _keep(_check(checkpoint, _config(spec, "auto"), ()))
        except FeatrayError as error:
            return f"failed: {error}"
    return f"{kept.summary}; details: featray models check {spec}"


def _config(spec: str, conventions: str) -> ModelConfig:
    from featray.config import build_config

    data = {"dataset": "check", "input": {"uris": ["none"]}, "output": {"uri": "none"}, "model": {"checkpoint": spec}}
    return build_config(data, (f"model.conventions={conventions}",), origin="--conventions").model


def _check(checkpoint: Checkpoint, config: ModelConfig, videos: tuple[str, ...]) -> Checked:
    from featray.graph.machine import local_cpus, local_gpus
    from featray.meaning.check import check_checkpoint

    return check_checkpoint(checkpoint, config, videos, gpu=local_gpus() >= 1, threads=local_cpus())


def _keep(checked: Checked) -> KeptCheck:
    from featray.errors import ModelError
    from featray.meaning.check import keep

    try:
        return keep(checked)
    except OSError as error:
        raise ModelError(f"{checked.checkpoint.path.parent}: cannot be written ({error.strerror or error})") from error


def _lines(checked: Checked) -> Iterator[str]:
    found = checked.examination
    yield f"checkpoint   {checked.checkpoint.path}"
    yield f"recognised   {checked.recognised.how}"
    yield f"conventions  {checked.conventions.text}"
    frames = f"{counted(found.frames, 'frame')}; intervals are 99 %, of independent frames"
    yield f"footage      {', '.join(checked.clips)}: {frames}"
    rows = [_cells(row) for row in found.rows]
    heads = ("", "pair", "expected", "correlation", "interval", "frames", "verdict", "")
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    yield ""
    group = ""
    for cells in (heads, *rows):
        shown = ("" if cells[0] == group else cells[0], *cells[1:])
        group = cells[0]
        yield "  ".join(cell.ljust(width) for cell, width in zip(shown, widths, strict=True)).rstrip()
    counts = ", ".join(f"{number} {verdict}" for verdict, number in sorted(found.counts.items()))
    yield ""
    yield f"{counts}"
    yield f"{'passed' if found.passed else 'not passed'}: {found.advice}"


def _cells(row: Row) -> tuple[str, ...]:
    numbers = ("", "", "")
    if row.interval is not None:
        one = row.interval
        numbers = (f"{one.value:+.2f}", f"{one.low:+.2f} to {one.high:+.2f}", f"{one.effective:.0f} of {one.frames}")
    return (row.group, row.name, row.expected, *numbers, row.verdict, row.note)
