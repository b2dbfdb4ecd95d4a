"""Views. `featray preview`: draw a video with its published rows, as a clip or a contact sheet.

It uses only the published tables and the original source, so the picture is a check of
coordinates, times and orientation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import duckdb

from featray.errors import UsageError
from featray.sources.places import SourceOptions
from featray.store.location import locate_beside
from featray.store.scratch import scratch_folder
from featray.store.storage import upload
from featray.tables.layout import Output
from featray.tables.published import Published, of_dataset, read_steadily
from featray.tables.query import connect, run_sql
from featray.views.clip import write_mp4
from featray.views.happenings import Event, read_video_events, strongest_peaks
from featray.views.overlay import LAYERS, MEASURED, Square, cut_square
from featray.views.page import Look, Pages
from featray.views.selection import SampledFrame, VideoRow, find_video, prominent_track, read_frames, read_persons
from featray.views.sheet import are_apart, choose_frames, draw_sheet
from featray.views.source import Shown, Source, open_source_of
from featray.views.timeline import check_columns
from featray.views.times import clock_text

CLIPS: Final = (".mp4",)
SHEETS: Final = (".png", ".jpg", ".jpeg")

_HELD_US: Final = 1_000_000
"""Time that a head stays hidden after its face was missed; equal to the longest gap in a track."""


@dataclass(frozen=True)
class PreviewSettings:
    """Settings of a preview.

    Attributes:
        video: id, URI or end of a URI.
        release, dataset: names, needed if there are several; None for the latest release, the only dataset.
        start_us, end_us: presentation times; None for no bound.
        source: current place of the video, if it was moved.
        source_options: storage options for reading it.
        height_px: height of the frames in a clip.
        blur: hide identities.
        only_sampled: omit frames that were not sampled; implied by `blur`, because their faces are unknown.
        layers: layers to draw on faces; None for all that carry meaning.
        track_id: track whose numbers are shown; None for the face that fills most of the picture over time.
        columns: columns to plot.
        frames: number of frames of a contact sheet.
    """

    video: str
    release: str | None = None
    dataset: str | None = None
    start_us: int | None = None
    end_us: int | None = None
    source: str | None = None
    source_options: SourceOptions = field(default_factory=SourceOptions)
    height_px: int = 720
    blur: bool = False
    only_sampled: bool = False
    layers: tuple[str, ...] | None = None
    track_id: int | None = None
    columns: tuple[str, ...] = ("AU12", "valence")
    frames: int = 12


@dataclass(frozen=True)
class Preview:
    """A preview that was drawn: the number of pictures, and the video."""

    pictures: int
    video: VideoRow


def make_preview(output: Output, path: str, settings: PreviewSettings) -> Preview:
    """Draw a clip or a contact sheet, depending on the extension of `path`.

    Raises:
        UsageError: no such video, range or track; or the source is not what the tables were made from.
        VideoError: the source cannot be opened.
        StorageError: the tables cannot be read, or the picture cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (*CLIPS, *SHEETS):
        raise UsageError(f"--out {path}: must end in {', '.join((*CLIPS, *SHEETS))}")
    check_columns(settings.columns)
    read = read_video(output, settings)
    video = read.video
    look = Look(video, read.layers, settings.blur, _track(read.sampled, settings.track_id))
    source = open_source_of(video, settings.source, settings.source_options)
    target = locate_beside(path, output.root)
    with scratch_folder("preview") as folder:
        local = Path(folder) / f"preview{suffix}"
        if suffix in CLIPS:
            pictures = _write_clip(local, source, read, look, settings)
        else:
            pictures = _write_sheet(local, source, read, look, settings)
        upload(str(local), target)
    return Preview(pictures, video)


@dataclass(frozen=True)
class VideoRead:
    """A video's rows: its own, its frames in the range, its events, and the layers to draw.

    Attributes:
        persons: `person_id` by `track_id`, of the tracks in `persons`; empty unless requested.
    """

    video: VideoRow
    layers: frozenset[str]
    sampled: list[SampledFrame]
    events: list[Event]
    persons: dict[int, str]


def read_video(output: Output, settings: PreviewSettings, *, persons: bool = False) -> VideoRead:
    """Read the rows of the video and range that the settings select.

    Raises:
        UsageError: no such video, or it has no frame in the range.
        StorageError: the tables cannot be read.
    """

    def read(published: list[Published]) -> VideoRead:
        return _read(connect(output, published=of_dataset(published, settings.dataset)), settings, persons)

    return read_steadily(output, read, settings.release)


def _read(connection: duckdb.DuckDBPyConnection, settings: PreviewSettings, persons: bool) -> VideoRead:
    video = find_video(connection, settings.video, settings.dataset)
    layers = frozenset(settings.layers or meaningful_layers(video))
    sampled = read_frames(connection, video, settings.start_us, settings.end_us, mesh="mesh" in layers)
    if not sampled:
        raise UsageError(f"--video {settings.video}: {_why_none(connection, video)}")
    known = read_persons(connection, video) if persons else {}
    return VideoRead(video, layers, sampled, read_video_events(connection, video), known)


def meaningful_layers(video: VideoRow) -> list[str]:
    """Return the layers that are drawn by default, without directions that the weights do not estimate."""
    left_out = {"gaze" if column.startswith("gaze") else "pose" for column in video.unusable}
    return [layer for layer in LAYERS if layer in MEASURED or (video.weights_trained and layer not in left_out)]


def _write_clip(path: Path, source: Source, read: VideoRead, look: Look, settings: PreviewSettings) -> int:
    sampled = read.sampled
    only_sampled = settings.only_sampled or settings.blur
    shown = source.run(sampled, settings.start_us, settings.end_us, only_sampled=only_sampled)
    hidden = hidden_squares(sampled) if settings.blur else {}
    first = next(shown)
    begin_us = first.frame.time_us
    size = (first.frame.width_px, first.frame.height_px)
    span_us = (min(begin_us, sampled[0].pts_us), sampled[-1].pts_us)
    pages = Pages(look, sampled, settings.columns, size, settings.height_px, span_us, read.events)

    def drawn() -> Iterator[tuple[int, Any]]:
        for item in _and_rest(first, shown):
            yield item.frame.time_us - begin_us, pages.draw(item, hidden.get(item.frame.index, []))

    return write_mp4(path, drawn(), pages.size_px)


def _write_sheet(path: Path, source: Source, read: VideoRead, look: Look, settings: PreviewSettings) -> int:
    sampled = read.sampled
    # Use half the frames for peaks, which leaves room for usual frames.
    peaks = strongest_peaks(sampled, read.events, look.track_id, (settings.frames + 1) // 2)
    chosen = choose_frames(sampled, settings.frames, look.track_id, look.video.unusable, peaks)
    hidden = hidden_squares(sampled) if settings.blur else {}
    shown = source.pick(chosen)
    first = next(shown)
    pictures = ((item, hidden.get(item.frame.index, [])) for item in _and_rest(first, shown))
    apart = settings.track_id is None and are_apart(sampled)
    sheet = draw_sheet(pictures, len(chosen), look, first.frame.width_px / first.frame.height_px, peaks, apart=apart)
    sheet.save(path, quality=88)
    return len(chosen)


def _why_none(connection: duckdb.DuckDBPyConnection, video: VideoRow) -> str:
    sql = f"SELECT min(pts_us), max(pts_us) FROM frames WHERE {video.where}"
    first, last = run_sql(connection, sql).read_all().to_pylist()[0].values()
    if first is None:
        return "none of its frames could be sampled; see the table errors for the reason"
    return f"no frames in that range; its frames are from {clock_text(first)} to {clock_text(last)}"


def hidden_squares(frames: list[SampledFrame]) -> dict[int, list[Square]]:
    """Return the squares to hide, by `frame_index`: faces in the frame, and missed faces seen within a second."""
    places: dict[int, list[tuple[int, Square]]] = {}
    for frame in frames:
        for face in frame.faces:
            places.setdefault(face.track_id, []).append((frame.pts_us, cut_square(face)))
    found: dict[int, list[Square]] = {}
    for frame in frames:
        squares = [cut_square(face) for face in frame.faces]
        here = {face.track_id for face in frame.faces}
        for track, seen in places.items():
            if track not in here:
                before = [square for time, square in seen if 0 < frame.pts_us - time <= _HELD_US][-1:]
                after = [square for time, square in seen if 0 < time - frame.pts_us <= _HELD_US][:1]
                squares += before + after
        found[frame.frame_index] = squares
    return found


def _track(frames: list[SampledFrame], wanted: int | None) -> int | None:
    if wanted is None:
        return prominent_track(frames)
    there = sorted({face.track_id for frame in frames for face in frame.faces})
    if wanted not in there:
        known = ", ".join(map(str, there[:20])) or "none"
        raise UsageError(f"--track {wanted}: not in that part of the video; it has: {known}")
    return wanted


def _and_rest(first: Shown, rest: Iterator[Shown]) -> Iterator[Shown]:
    yield first
    yield from rest
