"""Command line. The summary that a run prints at its end."""

from __future__ import annotations

import json
import shlex
from typing import Final

import click
from rich.console import Console
from rich.text import Text

from featray.errors import counted, printable
from featray.redaction import redact_uri
from featray.run.part import Landed
from featray.run.runner import Summary
from featray.tables.layout import open_output
from featray.tables.published import shown_release

NOT_TRAINED = (
    "The network's weights are synthetic (random): the detector's boxes and five landmarks, times and counts are real, "
    "but every facial number (AU, emotion, gaze, pose, mesh) carries no meaning. "
    "`featray models list` shows the published weights and their licence; model.checkpoint chooses them."
)


EXIT_SOME_FAILED = 3


LOG_LINE: Final = {
    "run_id": "the run, as in the table `runs`",
    "dataset": "`dataset` of the config",
    "release": "the release that the run wrote to",
    "status": "`done`, `done_with_failures` or `nothing_to_do`",
    "videos": "videos published by this run, by status: `ok`, `partial`, `failed`; with `--part`, how many landed",
    "already_published": "input videos that needed no work, by status, or `erased`; with `--part`, their number",
    "deleted": "published videos whose source no longer exists",
    "dropped": "those of them whose rows were removed (`--drop-deleted`)",
    "renewed": "published videos whose other columns of the manifest had changed; `videos.extra` has the new ones",
    "derived_again": "shards derived again: their neutral videos or persons had changed, or rows were erased",
    "passed_over": "other files in the input, by suffix",
    "several_streams": "published videos with several video streams, of which one was processed",
    "frames": "sampled frames of this run",
    "faces": "faces of this run",
    "seconds": "duration of the run",
    "part": "with `--part`: the part, as `I/N`",
    "failed": "with `--part`: landed videos with a unit without a frame",
    "missing": "with `--part`: videos without a complete result; the run that publishes retries them",
}
"""Fields of the line of `run --log-line`, with their meanings."""


def exit_status(summary: Summary) -> int:
    """Return 0 if every video of the run was fully processed, else 3."""
    return EXIT_SOME_FAILED if summary.status == "done_with_failures" else 0


def as_log_line(summary: Summary) -> str:
    """Return the summary as one line of JSON; its keys are stable."""
    return json.dumps(
        {
            "run_id": summary.job.run_id,
            "dataset": summary.job.config.dataset,
            "release": summary.job.release,
            "status": summary.status,
            "videos": summary.videos,
            "already_published": {"ok": 0, "partial": 0, "failed": 0} | summary.already_published,
            "deleted": summary.deleted.count,
            "dropped": summary.deleted.count if summary.job.config.run.drop_deleted else 0,
            "renewed": summary.renewed,
            "derived_again": summary.derived_again,
            "passed_over": dict(summary.passed.files),
            "several_streams": summary.several_streams,
            "frames": summary.frames,
            "faces": summary.faces,
            "seconds": round(summary.seconds, 1),
        }
    )


def print_landed(landed: Landed, console: Console, *, log_line: bool) -> int:
    """Print what a part has landed, as text or as one line of JSON; return the exit status."""
    facts = {
        "run_id": landed.job.run_id,
        "dataset": landed.job.config.dataset,
        "release": landed.job.release,
        "part": str(landed.part),
        "videos": landed.videos,
        "failed": landed.failed,
        "missing": landed.missing,
        "already_published": landed.already_published,
        "frames": landed.frames,
        "faces": landed.faces,
        "seconds": round(landed.seconds, 1),
    }
    if log_line:
        click.echo(json.dumps(facts))
    else:
        console.print(
            f"Part {landed.part}: {counted(landed.videos, 'video')} landed, {landed.failed} of them failed, "
            f"{landed.missing} without a complete result; {counted(landed.frames, 'frame')}, "
            f"{counted(landed.faces, 'face')} in {landed.seconds:.0f} s. Run the same without --part to publish, "
            f"release {landed.job.release}."
        )
    return EXIT_SOME_FAILED if landed.failed or landed.missing else 0


def print_summary(summary: Summary, console: Console) -> None:
    """Print what was done, where the tables are, and any notes."""
    config = summary.job.config
    out = redact_uri(config.output.uri)
    options = " --config CONFIG" if config.output.storage_options else ""  # which commands about OUT do not know else
    console.print()
    if summary.status == "nothing_to_do":
        done = sum(n for status, n in summary.already_published.items() if status != "erased")
        all_done = f"all {counted(done, 'video')} are published in" if done > 1 else "the video is published in"
        if not done:
            all_done = "what the input names was erased from"
        console.print(f"Nothing to do: {all_done} {out}, release {summary.job.release}.")
        _print_shown(summary, console)
    else:
        videos = summary.videos
        console.print(
            Text.assemble(
                (counted(sum(videos.values()), "video"), "bold"),
                f": {videos['ok']} ok, {videos['partial']} partial, {videos['failed']} failed   ",
                (f"{counted(summary.frames, 'frame')}   {counted(summary.faces, 'face')}", "bold"),
                f"   in {summary.seconds:.0f} s",
            )
        )
        console.print(f"tables   {out}   dataset {config.dataset}   release {summary.job.release}")
        if done := sum(n for status, n in summary.already_published.items() if status != "erased"):
            console.print(f"before   {counted(done, 'video')} already published")
    if (erased := summary.already_published.get("erased")) and summary.erased:
        video_id, uri = summary.erased
        console.print(
            f"erased   {counted(erased, 'video')} of the input, left out, such as {printable(uri)}; "
            f"`featray erase {shlex.quote(out)} --video {video_id} --allow-again{options}` lifts that for this one"
        )
    if summary.renewed:
        console.print(f"renewed  the columns of {counted(summary.renewed, 'published video')}, from the manifest")
    if summary.derived_again:
        console.print(
            f"derived  {counted(summary.derived_again, 'shard')} again: neutral videos or persons have changed, or "
            "rows were erased"
        )
    if summary.several_streams:
        console.print(
            f"streams  {counted(summary.several_streams, 'video')} with several video streams, of which one was "
            "processed: videos.other_streams"
        )
    if said := summary.passed.in_words():
        console.print(f"others   {said}", highlight=False, markup=False)
    for folder in summary.passed.folders[:10]:
        console.print(f"denied   {folder} was skipped", highlight=False, markup=False)
    if summary.deleted.count:
        _print_deleted(summary, console)
    if summary.deleted.moved and not config.run.drop_deleted:
        example = printable(summary.deleted.example)
        console.print(
            f"moved    {counted(summary.deleted.moved, 'published video')}, such as {example}: not in the input, "
            "but a new one has the same bytes. The tables have both, since a video is known by its URI; "
            f"`featray erase {shlex.quote(out)} --video URI{options}` removes the old rows"
        )
    if summary.deleted.elsewhere and config.run.drop_deleted:
        console.print(
            f"kept     {counted(summary.deleted.elsewhere, 'published video')} outside of the input's folders and "
            f"globs; `featray erase {shlex.quote(out)} --video NAME{options}` removes the rows of one"
        )
    broken = summary.videos["partial"] + summary.videos["failed"]
    if broken:
        console.print(
            f'why      featray query {shlex.quote(out)} "SELECT uri, error_code, message FROM errors"{options}'
        )
    elif summary.already_published.get("failed") or summary.already_published.get("partial"):
        console.print("Some of them failed or are partial; --retry-failed retries them.")
    if not summary.job.checkpoint.weights_trained:
        console.print(NOT_TRAINED, style="yellow", soft_wrap=not console.is_terminal)
    if unusable := summary.job.unusable:
        console.print(
            f"These weights do not estimate {', '.join(unusable)}: ignore the values in the tables.",
            style="yellow",
            soft_wrap=not console.is_terminal,
        )


def _print_shown(summary: Summary, console: Console) -> None:
    """Print which release views show if it is not that of this run."""
    config, release = summary.job.config, summary.job.release
    shown = shown_release(open_output(config.output.uri, config.output.storage_options), config.dataset)
    if shown not in (None, release):
        console.print(f"Views show release {shown}; use --release {release} for this one.")


def _print_deleted(summary: Summary, console: Console) -> None:
    """Print which published videos are no longer in the input, and what happened to their rows."""
    deleted = summary.deleted
    dropped = summary.job.config.run.drop_deleted
    fate = "the rows were dropped" if dropped else "the rows stay; --drop-deleted removes them"
    console.print(f"deleted  {counted(deleted.count, 'published video')} no longer in the input; {fate}")
    for uri in deleted.examples:
        console.print(f"         {printable(uri)}")
    if deleted.count > len(deleted.examples):
        console.print(f"         and {deleted.count - len(deleted.examples):,} more")
