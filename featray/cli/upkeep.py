"""Command line. Commands that maintain an output: verify, erase, publish, compact."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from featray.cli.once import OnceOption
from featray.cli.storage_flags import open_told, read_storage_flags, storage_flags
from featray.errors import (
    NotFound,
    OutputError,
    StorageError,
    UsageError,
    counted,
    on_one_line,
    printable,
)

if TYPE_CHECKING:
    from featray.tables.layout import Output, Partition
    from featray.upkeep.compact import Compacted
    from featray.upkeep.erase import ErasedHere
    from featray.upkeep.finish import Finished

_Done = TypeVar("_Done")
_json_flag = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command()
@click.argument("out")
@click.option(
    "--recompute", type=click.IntRange(min=0), default=0, metavar="N", help="Recompute N random faces from the videos."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed that selects these faces.")
@click.option(
    "--rederive",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    metavar="N",
    help="Derive all tracks and events of N shards per release again.",
)
@click.option("--release", help="Only this release; default: all.")
@_json_flag
@storage_flags
def verify(
    out: str,
    recompute: int,
    seed: int,
    rederive: int,
    release: str | None,
    as_json: bool,
    config: Path | None,
    options: tuple[str, ...],
) -> None:
    """Check the integrity of the output OUT; changes nothing.

    Compares every file with its commit (size, sha256, rows, schema, provenance), every row with its ranges
    and order, and the counts of frames, faces, videos and commits with each other. With --recompute, the sources
    are read again, and every number of N random faces is recomputed and compared. Tracks and events of a few
    shards are always derived again from their faces, and compared bit for bit.
    Prints one line per problem; exit status 1 if there is any.
    """
    from featray.tables.layout import open_output
    from featray.upkeep.verify import verify as verify_output

    source_options, output_options = read_storage_flags(config, options)
    output = open_output(out, output_options)
    report = verify_output(output, release, rederive=rederive)
    repeated = None
    if recompute:
        from featray.upkeep.recompute import recompute as recompute_rows

        repeated = recompute_rows(output, recompute, seed=seed, release=release, source_options=source_options)
    ok = not report.problems and not (repeated and repeated.differing)
    if as_json:
        found = {"ok": ok, **asdict(report), "recompute": asdict(repeated) if repeated else None}
        click.echo(json.dumps(found, indent=2))
    else:
        _print_report(report)
        if repeated:
            _print_recomputed(repeated)
    sys.exit(0 if ok else 1)


_COMMITS_SHOWN = 5


def _print_report(report: Any) -> None:
    for problem in report.problems:
        click.echo(f"problem     {problem.line()}")
    for line in report.unfinished:
        click.echo(on_one_line(f"unfinished  {line}"))
    if report.damaged_commits:
        some = printable(", ".join(report.damaged_commits[:_COMMITS_SHOWN]))
        more = len(report.damaged_commits) - _COMMITS_SHOWN
        some += f" and {more:,} more (--json has all)" if more > 0 else ""
        click.echo(
            "repair      put copies of the files back; or delete what names them and run the same config again, which "
            f"processes their videos anew: {some}"
        )
    click.echo(
        f"checked     {counted(report.files, 'file')}, {report.bytes / 1e6:,.1f} MB, {counted(report.rows, 'row')}, "
        f"{counted(report.videos, 'video')} in {counted(report.partitions, 'release')}: "
        f"{counted(len(report.problems), 'problem') if report.problems else 'no problems'}"
    )


def _print_recomputed(repeated: Any) -> None:
    for line in repeated.differing:
        click.echo(on_one_line(f"problem     {line}"))
    for line in repeated.unverifiable:
        click.echo(on_one_line(f"unverified  {line}"))
    click.echo(
        f"recomputed  {repeated.checked} of {counted(repeated.asked, 'face')} from their sources: "
        f"{counted(len(repeated.differing), 'number') if repeated.differing else 'no numbers'} beyond their bound"
    )
    for name, worst in repeated.worst.items():
        click.echo(f"            {name:16} off by at most {worst.difference:.2g}, bound {worst.bound:g}")


@click.command(short_help="Erase a video, one track of it, or a person, from OUT.")
@click.argument("out")
@click.option("--video", cls=OnceOption, help="Its video_id, URI, or the end of its URI, such as face.mp4 or face.")
@click.option(
    "--track", "track_id", cls=OnceOption, type=click.IntRange(min=0), metavar="N", help="Erase only this track."
)
@click.option(
    "--person", cls=OnceOption, metavar="P", help="Erase all tracks of this person_id or name of the table persons."
)
@click.option("--release", cls=OnceOption, help="Only from this release; default: from all, in all datasets.")
@click.option("--reason", help="Kept in the audit row; must not name the person.")
@click.option("--allow-again", is_flag=True, help="Erase nothing; lift the block, so that a run may process it again.")
@_json_flag
@storage_flags
def erase(
    out: str,
    video: str | None,
    track_id: int | None,
    person: str | None,
    release: str | None,
    reason: str | None,
    allow_again: bool,
    as_json: bool,
    config: Path | None,
    options: tuple[str, ...],
) -> None:
    """Erase a video, one track of it, or all tracks of a person, from every table of OUT and from unfinished work.

    It does not ask before it deletes. Exports in OUT with rows of the video are deleted as well; pages, pictures and
    recordings there are listed, for you to delete. A row in `erasures` records it. Later runs skip the video until
    --allow-again.
    If the command is interrupted, run it again to finish. Buckets with versioning keep old versions.
    """
    from featray.tables.named import find_erased_id, find_id_to_erase
    from featray.tables.tombstones import allow_again as lift
    from featray.upkeep.erase import erase as erase_video
    from featray.upkeep.erase_exports import unsearched_files

    if (video is None) == (person is None) or (person is not None and (track_id is not None or allow_again)):
        raise UsageError("erase: give either --video, optionally with --track or --allow-again, or --person")
    output = open_told(out, config, options)
    if person is not None:
        _erase_person(output, person, release, reason, as_json)
        return
    assert video is not None
    if allow_again:
        video_id = find_erased_id(output, video)
        known = lift(output, video_id)
        if as_json:
            click.echo(json.dumps({"video_id": video_id, "was_erased": known}))
            return
        click.echo(f"{video_id}: {'the next run may process it again' if known else 'was not erased'}")
        return
    video_id = find_id_to_erase(output, video)
    erased = erase_video(output, video_id, track_id=track_id, release=release, reason=reason)
    unsearched = unsearched_files(output)
    if as_json:
        click.echo(json.dumps(_erased(video_id, track_id, erased) | {"unsearched": unsearched}, indent=2))
    else:
        _print_erased(video_id, track_id, erased)
        _print_unsearched(unsearched)


def _print_unsearched(paths: list[str]) -> None:
    if paths:
        more = f" and {len(paths) - 10:,} more" if len(paths) > 10 else ""
        click.echo(f"not searched in OUT, delete what shows it: {printable(', '.join(paths[:10]))}{more}")


def _erase_person(output: Output, person: str, release: str | None, reason: str | None, as_json: bool) -> None:
    """Erase the tracks of a person, one erasure per track; after an interruption, a rerun resumes."""
    from featray.upkeep.erase_exports import unsearched_files
    from featray.upkeep.erase_person import erase_person, releases_without

    found, without = [], releases_without(output, person, release)
    stopped: OutputError | None = None
    try:
        for video_id, track_id, erased in erase_person(output, person, release=release, reason=reason):
            found.append(_erased(video_id, track_id, erased))
            if not as_json:
                _print_erased(video_id, track_id, erased)
    except OutputError as error:  # after what was erased is told
        stopped = error
    unsearched = unsearched_files(output)
    if as_json:
        told = {"person_id": person, "tracks": found, "not_found_in": without, "unsearched": unsearched}
        click.echo(json.dumps(told, indent=2))
    else:
        for where in map(printable, without):
            click.echo(
                f"{where}: has persons, but none with this id or name; erase it there by the id that it has there"
            )
        _print_unsearched(unsearched)
    if stopped is not None:
        raise stopped


def _erased(video_id: str, track_id: int | None, erased: list[ErasedHere]) -> dict[str, Any]:
    places = [
        {
            "dataset": here.partition.dataset,
            "release": here.partition.release,
            "rows": here.rows,
            "landed": here.landed,
            "uncommitted": here.uncommitted,
            "exports": here.exports,
        }
        for here in erased
    ]
    return {"video_id": video_id, "track_id": track_id, "erased": places}


def _print_erased(video_id: str, track_id: int | None, erased: list[ErasedHere]) -> None:
    what = f"{video_id}" + ("" if track_id is None else f" track {track_id}")
    for here in erased:
        rows = ", ".join(f"{table} {count:,}" for table, count in here.rows.items() if count) or "no published rows"
        more = f"; {counted(here.landed, 'place')} of unfinished work" if here.landed else ""
        more += f"; {counted(here.uncommitted, 'file')} without a commit" if here.uncommitted else ""
        more += f"; {counted(len(here.exports), 'export')} in OUT" if here.exports else ""
        click.echo(f"erased {what} from {here.partition.dataset}/{here.partition.release}: {rows}{more}")
    if not erased:
        click.echo(f"{what}: nothing of it was left")


@click.command(short_help="Finish what a killed run left in OUT.")
@click.argument("out")
@_json_flag
@storage_flags
def publish(out: str, as_json: bool, config: Path | None, options: tuple[str, ...]) -> None:
    """Finish what a killed run left in OUT: publish all landed work, and complete interrupted changes.

    Needs neither Ray nor the sources. A release with an active run is refused; the others are finished. Work that has
    not landed is left to the next run, and so is what `--part` has landed: only a run knows the list of videos.
    """
    from featray.tables.layout import list_partitions
    from featray.upkeep.finish import finish_partition

    output = open_told(out, config, options)
    begun = list_partitions(output)
    begun += [partition for partition in list_partitions(output, having="landing") if partition not in begun]
    in_each(output, finish_partition, as_json, _finished, "nothing to finish", begun)


def _finished(done: Finished) -> tuple[dict[str, Any], Iterator[str]]:
    """Return what was finished in a release, as plain data and as text lines."""
    published: list[dict[str, Any]] = [
        {
            "shard": commit.name,
            "videos": len(commit.videos),
            "frames": sum(video.frames for video in commit.videos),
            "faces": sum(video.faces for video in commit.videos),
        }
        for commit in done.published
    ]
    waiting = [{"shard": shard, "landed": landed, "units": units} for shard, landed, units in done.waiting]
    counts = {"changes": done.changes, "cleaned": done.cleaned, "leftovers": done.leftovers, "runs": done.runs}
    counts["landed"] = done.landed

    def lines() -> Iterator[str]:
        for one in published:
            counts_of = ", ".join(counted(one[f"{noun}s"], noun) for noun in ("video", "frame", "face"))
            yield f"published shard {one['shard']}: {counts_of}"
        for shard, landed, units in done.waiting:
            of = f"{landed} of {counted(units, 'unit')}" if units is not None else f"{counted(landed, 'unit')} so far"
            yield f"shard {shard} waits, landed: {of}; the next run resumes from there"
        if done.landed:
            yield f"{counted(done.landed, 'video')} landed, not published: run with the same config, without --part"
        for name, text in (
            ("changes", ("completed", "change", "that was interrupted")),
            ("cleaned", ("cleaned up", "published shard", "")),
            ("leftovers", ("deleted", "file", "of an interrupted change")),
            ("runs", ("marked as interrupted", "killed run", "")),
        ):
            if counts[name]:
                done_to, noun, which = text
                yield f"{done_to}: {counted(counts[name], noun)} {which}".rstrip()

    return {"published": published, "waiting": waiting, **counts}, lines()


@click.command(short_help="Merge small files in OUT.")
@click.argument("out")
@_json_flag
@storage_flags
def compact(out: str, as_json: bool, config: Path | None, options: tuple[str, ...]) -> None:
    """Merge the small files of many small runs in OUT; rows do not change.

    A release with an active run is refused: it is left unchanged, the others are merged, and the exit status is 1.
    """
    from featray.upkeep.compact import compact_partition

    in_each(open_told(out, config, options), compact_partition, as_json, _compacted)


def _compacted(done: Compacted) -> tuple[dict[str, Any], Iterator[str]]:
    """Return what was merged in a release, as plain data and as text lines."""
    before = f"{counted(done.files_before, 'file')} in {counted(done.commits_before, 'commit')}"
    line = f"left unchanged: {done.refused}" if done.refused else f"{before}, now {done.files} in {done.commits}"
    return asdict(done), iter([line])


def _is_of_one(error: StorageError) -> bool:
    """Return whether an error concerns records or files of one release, not the disk or the storage."""
    cause = error.__cause__
    odd = isinstance(cause, IsADirectoryError) or (isinstance(cause, OSError) and cause.errno == errno.ELOOP)
    return isinstance(error, OutputError | NotFound) or odd


def in_each(
    output: Output,
    work: Callable[[Partition], _Done],
    as_json: bool,
    told: Callable[[_Done], tuple[dict[str, Any], Iterator[str]]],
    nothing: str = "",
    only: list[Partition] | None = None,
) -> None:
    """Print what `work` did in each dataset and release, or in those of `only`; `nothing` if it did nothing in any.

    If a release fails, its error is printed, the others are still processed, and the command exits with status 1.
    """
    from featray.tables.layout import list_partitions

    found: list[dict[str, Any]] = []
    refused, silent = False, True
    for partition in list_partitions(output) if only is None else only:
        where = {"dataset": partition.dataset, "release": partition.release}
        try:
            facts, lines = told(work(partition))
        except StorageError as error:
            if not _is_of_one(error):
                raise
            click.echo(f"featray: {error}", err=True)
            refused = True
            found.append({**where, "error": str(error)})
            continue
        found.append({**where, **facts})
        for line in () if as_json else lines:
            click.echo(f"{partition.dataset}/{partition.release}: {line}")
            silent = False
    if as_json:
        click.echo(json.dumps({"releases": found}, indent=2))
    elif silent and nothing and not refused:
        click.echo(nothing)
    if refused:
        sys.exit(OutputError.exit_code)
