"""What a run prints at its end."""

from __future__ import annotations

from rich.console import Console

from featray.runner import Summary
from featray.sources.storage import redact_uri

NOT_TRAINED = (
    "The network's weights are synthetic (random): boxes, times and counts are real, "
    "but every facial number (AU, emotion, gaze, pose, mesh) carries no meaning."
)


EXIT_SOME_FAILED = 3


def exit_status(summary: Summary) -> int:
    """0 if every video of the run was processed whole, else 3."""
    return EXIT_SOME_FAILED if summary.status == "done_with_failures" else 0


def print_summary(summary: Summary, console: Console) -> None:
    """Print what was done, where it is, and what to know about it."""
    config = summary.job.config
    out = redact_uri(config.output.uri)
    console.print()
    if summary.status == "nothing_to_do":
        done = sum(n for status, n in summary.already_published.items() if status != "erased")
        console.print(f"Nothing to do: all {done} videos are published in {out}, release {summary.job.release}.")
    else:
        videos = summary.videos
        console.print(
            f"[bold]{sum(videos.values())} videos[/bold]: {videos['ok']} ok, {videos['partial']} partial, "
            f"{videos['failed']} failed   [bold]{summary.frames:,} frames   {summary.faces:,} faces[/bold]   "
            f"in {summary.seconds:.0f} s"
        )
        console.print(f"tables   {out}   dataset {config.dataset}   release {summary.job.release}")
        if done := sum(n for status, n in summary.already_published.items() if status != "erased"):
            console.print(f"before   {done} videos were published already")
    if erased := summary.already_published.get("erased"):
        console.print(
            f"erased   {erased} videos of the input were erased and stay so; see `featray erase --allow-again`"
        )
    broken = summary.videos["partial"] + summary.videos["failed"]
    if broken:
        console.print(f'why      featray query {out} "SELECT uri, error_code, message FROM errors"')
    elif summary.already_published.get("failed") or summary.already_published.get("partial"):
        console.print("Some of them failed or are partial; --retry-failed takes them up again.")
    if not summary.job.checkpoint.weights_trained:
        console.print(f"[yellow]{NOT_TRAINED}[/yellow]")
