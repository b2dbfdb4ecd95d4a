"""Command line. `featray persons`: who is who, from the embeddings of an output."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featray.cli.storage_flags import open_told, storage_flags
from featray.cli.upkeep import in_each
from featray.errors import UsageError, counted, printable

if TYPE_CHECKING:
    from featray.persons.keys import Key
    from featray.persons.truth import Truth
    from featray.tables.layout import Output, Partition
    from featray.upkeep.persons import Persons


@click.command(short_help="Find out which tracks of OUT are of one person.")
@click.argument("out")
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Cosine from which on two tracks are one person; default: the embedder's own, 0.96 for face-api.",
)
@click.option(
    "--truth",
    type=click.Path(path_type=Path),
    metavar="CSV",
    help="Compare with labels: a file with the columns video, track_id and person.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@storage_flags
def persons(
    out: str, threshold: float | None, truth: Path | None, as_json: bool, config: Path | None, options: tuple[str, ...]
) -> None:
    """Write the table `persons` of OUT: which tracks are of one person, across shots and videos.

    Works on the embeddings that a run with identify.enabled has made; needs neither Ray nor the videos. Two tracks that
    are on screen at once are never one person. A person keeps its id when videos are added. What is done already is not
    done again. Refused while a run is on.
    """
    from featray.persons.settings import PersonsSettings
    from featray.upkeep.persons import find_persons

    settings, output = PersonsSettings(threshold), open_told(out, config, options)
    labels = None if truth is None else _labels(output, truth)
    compared = []

    def work(partition: Partition) -> tuple[Persons | None, Truth | None]:
        done = find_persons(partition, settings)
        agreement = None if labels is None or done is None else _compare(partition, labels)
        compared.append(agreement)
        return done, agreement

    in_each(output, work, as_json, _found)
    if labels is not None and not any(compared):
        raise UsageError("--truth: none of its tracks has a person here; do its videos and track_ids belong to OUT?")


def _labels(output: Output, truth: Path) -> dict[Key, str]:
    from featray.persons.truth import read_truth
    from featray.tables.named import find_video_id

    return read_truth(truth, lambda name: find_video_id(output, name))


def _compare(partition: Partition, labels: dict[Key, str]) -> Truth | None:
    from featray.persons.truth import compare
    from featray.upkeep.persons import read_persons

    return compare(read_persons(partition), labels)


def _found(found: tuple[Persons | None, Truth | None]) -> tuple[dict[str, Any], Iterator[str]]:
    """Who is who in a release, for machines and for people."""
    done, truth = found
    if done is None:
        nothing = (
            "has no embeddings; run it with identify.enabled and identify.accept_biometric set to true; if it was, no "
            "face was seen well enough"
        )
        return {"persons": None}, iter([nothing])
    if truth is None:
        return asdict(done), _lines(done)
    return {**asdict(done), "truth": asdict(truth)}, chain(_lines(done), _lines_of_truth(truth))


def _lines_of_truth(truth: Truth) -> Iterator[str]:
    yield (
        f"against {counted(truth.labelled, 'labelled track')} ({truth.without:,} without a person): B-cubed F "
        f"{truth.b_cubed_f:.3f}, pairs: precision {truth.precision:.3f}, recall {truth.recall:.3f}; "
        f"{counted(truth.switches, 'switch', 'switches')} of identity"
    )


def _lines(done: Persons) -> Iterator[str]:
    how = "found" if done.fresh else "had been found already"
    yield f"{counted(done.persons, 'person')} {how} in {counted(done.tracks, 'track')} (clustering {done.clustering})"
    if done.without_embedding > 0:
        yield f"without a person: {counted(done.without_embedding, 'track')}; no face was seen well enough"
    if done.renamed:
        yield f"of another person than before: {counted(done.renamed, 'track')}; see `previous` in the table persons"
    if done.doubtful:
        yield f"doubtful: {counted(done.doubtful, 'track')}; another person is nearly as close (margin below 0.01)"
    if not done.tracks:
        return
    most = ", ".join(f"{printable(name[:60])} ({count})" for name, count in done.largest[:5])
    yield f"most tracks: {most}"
    yield f"similarity of tracks to their person's centre (two are one from {done.threshold:g} on):"
    widest = max(done.histogram.values())
    for step, count in done.histogram.items():
        yield f"  {step} {'#' * max(1, round(40 * count / widest))} {count:,}"
