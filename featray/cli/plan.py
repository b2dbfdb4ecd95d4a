"""Command line. `featray plan`: predict a run.

Imported by the command line at every start, so only click is imported here at the top.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from featray.cli.inputs import NO_OUTPUT, input_arguments, read_inputs
from featray.errors import counted

if TYPE_CHECKING:
    from featray.config import Config


@click.command(short_help="Predict a run: videos, hours, bytes, cost.")
@input_arguments
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--sample", type=click.IntRange(min=1), default=20, show_default=True, help="Videos whose headers are read."
)
@click.option("--price-cpu-hour", type=click.FloatRange(min=0), help="Price of one CPU thread per hour.")
@click.option("--price-gpu-hour", type=click.FloatRange(min=0), help="Price of one GPU per hour.")
def plan(
    inputs: tuple[str, ...],
    out: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
    sample: int,
    price_cpu_hour: float | None,
    price_gpu_hour: float | None,
) -> None:
    """Predict a run of CONFIG, or of INPUTs into --out OUT: videos, frames, faces, hours, bytes, cost.

    Reads the headers of a random sample of the videos, and processes a few seconds of some of them, on this machine.
    Starts no run, writes nothing to the output and downloads nothing: published weights that have not been pulled are
    replaced by synthetic ones of the same shape.

    \b
    featray plan clips/
    featray plan mine.yaml --price-cpu-hour 0.04
    """
    from featray.run.forecast import forecast

    config = read_inputs(inputs, out, overrides, out_needed=False)
    if sys.stderr.isatty():
        click.echo("reading headers and processing a few seconds of video; this takes about a minute", err=True)
    found = forecast(config, sample=sample, cpu_hour_price=price_cpu_hour, gpu_hour_price=price_gpu_hour)
    for line in [json.dumps(found, indent=2)] if as_json else as_lines(found, config):
        click.echo(line)


def as_lines(found: dict[str, Any], config: Config) -> Iterator[str]:
    """Yield the forecast as text lines."""
    from featray.redaction import redact_uri
    from featray.run.wording import NO_MEANING, duration, new_release, size
    from featray.sources.passed import PassedOver

    release = found["release"] or "unknown without its weights"
    if config.output.uri == NO_OUTPUT:
        yield f"release  {release}"
    else:
        yield f"into     {redact_uri(config.output.uri)}, release {release}"
    if found["other_releases"]:
        yield f"         {new_release(found['other_releases'])}"
    yield f"videos   {found['videos']:,} to do, {size(found['input_bytes'])}"
    if found["already_published"]:
        yield f"         {found['already_published']:,} more are already published"
    if found["erased"]:
        yield f"         {counted(found['erased'], 'video')} of the input erased, left out"
    if said := PassedOver(Counter(found["passed_over"])).in_words():
        yield f"         {said}"
    if found["unreadable_videos"]:
        yield f"         about {found['unreadable_videos']:,} of them cannot be read, for example:"
        yield from (f"         {said}" for said in found["unreadable_examples"])
    if found["several_streams"]:
        yield (
            f"         about {found['several_streams']:,} of them have several video streams: the default one is "
            "processed, else the longest, else the largest"
        )
    work = ", ".join(counted(found[f"{noun}s"], noun) for noun in ("unit", "frame", "face"))
    yield f"work     about {work}"
    for place in found["places"]:
        yield f"time     about {duration(3600 * place['hours'])} on {_machine(place)}"
    stages = ", ".join(f"{stage} {duration(3600 * hours)}" for stage, hours in found["cpu_hours_by_stage"].items())
    yield f"effort   {duration(3600 * found['cpu_hours'])} of one CPU thread ({stages})"
    if found["gpu_hours"]:
        yield f"         {duration(3600 * found['gpu_hours'])} of one GPU"
    memory = {role: gib for role, gib in found["memory_gib"].items() if gib}  # nothing was measured without a video
    if memory:
        names = {"decode_worker": "decode worker", "infer_worker": "inference worker"}
        yield "memory   " + ", ".join(f"{gib} GiB per {names[role]}" for role, gib in memory.items())
    yield f"output   about {size(found['output_bytes'])}"
    if found["cost"]:
        cost = found["cost"]
        on_gpu = f", GPU {cost['gpu']:,.2f}" if found["gpu_hours"] else ""
        yield f"cost     {cost['total']:,.2f} (CPU {cost['cpu']:,.2f}{on_gpu})"
    sample = found["sample"]
    yield (
        f"from     headers of {counted(sample['videos'], 'video')} and {counted(sample['frames'], 'frame')} of "
        f"{sample['stretches']}; "
        f"rates {found['rates']['origin']}"
    )
    if found["decoded_without_gpu"]:
        yield (
            "gpu      this machine has no GPU for detect.device or decode.hwaccel: their work was timed on its CPU, "
            "and a GPU takes less"
        )
    if found["weights_trained"] is False:
        yield f"weights  {NO_MEANING}"
    if found["stand_in"]:
        yield (
            f"weights  {config.model.checkpoint} has not been pulled, and plan downloads nothing: {found['stand_in']} "
            "has the same shape and replaces it; videos already published are unknown without it"
        )


def _machine(place: dict[str, Any]) -> str:
    """Return `this computer (2 CPUs)`, or the machine described by the config."""
    has = f"{place['cpus']:g} CPU{'s' if place['cpus'] != 1 else ''}"
    if place["gpus"]:
        has += f" and {place['gpus']:g} GPU{'s' if place['gpus'] != 1 else ''}"
    return f"this computer ({has})" if place["place"] == "this computer" else f"the {has} of the config"
