"""Command line. `featray evaluate`: compare an output with human labels, or two releases with each other.

Imported by the command line at every start, so only click is imported here at the top.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featray.cli.storage_flags import read_storage_flags, storage_flags
from featray.errors import UsageError, counted, in_bytes, on_one_line

if TYPE_CHECKING:
    from featray.evaluate.against import Against
    from featray.evaluate.evaluation import Evaluation
    from featray.evaluate.statistics import Value
    from featray.report.scope import Scope


@click.command(short_help="Compare the numbers of OUT with human labels.")
@click.argument("out")
@click.option(
    "--labels", required=True, metavar="FILE", help="CSV or Parquet, one row per labelled face; may be a URI."
)
@click.option("--release", help="A release; default: the latest.")
@click.option("--dataset", help="A dataset, if there are several.")
@click.option("--against", metavar="OTHER", help="A release of OUT, or another output, to compare with.")
@click.option(
    "--subject", metavar="COLUMN", help="Column that groups rows by person; default: subject, else videos or pictures."
)
@click.option("--split", "splits", multiple=True, metavar="COLUMN", help="Also measure each value of a label column.")
@click.option("--au-threshold", type=click.FloatRange(0, 5), help="Intensity from which a unit counts as present.")
@click.option(
    "--threshold", "thresholds", multiple=True, metavar="[AU12=]P",
    help="Probability from which a unit counts as predicted; default 0.5. May be repeated.",
)  # fmt: skip
@click.option("--tune-on", metavar="COLUMN=VALUE", help="Choose thresholds on these rows, and measure the rest.")
@click.option("--emotions", metavar="0=neutral,...", help="Names for emotions that are numbers in the labels.")
@click.option(
    "--tolerance", type=click.FloatRange(0), metavar="SECONDS", help="Maximum time between a label and its frame."
)
@click.option("--min-iou", type=click.FloatRange(0, 1), help="Minimum IoU of a labelled box and its face; default 0.3.")
@click.option("--card", metavar="DATA", help="Also show the model card's figures: disfa+, raf-db, affectnet, ...")
@click.option(
    "--resamples", type=click.IntRange(0, 100_000), help="Bootstrap resamples; default 2000, 0 for no intervals."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--out", "path", metavar="FILE.html", help="Also write an HTML page.")
@storage_flags
def evaluate(
    out: str,
    labels: str,
    against: str | None,
    release: str | None,
    dataset: str | None,
    as_json: bool,
    path: str | None,
    config: Path | None,
    options: tuple[str, ...],
    **given: Any,
) -> None:
    """Measure how well the numbers of the output OUT agree with human labels.

    \b
    featray evaluate OUT --labels coded.csv
    featray evaluate OUT --labels disfa_plus.csv --au-threshold 2 --card disfa+ --out evaluation.html
    featray evaluate OUT --labels coded.csv --tune-on split=val --split light --split skin
    featray evaluate OUT --labels coded.csv --against v25-1a2b3c4d

    \b
    LABELS has one row per labelled face, and columns named
      video                  its video_id, its URI, or the last parts of the URI
      pts_us | time_s | frame_index   the stream's own time, or the position from 0
      picture                or the name of a picture, for image sequences
      AU01 ... AU43          0 and 1, or intensities from 0 to 5
      emotion, valence, arousal       a name or a number; -1 to 1
      gaze_yaw, gaze_pitch   radians, or gaze_yaw_deg ...; or gaze_x, _y, _z
      pose_pitch, _yaw, _roll         radians, or degrees
      box_x1, _y1, _x2, _y2  or point_x, point_y: selects one of several faces
      subject, split, ...    anything else, for --subject, --split and --tune-on

    Every measure is given twice: over labels that matched a face, as in the literature, and also counting labels whose
    face was not found as wrong. Intervals are 95 %, from a bootstrap over subjects. Labels without a frame are counted
    and reported. Needs pip install 'featray[evaluate]'.
    """
    from featray.evaluate.against import compare
    from featray.evaluate.evaluation import evaluate as measure
    from featray.evaluate.labels import LabelSettings, read_labels
    from featray.evaluate.values import parse_emotions
    from featray.report.scope import with_scope
    from featray.tables.layout import open_output

    if path is not None and not path.lower().endswith((".html", ".htm")):
        raise UsageError(f"--out {path}: the page's name must end in .html")
    source_options, output_options = read_storage_flags(config, options)
    output = open_output(out, output_options)
    settings = LabelSettings(given.pop("au_threshold"), parse_emotions(given.pop("emotions")))
    read = read_labels(labels, settings, source_options.options)
    measured = _settings(**given)
    if against is None:
        found = with_scope(output, release, dataset, lambda scope: measure(scope, read, measured))
        text = found.to_json()
    else:
        change = with_scope(
            output,
            release,
            dataset,
            lambda scope: compare(scope, _other(output, against, scope, output_options), read, measured),
        )
        text = change.to_json()
    if path is not None:
        from featray.evaluate.page import write_page

        size = write_page(output, path, found if against is None else change)
        click.echo(f"{path}: {in_bytes(size)}", err=as_json)
    if as_json:
        click.echo(json.dumps(text, indent=2))
    elif against is None:
        _print(found)
    else:
        _print_change(change)


def _settings(**given: Any) -> Any:
    from featray.evaluate.evaluation import EvaluationSettings
    from featray.evaluate.thresholds import parse_thresholds

    tolerance, least_iou, resamples = (given.pop(name) for name in ("tolerance", "min_iou", "resamples"))
    optional = {
        "least_iou": least_iou,
        "resamples": resamples,
        "tolerance_us": None if tolerance is None else round(tolerance * 1e6),
    }
    thresholds = parse_thresholds(given.pop("thresholds"))
    return EvaluationSettings(
        thresholds=thresholds, **given, **{name: value for name, value in optional.items() if value is not None}
    )


def _other(output: Any, name: str, scope: Scope, options: dict[str, Any]) -> Scope:
    """Return the release of this output with that name, or the latest release of another output."""
    from featray.report.scope import open_scope
    from featray.tables.layout import list_partitions, open_output

    releases = sorted({one.release for one in list_partitions(output) if one.dataset == scope.dataset})
    if name in releases:
        return open_scope(output, name, scope.dataset)
    if "/" in name or Path(name).is_dir():
        other = open_output(name, options)
        datasets = {one.dataset for one in list_partitions(other)}
        return open_scope(other, None, scope.dataset if scope.dataset in datasets else None)
    raise UsageError(
        f"--against {name}: neither a release of {scope.dataset} nor an output; choose one of {', '.join(releases)}"
    )


def _print(found: Evaluation) -> None:
    click.echo(
        on_one_line(
            f"labels   {found.labels}: {counted(found.rows, 'row')}, {found.fates.get('found', 0):,} matched to a face"
        )
    )
    click.echo(on_one_line(f"release  {found.dataset}, {found.release}"))
    if found.unmatched:
        click.echo(on_one_line(f"others   {found.unmatched}"))
    if found.several_faces:
        click.echo(f"faces    {counted(found.several_faces, 'label')} matched to the best-scoring of several faces")
    if found.tuned_on:
        chosen = ", ".join(f"{unit} from {found.thresholds[unit]:.3g}" for unit in found.chosen)
        click.echo(f"tuned    {chosen or 'no unit'}, on {counted(found.tuned_on, 'row')} that the measures leave out")
    if found.other_emotions:
        click.echo(
            f"emotions not measured: {counted(found.other_emotions, 'label')} with an emotion other than the seven"
        )
    if any(one.low is not None for one in (*found.found, *found.with_missed)):
        click.echo(f"interval {100 * found.level:.0f} %, over {found.subject_kind}")
    _print_values(found)
    for warning in found.warnings:
        click.echo(on_one_line(f"note     {warning}"))
    if not found.weights_trained:
        click.echo("The weights are synthetic: facial numbers carry no meaning, and neither does this comparison.")


def _print_values(found: Evaluation) -> None:
    from featray.evaluate.statistics import measure_name

    missed = {(one.what, one.measure): one for one in found.with_missed}
    card = {(one.what, one.measure): one.value for one in found.card}
    head = f"\n{'':<26}{'faces found':>24}{'missed as wrong':>24}"
    click.echo(head + (f"{'card':>9}" if card else "") + f"{'labels':>14}  {found.subject_kind}")
    for one in found.found or found.with_missed:
        key = one.what, one.measure
        line = f"{measure_name(*key):<26}{_value(one if found.found else None):>24}{_value(missed.get(key)):>24}"
        if card:
            line += f"{card[key]:>9.3f}" if key in card else " " * 9
        of = max(one.rows, missed[key].rows) if key in missed else one.rows
        rows = f"{one.rows:,}" if of == one.rows else f"{one.rows:,} of {of:,}"
        click.echo(f"{line}{rows:>14}  {one.subjects:>{len(found.subject_kind)},}")
    click.echo("")
    for split in found.splits:
        click.echo(on_one_line(f"by {split.name}"))
        for group in split.groups:
            heads = ", ".join(
                f"{measure_name(v.what, v.measure)} {_value(v)}" for v in group.values if v.measure in _SHORT
            )
            lost = f", {group.missed:,} not found" if group.missed else ""
            click.echo(on_one_line(f"  {group.name:<22}{counted(group.rows, 'face'):>14}{lost}   {heads}"))


_SHORT = ("macro_f1", "accuracy", "ccc", "angular_error", "mae")


def _print_change(found: Against) -> None:
    from featray.evaluate.statistics import measure_name

    click.echo(on_one_line(f"A        {found.dataset_a}, {found.release_a}"))
    click.echo(on_one_line(f"B        {found.dataset_b}, {found.release_b}"))
    click.echo(
        on_one_line(
            f"labels   {found.labels}: {counted(found.rows, 'row')}, {found.sampled_both:,} in frames that both "
            f"sampled; a face in both {found.found_both:,}, only in A {found.found_a:,}, only in B {found.found_b:,}"
        )
    )
    if any(one.low is not None for one in (*found.found, *found.with_missed)):
        click.echo(f"interval 95 %, of B - A, paired over {found.subject_kind}")
    for title, changes in (("faces found in both", found.found), ("missed as wrong", found.with_missed)):
        click.echo(f"\n{title:<26}{'A':>9}{'B':>9}{'B - A':>27}{'labels':>10}  {found.subject_kind}")
        for one in changes:
            bounds = "" if one.low is None or one.high is None else f" [{one.low:+.3f}, {one.high:+.3f}]"
            moved = "" if one.difference is None else f"{one.difference:+.3f}{bounds}"
            sides = "".join(f"{'' if side is None else format(side, '.3f'):>9}" for side in (one.a, one.b))
            name = measure_name(one.what, one.measure)
            click.echo(f"{name:<26}{sides}{moved:>27}{one.rows:>10,}  {one.subjects:>{len(found.subject_kind)},}")
    for warning in found.warnings:
        click.echo(on_one_line(f"note     {warning}"))
    if not found.weights_trained:
        from featray.tables.provenance import SYNTHETIC_WEIGHTS

        click.echo(SYNTHETIC_WEIGHTS, err=True)


def _value(one: Value | None) -> str:
    if one is None or one.value is None:
        return "-"
    bounds = "" if one.low is None or one.high is None else f" [{one.low:.3f}, {one.high:.3f}]"
    return f"{one.value:.3f}{bounds}"
