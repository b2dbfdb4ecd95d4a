"""Report. Plots as inline SVG, drawn by matplotlib: text stays text, they print sharply, and need no script."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from featray.report.distributions import Distribution
from featray.report.numbers import MOST_FACES_SHOWN, Coverage

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK: Final = "#1f2733"
MUTED: Final = "#647084"
RULE: Final = "#d5dae2"
BLUE: Final = "#2563a8"
PALE: Final = "#b9c6d8"
RED: Final = "#b42318"

_STYLE: Final[Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "featray",
    "font.family": "sans-serif",
    # The layout uses a wide font; the page then shows its own.
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.titley": 1.0,  # the default place; set here since searching for it takes a fifth of the time
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}

_number = count()


@dataclass(frozen=True)
class Plot:
    """A picture with a description in words, for screen readers."""

    svg: str
    words: str


def plot_distributions(found: list[Distribution], columns: int) -> Plot:
    """Return small histograms of one group, each scaled to its own height, with the median marked."""
    rows = -(-len(found) // columns)
    with figure(9.6, (1.62 if found[0].feature.group != "emotions" else 1.45) * rows + 0.15) as drawn:
        axes = drawn.figure.subplots(rows, columns, squeeze=False)
        for axis, one in zip(axes.flat, found, strict=False):
            _histogram(axis, one)
        for axis in axes.flat[len(found) :]:
            axis.axis("off")
    said = "; ".join(f"{one.feature.column}: median {one.q50:.2f}" for one in found if one.q50 is not None)
    return Plot(drawn.svg, f"Histograms of {found[0].feature.group}. {said}")


def _histogram(axis: Axes, one: Distribution) -> None:
    edges = one.feature.edges
    axis.stairs(one.counts, edges, fill=True, color=BLUE, alpha=0.85)
    name = one.feature.column.removeprefix("emotion_")
    axis.set_title(name, fontweight="bold", pad=4)
    if one.feature.title not in (name, ""):
        axis.set_xlabel(one.feature.title, fontsize=8, labelpad=2)
    axis.set_yticks([])
    axis.set_xlim(edges[0], edges[-1])
    axis.set_ylim(0, max(max(one.counts), 1) * 1.08)
    if one.feature.logarithmic:
        axis.set_xscale("log")
        axis.minorticks_off()
        marks: list[float] = [32, 128, 512] if one.feature.column == "face_px" else [1, 100, 10_000]
        axis.set_xticks(marks, [f"{mark:,}" for mark in marks])
    else:
        low, high = edges[0], edges[-1]
        marks = [low, (low + high) / 2, high] if abs(low) != high or low == 0 else [low, 0, high]
        axis.set_xticks(marks, [f"{mark:.2g}" for mark in marks])
    axis.tick_params(length=2)
    if one.q50 is not None:
        axis.axvline(min(max(one.q50, edges[0]), edges[-1]), color=INK, linewidth=1)
        words = f"{one.q50:.0f}" if one.feature.logarithmic else f"{one.q50 + 0.0:.2f}".replace("-0.00", "0.00")
        axis.set_title(f"{words} {one.feature.unit}".strip(), loc="right", color=MUTED, fontsize=8, pad=4)


def plot_faces_per_frame(found: dict[int, int]) -> Plot:
    """Return a bar chart of the share of frames by number of faces."""
    total = sum(found.values()) or 1
    most = max([*found, 1])
    with figure(4.6, 2.3) as drawn:
        axis = drawn.figure.subplots()
        shares = [100 * found.get(n, 0) / total for n in range(most + 1)]
        axis.bar(range(most + 1), shares, color=[PALE, *[BLUE] * most], width=0.72)
        for n, share in enumerate(shares):
            if share:
                axis.text(n, share, _percent(share), ha="center", va="bottom", fontsize=8, color=INK)
        labels = [f"{n}+" if n == MOST_FACES_SHOWN else str(n) for n in range(most + 1)]
        axis.set_xticks(range(most + 1), labels)
        axis.set_xlim(-0.6, max(most, 3) + 0.6)
        axis.set_ylim(0, max(shares) * 1.15 or 1)
        axis.set_yticks([])
        axis.tick_params(length=0)
        axis.set_xlabel("faces in the frame")
    said = ", ".join(f"{label}: {_percent(share)}" for label, share in zip(labels, shares, strict=True))
    return Plot(drawn.svg, f"Share of the sampled frames by number of faces. {said}")


def plot_coverage(found: Coverage) -> Plot:
    """Return the stacked shares of frames with a face, without, and damaged, over the time within the videos."""
    unit, scale = ("minutes", 60.0) if len(found.seconds) * found.width_seconds > 180 else ("seconds", 1.0)
    edges = [second / scale for second in [*found.seconds, found.seconds[-1] + found.width_seconds]]
    parts = (
        (found.with_face, BLUE, "face"),
        (found.no_face, PALE, "no face"),
        (found.decode_error, RED, "damaged"),
    )
    totals = [max(1, sum(bin_)) for bin_ in zip(*(counts for counts, _, _ in parts), strict=True)]
    frames = [sum(bin_) for bin_ in zip(*(counts for counts, _, _ in parts), strict=True)]
    with figure(9.6, 2.9) as drawn:
        upper, lower = drawn.figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        base = [0.0] * len(totals)
        for counts, colour, label in parts:
            top = [b + 100 * n / t for b, n, t in zip(base, counts, totals, strict=True)]
            upper.stairs(top, edges, baseline=base, fill=True, color=colour, label=label)
            base = top
        upper.set_ylim(0, 100)
        upper.set_yticks([0, 50, 100], ["0", "50", "100 %"])
        upper.legend(loc="upper right", bbox_to_anchor=(1, 1.24), ncols=3, frameon=False, fontsize=8, handlelength=1)
        upper.set_title("share of the sampled frames", color=MUTED, fontsize=8)
        lower.stairs(frames, edges, fill=True, color=MUTED)
        lower.set_yticks([0, max([*frames, 1])], ["0", f"{max(frames):,}"])
        lower.set_title("frames", color=MUTED, fontsize=8)
        lower.set_xlim(edges[0], edges[-1])
        lower.set_xlabel(f"{unit} into the video")
        for axis in (upper, lower):
            axis.tick_params(length=2)
    share = 100 * sum(found.with_face) / max(1, sum(frames))
    words = f"Frames with a face over the time within the videos; {_percent(share)} overall."
    return Plot(drawn.svg, words)


def _percent(share: float) -> str:
    return f"{share:.1f} %" if 0.05 <= share < 99.95 or share in (0, 100) else ("< 0.1 %" if share < 50 else "> 99.9 %")


class Drawn:
    """A figure and, once drawn, its SVG."""

    def __init__(self, figure: Any) -> None:
        self.figure = figure
        self.svg = ""


@contextmanager
def figure(width: float, height: float) -> Iterator[Drawn]:
    """Yield a figure of a size in inches; its SVG has unique ids, so that several fit into one page."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns if it cannot keep its list of fonts at home
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        drawn = Drawn(Figure(figsize=(width, height), layout="constrained"))
        yield drawn
        file = io.StringIO()
        drawn.figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = re.sub(r"<metadata>.*?</metadata>", "", file.getvalue(), flags=re.DOTALL)
    text = text[text.index("<svg") :]
    prefix = f"plot{next(_number)}-"
    text = re.sub(r'\bid="', f'id="{prefix}', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}", text)
    drawn.svg = re.sub(r"<svg ", '<svg aria-hidden="true" ', text, count=1)
