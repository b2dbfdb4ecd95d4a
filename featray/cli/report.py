"""Command line. `featray report` and `featray diff`: a page about an output, and two of its releases compared.

Imported by the command line at every start, so only click is imported here at the top.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from featray.cli.storage_flags import open_told, read_storage_flags, storage_flags
from featray.errors import UsageError, counted, in_bytes, on_one_line

if TYPE_CHECKING:
    from featray.report.diff import Diff


@click.command()
@click.argument("out")
@click.option("--out", "path", required=True, metavar="FILE", help="The page, such as report.html; may be a URI.")
@click.option("--release", help="A release; default: the latest.")
@click.option("--dataset", help="A dataset, if there are several.")
@click.option("--no-thumbnails", is_flag=True, help="Do not open the source videos.")
@click.option(
    "--blur",
    is_flag=True,
    help="Hide identities: reduce heads to 8 x 8 cells, and leave out file names, path fields and paths.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@storage_flags
def report(
    out: str,
    path: str,
    release: str | None,
    dataset: str | None,
    no_thumbnails: bool,
    blur: bool,
    as_json: bool,
    config: Path | None,
    options: tuple[str, ...],
) -> None:
    """Write one HTML page about the output OUT.

    It shows what was processed, what failed, what the faces show, and the provenance. It is a single file
    that needs neither network nor server, and can be printed. Counts cover all rows; with more than 20 million
    faces or frames a sample is read, and the page says so. If the dataset has two releases, the page also
    shows how much the numbers changed.

    \b
    featray report OUT --out report.html
    featray report OUT --out to_share.html --blur
    """
    from featray.report.page import ReportSettings, write_report
    from featray.tables.layout import open_output
    from featray.tables.provenance import SYNTHETIC_WEIGHTS

    if not path.lower().endswith((".html", ".htm")):
        raise UsageError(f"--out {path}: the page's name must end in .html")
    source_options, output_options = read_storage_flags(config, options)
    settings = ReportSettings(release, dataset, not no_thumbnails, blur, source_options)
    made = write_report(open_output(out, output_options), path, settings)
    if as_json:
        click.echo(json.dumps({"path": path, **asdict(made)}, indent=2))
        return
    pictures = "" if no_thumbnails else f", {made.thumbnails} of {counted(made.moments, 'thumbnail')}"
    click.echo(f"{path}  {made.dataset}, release {made.release}: {in_bytes(made.size_bytes)}{pictures}")
    if not made.weights_trained:
        click.echo(SYNTHETIC_WEIGHTS)
    if made.unusable:
        click.echo(f"These weights do not estimate {', '.join(made.unusable)}: ignore the values in the tables.")


@click.command()
@click.argument("out")
@click.argument("release_a", metavar="A")
@click.argument("release_b", metavar="B")
@click.option("--dataset", help="A dataset, if both releases are in several.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@storage_flags
def diff(
    out: str,
    release_a: str,
    release_b: str,
    dataset: str | None,
    as_json: bool,
    config: Path | None,
    options: tuple[str, ...],
) -> None:
    """Compare releases A and B of the output OUT.

    Shows how much the numbers changed from A to B, face by face, and how many faces both have. Faces
    of the same frame of the same video are matched by their boxes (IoU at least 0.5). With more than 5 million
    faces, a random sample of videos is compared.

    \b
    featray diff OUT v25-1a2b3c4d v28-5e6f7a8b
    """
    from featray.report.diff import diff_releases

    found = diff_releases(open_told(out, config, options), release_a, release_b, dataset)
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2))
        return
    _print(found)


def _print(found: Diff) -> None:
    changed = f", {found.videos_changed} with different content left out" if found.videos_changed else ""
    click.echo(f"videos   {found.videos_a:,} and {found.videos_b:,}; {found.videos_both:,} in both{changed}")
    if found.videos_compared < found.videos_both:
        click.echo(f"sample   {found.videos_compared:,} of them, drawn at random")
    click.echo(
        f"frames   {found.frames_both:,} sampled by both, with {found.faces_a:,} and {counted(found.faces_b, 'face')}"
    )
    if not found.matched:
        click.echo("faces    none matched")
        _print_derived(found)
        return
    of_a, of_b = (100 * found.matched / max(1, n) for n in (found.faces_a, found.faces_b))
    click.echo(
        f"faces    {found.matched:,} matched: {of_a:.1f} % and {of_b:.1f} % of them; "
        f"mean IoU of their boxes {found.mean_iou:.3f}"
    )
    click.echo(
        f"\n{'column':<17}{'mean A':>9}{'mean B':>9}{'mean B-A':>10}{'mean |B-A|':>11}{'95 % |B-A|':>11}{'r':>7}"
    )
    for one in found.features:
        correlation = "" if one.correlation is None else f"{one.correlation:.3f}"
        click.echo(
            f"{one.column:<17}{one.mean_a:>9.4g}{one.mean_b:>9.4g}{one.shift:>10.3g}{one.mean_abs:>11.3g}"
            f"{one.q95_abs:>11.3g}{correlation:>7}"
        )
    shares = [one for one in found.features if one.column.startswith(("AU", "emotion"))]
    shares = [one for one in shares if f"{one.worst.a:.3f}" != f"{one.worst.b:.3f}"]
    if shares:
        click.echo("\nlargest changes of action units and emotions:")
    for one in sorted(shares, key=lambda one: -abs(one.worst.b - one.worst.a))[:5]:
        worst = one.worst
        click.echo(
            f"  {one.column:<17}{on_one_line(worst.video_id)}  frame {worst.frame_index} "
            f"at {worst.pts_us / 1e6:.3f} s: {worst.a:.3f} to {worst.b:.3f}"
        )
    _print_derived(found)


_MUCH_LESS: Final = 0.9
"""Ratio of faces per second below which two releases may differ in what their tracks are searched for."""


def _print_derived(found: Diff) -> None:
    if (who := found.who) is not None:
        agree = f"over {counted(who.tracks, 'track')} of both they agree with B-cubed F {who.b_cubed_f:.3f}"
        click.echo(f"\npersons  {who.persons_a:,} and {who.persons_b:,}; {agree}")
    if (derived := found.derived) is None:
        return
    same = f"both {derived.a}" if derived.a == derived.b else f"{derived.a} and {derived.b}: settings differ"
    seen = f"{derived.seen_s_a / 60:,.1f} and {derived.seen_s_b / 60:,.1f} minutes of faces"
    click.echo(f"\nderived  {same}; {derived.tracks_a:,} and {counted(derived.tracks_b, 'track')}, {seen}")
    click.echo(f"{'event':<17}{'in A':>9}{'in B':>9}{'A also in B':>13}{'B also in A':>13}")
    for kind in derived.kinds:
        shares = [f"{100 * met / n:.1f} %" if n else "" for met, n in ((kind.a_met, kind.a), (kind.b_met, kind.b))]
        click.echo(f"{on_one_line(kind.kind):<17}{kind.a:>9,}{kind.b:>9,}{shares[0]:>13}{shares[1]:>13}")
    rates = (derived.faces_per_s_a or 0.0, derived.faces_per_s_b or 0.0)
    if min(rates) < _MUCH_LESS * max(rates):
        click.echo(
            f"note     {rates[0]:.3g} and {rates[1]:.3g} faces/s: tracks below "
            "derive.blinks.least_faces_per_s and derive.movements.least_faces_per_s are not searched for blinks, nods "
            "and shakes, and none of them are found there"
        )
