"""Command line. `featray preview`, `view` and `export`: look at a video's rows, and export them.

Imported by the command line at every start, so only click is imported here at the top.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featray.cli.storage_flags import open_told, read_storage_flags, storage_flags
from featray.errors import UsageError, counted, printable

if TYPE_CHECKING:
    from featray.views.selection import VideoRow

safe_csv_flag = click.option(
    "--safe-csv", is_flag=True, help="Put ' before texts that a spreadsheet would interpret as a formula."
)
_VIDEO_HELP = "Its video_id, URI, or the end of its URI, such as face.mp4 or face."


def _range_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a command that shows a video: its release, time range and current location."""
    for option in reversed(_RANGE_FLAGS):
        command = option(command)
    return command


_RANGE_FLAGS = (
    click.option("--from", "start", metavar="TIME", help="Start at 12, 12s, 1:02.5 or 00:01:02 of the stream's time."),
    click.option("--to", "end", metavar="TIME", help="End at this time."),
    click.option("--release", help="A release; default: the latest."),
    click.option("--dataset", help="A dataset, if the video is in several."),
    click.option("--source", metavar="URI", help="Current location of the video, if it has moved."),
)


def _listed(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())


@click.command(short_help="Draw the numbers of OUT onto a video, or the tracks of a person.")
@click.argument("out")
@click.option("--video", help=_VIDEO_HELP)
@click.option("--person", metavar="P", help="A sheet of the tracks of this person_id or name, of all videos.")
@click.option("--out", "path", required=True, metavar="FILE", help="clip.mp4, or sheet.png or .jpg; may be a URI.")
@_range_flags
@storage_flags
@click.option("--blur", is_flag=True, help="Hide identities: reduce heads irreversibly to 8 x 8 cells.")
@click.option("--sampled-only", is_flag=True, help="Leave out frames that were not sampled.")
@click.option("--draw", metavar="LIST", help="Any of boxes, landmarks, mesh, gaze, pose; default: those with meaning.")
@click.option("--track", type=int, help="Track whose numbers are shown; default: the most prominent face.")
@click.option(
    "--plot", default="AU12,valence", show_default=True, metavar="LIST", help="Up to four columns to draw as curves."
)
@click.option("--height", type=click.IntRange(360, 2160), default=720, show_default=True, help="Height of a clip, px.")
@click.option(
    "--frames",
    type=click.IntRange(1, 200),
    default=12,
    show_default=True,
    help="Frames on a contact sheet, or tracks of a person.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def preview(
    out: str,
    video: str | None,
    person: str | None,
    path: str,
    start: str | None,
    end: str | None,
    config: Path | None,
    options: tuple[str, ...],
    sampled_only: bool,
    draw: str | None,
    track: int | None,
    plot: str,
    height: int,
    as_json: bool,
    **same: Any,
) -> None:
    """Draw the numbers of the output OUT onto a video: an .mp4 clip, or a sheet of its most different frames.

    Shows boxes, track ids, mesh, gaze and head pose on the original frames, and action units, emotions,
    valence and arousal next to them. Rows are matched to frames by presentation time; a source
    that has changed since the run is refused.

    \b
    featray preview OUT --video face.mp4 --out sheet.png
    featray preview OUT --video face.mp4 --from 12s --to 20s --out clip.mp4
    featray preview OUT --video face.mp4 --out clip.mp4 --plot AU06,AU12,emotion_happy
    featray preview OUT --video face.mp4 --out to_share.mp4 --blur
    featray preview OUT --person p-0123456789ab --out person.png

    A clip's time starts at 0 with its first frame and keeps all intervals; it has no sound. Frames
    that were not sampled are shown without drawings. Gaze and head arrows and the mesh are drawn by default
    only if the release's weights are trained.

    --blur hides the faces that the detector found, and keeps each hidden for a second if it is missed;
    frames that were not sampled are left out. A face that was never found stays visible: check
    the clip before you share it.

    --person draws the faces of a person's tracks, cut from their videos, with similarity and margin: the least certain
    tracks first, doubtful ones marked. --source is then the folder that holds the videos, by their names.
    """
    from featray.tables.layout import open_output
    from featray.views.overlay import LAYERS
    from featray.views.preview import PreviewSettings, make_preview
    from featray.views.times import parse_time_us

    if (video is None) == (person is None):
        raise UsageError("preview: name either --video or --person")
    if person is not None or video is None:
        given = {"--from": start, "--to": end, "--draw": draw, "--track": track}
        if wrong := [name for name, value in given.items() if value is not None]:
            raise UsageError(f"{wrong[0]}: goes with --video; a person's sheet shows whole tracks")
        _preview_person(out, person or "", path, config, options, as_json=as_json, **same)
        return
    layers = _listed(draw)
    unknown = [layer for layer in layers or () if layer not in LAYERS]
    if unknown:
        raise UsageError(f"--draw {unknown[0]}: cannot be drawn; choose from {', '.join(LAYERS)}")
    source_options, output_options = read_storage_flags(config, options)
    settings = PreviewSettings(
        video=video,
        start_us=None if start is None else parse_time_us(start),
        end_us=None if end is None else parse_time_us(end),
        source_options=source_options,
        only_sampled=sampled_only,
        layers=layers,
        track_id=track,
        columns=_listed(plot) or (),
        height_px=height,
        **same,
    )
    made = make_preview(open_output(out, output_options), path, settings)
    _tell(path, made.pictures, made.video, as_json=as_json)


def _preview_person(
    out: str, person: str, path: str, config: Path | None, options: tuple[str, ...], *, as_json: bool, **same: Any
) -> None:
    from featray.tables.layout import open_output
    from featray.views.person_sheet import PersonSheet, make_person_sheet

    source_options, output_options = read_storage_flags(config, options)
    tracks = same.pop("frames")
    settings = PersonSheet(person, source_options=source_options, tracks=tracks, **same)
    made = make_person_sheet(open_output(out, output_options), path, settings)
    if as_json:
        click.echo(json.dumps({"path": path, **asdict(made)}, indent=2))
        return
    of = f" of {made.tracks:,}" if made.shown < made.tracks else ""
    click.echo(
        f"{path}  {made.shown}{of} {'track' if made.tracks == 1 else 'tracks'} of {', '.join(made.persons)} "
        f"in {counted(made.videos, 'video')}, {made.doubtful} doubtful"
    )
    for name in made.missing:
        click.echo(f"not at hand, and not shown: {printable(name)}; --source names the folder where the videos are")


def _tell(path: str, frames: int, video: VideoRow, *, as_json: bool) -> None:
    """Print what was written, with notes on the meaning of its numbers."""
    if as_json:
        found = {"path": path, "frames": frames, "video_id": video.video_id, "uri": video.uri}
        found |= {"dataset": video.dataset, "release": video.release}
        found |= {"weights_trained": video.weights_trained, "unusable": list(video.unusable)}
        click.echo(json.dumps(found, indent=2))
        return
    from featray.tables.provenance import SYNTHETIC_WEIGHTS

    name = printable(video.uri).replace("\n", "\\n")
    click.echo(f"{path}  {counted(frames, 'frame')} of {name}")
    if not video.weights_trained:
        click.echo(SYNTHETIC_WEIGHTS)
    if video.unusable:
        click.echo(f"These weights do not estimate {', '.join(video.unusable)}: ignore the values in the tables.")


@click.command(short_help="Scrub through a video with its rows, in Rerun.")
@click.argument("out")
@click.option("--video", required=True, help=_VIDEO_HELP)
@click.option(
    "--save", "path", metavar="FILE", help="Write the recording, such as face.rrd, and open no viewer; may be a URI."
)
@click.option("--web", is_flag=True, help="Show it in a browser, until Ctrl-C.")
@_range_flags
@click.option("--blur", is_flag=True, help="Hide heads and names, as in `featray preview`.")
@click.option("--json", "as_json", is_flag=True, help="With --save: print as JSON what was written.")
@storage_flags
def view(
    out: str,
    video: str,
    path: str | None,
    web: bool,
    start: str | None,
    end: str | None,
    as_json: bool,
    config: Path | None,
    options: tuple[str, ...],
    **same: Any,
) -> None:
    """Scrub through a video with the numbers of the output OUT: boxes, mesh, curves and events on one clock.

    Opens the Rerun viewer; install it with `pip install 'featray[view]'`. Boxes show track and person ids. The frames
    are re-encoded, upright and with square pixels, as featray sees them.

    \b
    featray view OUT --video face.mp4
    featray view OUT --video face.mp4 --web
    featray view OUT --video face.mp4 --from 10s --to 20s --save face.rrd     # later: rerun face.rrd
    """
    from featray.tables.layout import open_output
    from featray.views.preview import PreviewSettings
    from featray.views.recording import save_recording, show_recording
    from featray.views.times import parse_time_us

    if path is not None and web:
        raise UsageError("--web shows the recording and --save writes it; give only one of them")
    if as_json and path is None:
        raise UsageError("view --json: needs --save FILE; without it the recording is shown")
    source_options, output_options = read_storage_flags(config, options)
    settings = PreviewSettings(
        video=video,
        start_us=None if start is None else parse_time_us(start),
        end_us=None if end is None else parse_time_us(end),
        source_options=source_options,
        layers=("boxes", "mesh"),
        **same,
    )
    output = open_output(out, output_options)
    if path is None:
        show_recording(output, settings, web=web)
        return
    made = save_recording(output, path, settings)
    _tell(path, made.frames, made.video, as_json=as_json)


@click.command(short_help="Write time series, events or a summary for other tools.")
@click.argument("out")
@click.option("--video", default="", help=_VIDEO_HELP)
@click.option("--format", "style", type=click.Choice(["csv", "parquet", "openface", "fex"]), help="One row per face.")
@click.option("--events", type=click.Choice(["csv", "elan", "textgrid"]), help="One row or interval per event.")
@click.option("--summary", type=click.Choice(["csv", "parquet"]), help="One row per video, for all videos.")
@click.option(
    "--out", "path", metavar="FILE", help="Output file; default: the terminal (not for parquet). May be a URI."
)
@click.option("--release", help="A release; default: the latest.")
@click.option("--dataset", help="A dataset, if the video is in several.")
@click.option("--track", type=int, help="Only this track.")
@click.option("--derivation", help="A derivation, for events and summary; default: the latest.")
@click.option("--json", "as_json", is_flag=True, help="With --out: print as JSON what was written.")
@safe_csv_flag
@storage_flags
def export(
    out: str,
    video: str,
    style: str | None,
    events: str | None,
    summary: str | None,
    path: str | None,
    release: str | None,
    dataset: str | None,
    track: int | None,
    derivation: str | None,
    as_json: bool,
    safe_csv: bool,
    config: Path | None,
    options: tuple[str, ...],
) -> None:
    """Write a video's time series or events from the output OUT for other tools, or one row per video.

    \b
    featray export OUT --video face.mp4 --format csv --out face.csv
    featray export OUT --video face.mp4 --format openface --track 0 --out face_openface.csv
    featray export OUT --video face.mp4 --events elan --out face.eaf
    featray export OUT --summary csv --out summary.csv

    \b
    csv, parquet  faces joined with blendshapes, the time in seconds, and person_id; one row per face.
    fex           columns of py-feat's Detectorv2, for its read_feat.
    openface      columns and units of OpenFace 2, if there are counterparts:
      frame           counts from 1; timestamp is the stream's own time, seconds
      face_id         our track_id; confidence is the detector's score
      success         0 in sampled frames without the face, whose other values are empty
      gaze_angle_x/y  radians; positive x is the image's right, positive y down
      pose_Rx/Ry/Rz   radians, R = Rx Ry Rz; positive Rx is down, Ry the subject's right
      x_*, y_*        68 landmarks, px of the upright frame
      AU*_r           PROBABILITIES in [0, 1], not intensities in [0, 5]: the last column,
                      intensity_scale, says so in every row
      AU*_c           1 where that probability is at least 0.5
    Left out, having no counterpart: gaze_0/1_*, eye_lmk_*, pose_T*, X_* Y_* Z_*, p_*, AU45.

    \b
    --events csv       rows of `events`; without --video, of all videos
    --events elan      .eaf with a tier per kind and track; needs 'featray[annotations]'
    --events textgrid  the same for Praat
    --summary          the view `summary`, with the manifest's columns, for a statistics package

    Texts are written unchanged. If OUT is from somebody else and the file is for a spreadsheet, add --safe-csv: a
    name that begins with = + - or @ would be evaluated as a formula.
    """
    from featray.tables.provenance import SYNTHETIC_WEIGHTS
    from featray.views.export import ExportSettings, write_events, write_export, write_summary

    ways = {
        "--format": (style, write_export),
        "--events": (events, write_events),
        "--summary": (summary, write_summary),
    }
    chosen = [(name, kind, write) for name, (kind, write) in ways.items() if kind]
    if len(chosen) != 1:
        raise UsageError("export: give exactly one of --format, --events and --summary")
    ((name, kind, write),) = chosen
    if bool(video) != (name == "--format") and name != "--events":
        raise UsageError(
            f"export: {'--format needs --video' if name == '--format' else '--summary covers all videos; omit --video'}"
        )
    if track is not None and name == "--summary":
        raise UsageError("export: --summary covers all tracks; omit --track")
    if as_json and path is None:
        raise UsageError("export --json: needs --out FILE; without it the rows themselves are printed")
    settings = ExportSettings(
        video, kind or "", release, dataset, track_id=track, safe_csv=safe_csv, derivation=derivation
    )
    made = write(open_told(out, config, options), path, settings)
    if as_json:
        click.echo(json.dumps({"path": path, "kind": f"{name[2:]} {kind}", "rows": made.rows}, indent=2))
    elif path is not None:
        click.echo(f"{path}  {counted(made.rows, 'row')}")
    if made.synthetic_weights:
        click.echo(SYNTHETIC_WEIGHTS, err=True)
