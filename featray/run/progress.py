"""Run. Showing how a run goes: a live line in a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bar

from featray.graph.workers import Workers
from featray.run.tally import Tally
from featray.run.wording import duration
from featray.tables.holder import Standing

_PLAIN_EVERY_SECONDS: Final = 10.0
"""Between lines in logs: often enough to see life, seldom enough to read."""


class Progress:
    """Prints a run's speed, counts and time left to `console`; silent if `quiet`."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console = console
        self._quiet = quiet
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._tally = Tally()
        self._start = time.monotonic()
        self._printed = self._start

    def __enter__(self) -> Progress:
        if self._quiet:
            return self
        if self._console.is_terminal:
            self._bar = Bar(TextColumn("{task.description}"), BarColumn(24), console=self._console, transient=True)
            self._bar.start()
            self._task = self._bar.add_task("waiting for the first faces", total=1.0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def announce(self, executor: str, why: str, *, weights_trained: bool) -> None:
        """Say which executor a run takes, and why; and before it computes for hours, that its numbers mean nothing."""
        if self._quiet:
            return
        if not weights_trained:
            self._console.print("weights: synthetic (random); facial numbers will carry no meaning", style="yellow")
        self._console.print(f"executor: {executor}, {why}; starting", style="dim", highlight=False)

    def start(self, tally: Tally, workers: Workers, gpu: bool) -> None:
        """The cluster is there; `tally` will be counted up."""
        self._tally = tally
        self._start = self._printed = time.monotonic()
        if not self._quiet:
            device = f"{workers.infer_gpus:g} GPU" if gpu else "CPU"
            self._console.print(
                f"workers: {workers.decode} decode + detect (CPU), {workers.infer} infer ({device})", style="dim"
            )

    def update(self) -> None:
        """Something was counted."""
        if self._quiet:
            return
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=self.line(), completed=self.standing().share or 0.0)
        elif time.monotonic() - self._printed >= _PLAIN_EVERY_SECONDS:
            self._printed = time.monotonic()
            self._console.print(self.line(), soft_wrap=True)

    def standing(self) -> Standing:
        """How far the run is."""
        tally = self._tally
        # Known once all is listed: the listing keeps a little ahead of decoding, and has more to come until then.
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
        """The state in one line."""
        return in_words(self.standing())


def in_words(standing: Standing) -> str:
    """How far a run is, in one line."""
    left = standing.seconds_left
    return (
        f"{standing.videos_done}/{standing.videos_expected}{'' if standing.listed_all else '+'} videos  "
        f"{standing.frames:,} frames  {standing.faces:,} faces  "
        f"{standing.frames_per_s:.1f} frames/s  {standing.faces / max(standing.seconds, 1e-3):.1f} faces/s  "
        + ("time left: not known yet" if left is None else f"about {duration(left)} left")
    )
