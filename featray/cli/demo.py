"""Command line. The demo: the main job on two bundled clips, then suggested next commands."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from importlib.resources import as_file, files
from pathlib import Path

from rich.console import Console

from featray.cli.console import open_console
from featray.cli.summary import exit_status, print_summary
from featray.config import Config, parse_config
from featray.run.progress import Progress
from featray.run.runner import run
from featray.tables.layout import open_output
from featray.tables.query import connect, run_sql

_LOOKS = (
    (
        "a picture: eight frames with their numbers from the tables",
        "preview {out} --video face.mp4 --frames 8 --out faces.jpg",
    ),
    ("the same as a clip", "preview {out} --video face.mp4 --from 12s --to 14s --out clip.mp4"),
    ("a report of everything as one HTML page", "report {out} --out report.html"),
)

_QUERIES = (
    ("the outcome of each video", "SELECT uri, status, frames_sampled, faces, tracks FROM videos"),
    (
        "the frames with the strongest smile",
        "SELECT video_id, pts_us / 1e6 AS seconds, AU12, emotion_happy FROM faces ORDER BY AU12 DESC LIMIT 5",
    ),
    (
        "action units over time, averaged by second",
        "SELECT video_id, pts_us // 1000000 AS second, avg(AU06), avg(AU12) FROM faces GROUP BY ALL ORDER BY ALL",
    ),
)


def demo_config(clips: Path, out: str) -> Config:
    """Return the config of the demo; `configs/demo.yaml` is the same with its own output."""
    return parse_config(
        {
            "dataset": "demo",
            "input": {"uris": [f"{clips}/*.mp4"]},
            "output": {"uri": out},
            # Short units, so that the progress display changes within 20 s of video.
            "decode": {"unit_frames": 96},
        },
        origin="demo",
    )


def run_demo(out: str) -> int:
    """Run the demo into `out`; return the exit status."""
    console = open_console()
    console.print(
        "featray demo: two bundled clips (20 s with a face, 4 s without), the shipped face detector, "
        "the full-size network with synthetic weights",
        style="bold",
        soft_wrap=not console.is_terminal,
    )
    with as_file(files("featray") / "demo_clips") as clips:
        summary = run(demo_config(clips, out), Progress(console))
    print_summary(summary, console)
    _print_row(out, console)
    console.print("\nLook at it", style="bold")
    for what, words in _LOOKS:
        console.print(f"# {what}", style="dim")
        console.print(f"{_command()} {words.format(out=shlex.quote(out))}")
    console.print("\nAsk it yourself", style="bold")
    for what, sql in _QUERIES:
        console.print(f"# {what}", style="dim")
        console.print(f'{_command()} query {shlex.quote(out)} "{sql}"')
    return exit_status(summary)


def _command() -> str:
    """Return how to call featray from the user's folder, since `make demo` does not put it on the PATH."""
    if shutil.which("featray"):
        return "featray"
    return "python -m featray" if sys.argv[0].endswith("__main__.py") else os.path.relpath(sys.argv[0])


def _print_row(out: str, console: Console) -> None:
    row = run_sql(connect(open_output(out)), "SELECT * FROM faces ORDER BY video_id, pts_us LIMIT 1 OFFSET 100")
    console.print("\nOne row of the faces table", style="bold")
    for name, value in row.read_all().to_pylist()[0].items():
        console.print(f"  {name:<18} {_shown(value)}")


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, list):
        return ", ".join(f"{v:.1f}" for v in value)
    return str(value)
