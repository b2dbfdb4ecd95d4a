"""Command line. `featray persons`: cluster the tracks of an output into persons, from their embeddings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featray.cli.once import OnceOption
from featray.cli.storage_flags import open_told, storage_flags
from featray.cli.upkeep import in_each
from featray.errors import UsageError, counted, printable

if TYPE_CHECKING:
    from featray.persons.gallery import Gallery
    from featray.persons.rows import Persons
    from featray.persons.truth import Truth
    from featray.tables.layout import Output, Partition
    from featray.tables.persons import TrackKey


@click.command(short_help="Cluster the tracks of OUT into persons.")
@click.argument("out")
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Minimum cosine of two tracks of one person; default: the embedder's own, 0.96 for face-api.",
)
@click.option(
    "--gallery",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Name persons after pictures, name.jpg or name/*.jpg; without this option, persons keep their names. The "
    "weights and licence of an embedder other than face-api are read from --config.",
)
@click.option(
    "--merge",
    cls=OnceOption,
    nargs=2,
    metavar="P Q",
    help="Merge two persons. Stored, and applied whenever the table is rebuilt.",
)
@click.option(
    "--split",
    multiple=True,
    metavar="VIDEO:TRACK",
    help="Split this track off from its person; repeat for several tracks. Stored like --merge.",
)
@click.option("--undo", is_flag=True, help="Undo the last --merge or --split.")
@click.option("--release", help="Only in this release; default: all, or the only one that an edit fits.")
@click.option(
    "--truth",
    type=click.Path(path_type=Path),
    metavar="CSV",
    help="Compare with labels in a CSV file with the columns video, track_id and person.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@storage_flags
def persons(
    out: str,
    threshold: float | None,
    gallery: Path | None,
    merge: tuple[str, str] | None,
    split: tuple[str, ...],
    undo: bool,
    release: str | None,
    truth: Path | None,
    as_json: bool,
    config: Path | None,
    options: tuple[str, ...],
) -> None:
    """Cluster the tracks of OUT into persons, across shots and videos, and write the table `persons`.

    The command uses the embeddings from a run with identify.enabled; it needs neither Ray nor the videos. Two tracks
    that are on screen at the same time are never one person. A person keeps its id when videos are added. If nothing
    has changed, nothing is recomputed. A release with an active run is refused; the others are processed.
    """
    from featray.config import load_config
    from featray.config_identify import IdentifyConfig
    from featray.persons.gallery import read_gallery
    from featray.persons.settings import PersonsSettings
    from featray.upkeep.persons import find_persons

    settings, output = PersonsSettings(threshold), open_told(out, config, options)
    chosen = _edit(output, merge, split, undo, release)
    labels = None if truth is None else _labels(output, truth)
    compared = []

    @cache
    def opened(embedder: str) -> Gallery:
        assert gallery is not None
        identify = IdentifyConfig() if config is None else load_config(config).identify
        return read_gallery(gallery, identify.model_copy(update={"embedder": embedder}))

    def work(partition: Partition) -> tuple[Persons | None, Truth | None]:
        done = find_persons(partition, settings, None if gallery is None else opened)
        agreement = None if labels is None or done is None else _compare(partition, labels)
        compared.append(agreement)
        return done, agreement

    in_each(output, work, as_json, _found, only=chosen)
    if labels is not None and not any(compared):
        raise UsageError(
            "--truth: none of its tracks has a person in OUT; check that its videos and track_ids belong to OUT"
        )


def _edit(
    output: Output, merge: tuple[str, str] | None, split: tuple[str, ...], undo: bool, release: str | None
) -> list[Partition] | None:
    """Store an edit; return the partitions to work on, or None for all."""
    from featray.tables.layout import list_partitions
    from featray.tables.person_edits import has_edits
    from featray.upkeep import person_edits

    some = [partition for partition in list_partitions(output) if release in (None, partition.release)]
    if release is not None and not some:
        raise UsageError(f"--release {release}: not in this output")
    if (merge is not None) + bool(split) + undo > 1:
        raise UsageError("persons: more than one edit; give one of --merge, --split and --undo")
    if merge is not None and merge[0] == merge[1]:
        raise UsageError(f"--merge {merge[0]} {merge[1]}: is one person; name two")
    if merge is None and not split and not undo:
        return None if release is None else some
    tracks = [_track(output, text) for text in split]
    if undo and len(some) > 1:
        some = [partition for partition in some if has_edits(partition)]
        if not some:
            raise UsageError("--undo: no release has edits")
    if not undo:
        some = [partition for partition in some if person_edits.knows(partition, merge or (), tracks)]
    if len(some) != 1:
        what = f"--merge {' '.join(merge)}" if merge else f"--split {' '.join(split)}" if split else "--undo"
        none = "no release has all these persons and tracks, named by their ids (p-...) and VIDEO:TRACK"
        why = "several releases match; add --release" if some else none
        raise UsageError(
            printable(f'{what}: {why}; `featray query OUT --release all "SELECT * FROM persons"` lists them')
        )
    change = person_edits.undo if undo else person_edits.merge(merge) if merge else person_edits.split(tracks)
    person_edits.change_edits(some[0], change)
    return some


def _video_id(output: Output, name: str) -> str:
    """Find a video that an option other than --video names."""
    from featray.tables.named import find_video_id

    try:
        return find_video_id(output, name)
    except UsageError as error:
        raise UsageError(str(error).removeprefix("--video ")) from None


def _track(output: Output, text: str) -> TrackKey:
    video, colon, track = text.rpartition(":")
    if not colon or not (track.isascii() and track.isdecimal() and len(track) < 10):
        raise UsageError(printable(f"--split {text}: not a track; write VIDEO:TRACK, such as face.mp4:3"))
    try:
        return _video_id(output, video), int(track)
    except UsageError as error:
        raise UsageError(f"--split {printable(text)}: {error}") from None


def _labels(output: Output, truth: Path) -> dict[TrackKey, str]:
    from featray.persons.truth import read_truth

    return read_truth(truth, partial(_video_id, output))


def _compare(partition: Partition, labels: dict[TrackKey, str]) -> Truth | None:
    from featray.persons.truth import compare
    from featray.upkeep.persons import read_persons, tracks_among

    persons = read_persons(partition)
    return compare(persons, labels, persons.keys() | tracks_among(partition, labels.keys() - persons.keys()))


def _found(found: tuple[Persons | None, Truth | None]) -> tuple[dict[str, Any], Iterator[str]]:
    """Return the persons of a release as JSON data and as lines of text."""
    done, truth = found
    if done is None:
        nothing = (
            "has no embeddings; run it with identify.enabled and identify.accept_biometric set to true; if it was, no "
            "face was good enough to embed"
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
    if truth.absent:
        there = ", ".join(f"{video}:{track}" for video, track in truth.absent[:3])
        yield f"--truth: {counted(len(truth.absent), 'label')} of tracks that this release lacks, such as {there}"


def _lines(done: Persons) -> Iterator[str]:
    how = "found" if done.fresh else "already found"
    yield f"{counted(done.persons, 'person')} {how} in {counted(done.tracks, 'track')} (clustering {done.clustering})"
    if done.without_embedding:
        yield f"without a person: {counted(done.without_embedding, 'track')}; no face was good enough to embed"
    if done.renamed:
        yield f"moved to another person: {counted(done.renamed, 'track')}; see `previous` in the table persons"
    for kind, moves in (("merged", done.merged), ("parted", done.parted)):
        for old, new, tracks in moves[:5]:
            yield f"{kind}: {_shown(old)}, {counted(tracks, 'track')} moved to {_shown(new)}"
    if done.edits:
        yield f"edits: {counted(done.edits, 'edit')} stored; --undo removes the last"
    for line in (*done.refused, *done.gallery):
        yield _shown(line, 400)
    if done.named:
        names = ", ".join(f"{_shown(name)} ({_shown(one)})" for one, name in done.names.items())
        yield f"named: {counted(done.named, 'person')}: {names}{', ...' if done.named > len(done.names) else ''}"
    if done.doubtful:
        yield f"doubtful: {counted(done.doubtful, 'track')}; another person is nearly as close (margin below 0.01)"
    if not done.tracks:
        return
    most = ", ".join(f"{_shown(name)} ({count:,})" for name, count in done.largest[:5])
    yield f"most tracks: {most}"
    yield f"similarity of tracks to their person's centre (threshold {done.threshold:g}):"
    widest = max(done.histogram.values())
    for step, count in done.histogram.items():
        yield f"  {step} {'#' * max(1, round(40 * count / widest))} {count:,}"


def _shown(text: str, most: int = 60) -> str:
    """Return text from outside, shortened and made printable on one line."""
    return printable(" ".join(text.split())[:most])
