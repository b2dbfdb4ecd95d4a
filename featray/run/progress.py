"""Run. Show the progress of a run: a live line in a terminal, elsewhere a plain line every few seconds."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from featray.errors import counted
from featray.graph.workers import Workers
from featray.run.tally import Tally
from featray.run.wording import NO_MEANING, duration, new_release
from featray.tables.holder import Standing

_PLAIN_EVERY_SECONDS: Final = 10.0
"""Interval between lines in logs: frequent enough to show activity, rare enough to read."""

_BAR_WIDTH: Final = 24
_CLOCK_WIDTH: Final = 8
_WIDE: Final = 120
"""Minimum terminal width to show the bar next to the text."""

_WAITING: Final = "waiting for the first faces"
_WHY: Final = " (the first use of a network on this machine takes a while to prepare it)"


class Progress:
    """Print a run's speed, counts and time left to `console`; silent if `quiet`."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console = console
        self._quiet = quiet
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._tally = Tally()
        self._start = self._entered = time.monotonic()
        self._ended = threading.Event()
        self._speaker: threading.Thread | None = None

    def __enter__(self) -> Progress:
        if self._quiet:
            return self
        self._entered = time.monotonic()
        if self._console.is_terminal:
            columns = [TextColumn("{task.description}"), TimeElapsedColumn()]
            if self._console.width >= _WIDE:
                columns.insert(1, BarColumn(_BAR_WIDTH))
            self._bar = Bar(*columns, console=self._console, transient=True, refresh_per_second=4)
            self._bar.start()
            self._task = self._bar.add_task(_WAITING, total=None)  # an indeterminate bar
        else:
            self._speaker = threading.Thread(target=self._speak, name="featray-progress", daemon=True)
            self._speaker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._speaker is not None:
            self._speaker.join()
        if self._bar is not None:
            self._bar.stop()

    def _speak(self) -> None:
        """Print a line at intervals, even before anything is counted: the first unit may take minutes."""
        why = _WHY
        while not self._ended.wait(_PLAIN_EVERY_SECONDS):
            standing = self.standing()
            begun = standing.frames or standing.videos_done
            waited = f"{_WAITING}, {_waited(time.monotonic() - self._entered)} so far{why}"
            text, why = in_words(standing) if begun else waited, ""
            try:
                self._console.print(text, soft_wrap=True)
            except OSError:  # the reader has closed the pipe; the run reports that at its next print
                return

    def announce(self, executor: str, why: str, *, weights_trained: bool, others: list[str]) -> None:
        """Print the chosen executor and the reason, after warnings about what would cost hours of computation.

        Args:
            executor: its name.
            why: why it was chosen.
            weights_trained: whether facial numbers carry a meaning.
            others: the dataset's other releases, if this one is new.
        """
        if self._quiet:
            return
        if not weights_trained:
            self._console.print(f"weights: {NO_MEANING}", style="yellow")
        if others:
            self._console.print(new_release(others), style="yellow", highlight=False)
        self._console.print(f"executor: {executor}, {why}; starting", style="dim", highlight=False)

    def start(self, tally: Tally, workers: Workers, gpu: bool) -> None:
        """Start timing, once the executor is ready; `tally` holds the counts."""
        self._tally = tally
        self._start = time.monotonic()
        if not self._quiet:
            device = f"{workers.infer_gpus:g} GPU" if gpu else "CPU"
            self._console.print(
                f"workers: {workers.decode} decode + detect (CPU), {workers.infer} infer ({device})", style="dim"
            )

    def update(self) -> None:
        """Update the bar after the counts have changed."""
        if self._bar is not None and self._task is not None:
            share = self.standing().share
            total = None if share is None else 1.0
            room = self._console.width - _CLOCK_WIDTH - 1 - (_BAR_WIDTH + 1 if self._console.width >= _WIDE else 0)
            self._bar.update(self._task, description=self._short(room), total=total, completed=share or 0.0)

    def standing(self) -> Standing:
        """Return the state of the run."""
        tally = self._tally
        # Known only after the listing ends: it stays a little ahead of decoding.
        share = tally.bytes_done / tally.bytes_expected if tally.listed_all and tally.bytes_expected else None
        return Standing(
            seconds=time.monotonic() - self._start,
            videos_done=tally.videos_done,
            videos_expected=tally.videos_expected,
            listed_all=tally.listed_all,
            frames=tally.frames,
            faces=tally.faces,
            share=share,
        )

    def line(self) -> str:
        """Return the state in one line."""
        return in_words(self.standing())

    def _short(self, width: int) -> str:
        """Return the state in `width` characters if possible, leaving out less important counts."""
        parts = phrases(self.standing())
        dispensable = [parts[i] for i in _LEAST_IMPORTANT_FIRST]
        while dispensable and len("  ".join(parts)) > width:
            parts.remove(dispensable.pop(0))
        return "  ".join(parts)


def _waited(seconds: float) -> str:
    """Return how long a run has waited, to the second below ten minutes: repeated lines then differ."""
    return f"{seconds:.0f} s" if seconds < 600 else duration(seconds)


def in_words(standing: Standing) -> str:
    """Return the state of a run in one line."""
    return "  ".join(phrases(standing))


_LEAST_IMPORTANT_FIRST: Final = (4, 2, 1, 3)
"""Positions in `phrases` that a narrow terminal omits: faces/s, faces, frames, frames/s."""


def phrases(standing: Standing) -> list[str]:
    """Return the state of a run as phrases: what is done, how fast, and what is left."""
    left = standing.seconds_left
    if left is None:
        remains = "time left: unknown"
    else:
        remains = f"about {duration(left)} left" if left >= 1 else "all has landed, publishing"
    return [
        f"{standing.videos_done:,}/{standing.videos_expected:,}{'' if standing.listed_all else '+'} videos",
        counted(standing.frames, "frame"),
        counted(standing.faces, "face"),
        f"{standing.frames_per_s:.1f} frames/s",
        f"{standing.faces / max(standing.seconds, 1e-3):.1f} faces/s",
        remains,
    ]
