"""Evaluate. An evaluation, or two releases compared, as one HTML page in the style of the report."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from featray.errors import printable
from featray.evaluate.against import Against
from featray.evaluate.calibration import Calibration
from featray.evaluate.evaluation import Evaluation
from featray.evaluate.matching import FATES, Fate
from featray.evaluate.splits import HEADLINES
from featray.evaluate.statistics import UNITS, Value, measure_name
from featray.names import EMOTION_NAMES_7
from featray.report.plots import BLUE, MUTED, RULE, Plot, figure
from featray.schema import AU_MEANINGS
from featray.store.location import locate_beside
from featray.store.storage import write_bytes
from featray.tables.layout import Output
from featray.version import __version__

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS: Final = 5


def write_page(output: Output, path: str, found: Evaluation | Against) -> int:
    """Write one self-contained HTML file, and return its size in bytes.

    Args:
        output: the output; relative paths are resolved as for `featray report`.
        path: the file to write.
        found: the evaluation or comparison.

    Raises:
        StorageError: the file cannot be written.
    """
    values = _evaluation(found) if isinstance(found, Evaluation) else {"against": found}
    page = printable(_render({"against": None, "found": None, **values})).encode()
    write_bytes(locate_beside(path, output.root), page)
    return len(page)


def _evaluation(found: Evaluation) -> dict[str, Any]:
    missed = {(one.what, one.measure): one for one in found.with_missed}
    card = {(one.what, one.measure): one for one in found.card}
    rows = [
        (one, missed.get((one.what, one.measure)), card.get((one.what, one.measure)))
        for one in found.found or found.with_missed
    ]
    is_detail = [not (one.what in HEADLINES or one.measure == "mae") for one, _, _ in rows]
    return {
        "found": found,
        "headlines": [row for row, detail in zip(rows, is_detail, strict=True) if not detail],
        "details": [row for row, detail in zip(rows, is_detail, strict=True) if detail],
        "missed": {key: one for key, one in missed.items() if key[0] in HEADLINES},
        "fates": [(FATES[Fate(fate)], count) for fate, count in found.fates.items()],
        "plot": _plot_calibration(found.calibration) if found.calibration else None,
    }


def _render(values: dict[str, Any]) -> str:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters.update(_FILTERS)
    report, here = files("featray.report"), files("featray.evaluate")
    template = environment.from_string((here / "evaluation.html.j2").read_text("utf-8"))
    return template.render(
        version=__version__,
        made_at=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        css=(report / "report.css").read_text("utf-8"),
        js=(report / "report.js").read_text("utf-8"),
        meanings={**AU_MEANINGS, UNITS: "mean over the labelled units"},
        emotions=EMOTION_NAMES_7,
        **values,
    )


def _plot_calibration(found: list[Calibration]) -> Plot:
    """Return small reliability curves: share of true over predicted probability; point size grows with the rows."""
    rows = -(-len(found) // _COLUMNS)
    with figure(9.6, 2.0 * rows + 0.2) as drawn:
        axes = drawn.figure.subplots(rows, _COLUMNS, squeeze=False)
        for axis, one in zip(axes.flat, found, strict=False):
            _curve(axis, one)
        for axis in axes.flat[len(found) :]:
            axis.axis("off")
    said = "; ".join(f"{one.what}: calibration error {one.error:.2f}" for one in found)
    return Plot(drawn.svg, f"Reliability curves. {said}")


def _curve(axis: Axes, one: Calibration) -> None:
    most = max(one.rows)
    axis.plot([0, 1], [0, 1], color=RULE, linewidth=1)
    axis.plot(one.said, one.true, color=BLUE, linewidth=1.2)
    axis.scatter(one.said, one.true, [4 + 36 * rows / most for rows in one.rows], color=BLUE, zorder=2)
    axis.set_xlim(-0.03, 1.03)
    axis.set_ylim(-0.03, 1.03)
    axis.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axis.set_yticks([0, 0.5, 1], ["0", "", "1"])
    axis.tick_params(length=2)
    axis.set_title(one.what, fontweight="bold", pad=4)
    axis.set_title(f"{one.error:.2f}", loc="right", color=MUTED, fontsize=8, pad=4)


def _with_bounds(one: Value | None) -> str:
    if one is None or one.value is None:
        return "–"
    bounds = "" if one.low is None or one.high is None else f" [{one.low:.3f}, {one.high:.3f}]"
    return f"{one.value:.3f}{bounds}"


_FILTERS: Final = {
    "bounds": _with_bounds,
    "named": lambda one: measure_name(one.what, one.measure),
    "signed": lambda value: "–" if value is None else f"{value:+.3f}",
    "digits": lambda value: "–" if value is None else f"{value:.3f}",
    "number": lambda value: f"{value:,}",
}
