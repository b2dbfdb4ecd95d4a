"""Views. `featray preview`: a video with what the published tables say of it, as a clip or a contact sheet.

Drawn from the published tables and the original source alone, so that a look at it proves
coordinates, times and orientation.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import duckdb

from featray.errors import UsageError
from featray.store.storage import locate_beside, upload
from featray.tables.layout import Output
from featray.tables.published import read_steadily
from featray.tables.query import connect, run_sql
from featray.views.clip import write_mp4
from featray.views.happenings import Event, read_video_events, strongest_peaks
from featray.views.overlay import LAYERS, MEASURED, Square, cut_square
from featray.views.page import Look, Pages
from featray.views.selection import SampledFrame, VideoRow, find_video, prominent_track, read_frames, read_persons
from featray.views.sheet import choose_frames, draw_sheet
from featray.views.source import Shown, Source, find_source
from featray.views.timeline import check_columns
from featray.views.times import clock_text

CLIPS: Final = (".mp4",)
SHEETS: Final = (".png", ".jpg", ".jpeg")

_HELD_US: Final = 1_000_000
"""How long a head stays hidden where its face was missed; as long as a track outlives a gap."""


@dataclass(frozen=True)
class PreviewSettings:
    """Settings of a preview.

    Attributes:
        video: id, URI or end of a URI.
        release, dataset: which, if there are several; None for the latest, the only one.
        start_us, end_us: presentation times; None for no bound.
        source: where the video is now, if it moved.
        storage_options: for reading it.
        height_px: at which a clip shows its frames.
        blur: hide who it is.
        only_sampled: leave frames out that were not sampled; `blur` does so too, as nothing is known of them.
        layers: what to draw on faces; None for all that carries meaning.
        track_id: whose numbers; None for the face that fills the most of the picture over time.
        columns: to plot.
        frames: of a contact sheet.
    """

    video: str
    release: str | None = None
    dataset: str | None = None
    start_us: int | None = None
    end_us: int | None = None
    source: str | None = None
    storage_options: dict[str, Any] = field(default_factory=dict)
    height_px: int = 720
    blur: bool = False
    only_sampled: bool = False
    layers: tuple[str, ...] | None = None
    track_id: int | None = None
    columns: tuple[str, ...] = ("AU12", "valence")
    frames: int = 12


@dataclass(frozen=True)
class Preview:
    """A preview that was drawn: how many pictures, and of which video."""

    pictures: int
    video: VideoRow


def make_preview(output: Output, path: str, settings: PreviewSettings) -> Preview:
    """Draw a clip or a contact sheet, by the ending of `path`.

    Raises:
        UsageError: no such video, range or track; or the source is not what the tables were made from.
        VideoError: the source cannot be opened.
        StorageError: the tables cannot be read, or the picture not be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (*CLIPS, *SHEETS):
        raise UsageError(f"--out {path}: must end in {', '.join((*CLIPS, *SHEETS))}")
    check_columns(settings.columns)
    read = read_video(output, settings)
    video = read.video
    look = Look(video, read.layers, settings.blur, _track(read.sampled, settings.track_id))
    source = Source(video, find_source(video, settings.source, settings.storage_options), settings.storage_options)
    target = locate_beside(path, output.root)
    with tempfile.TemporaryDirectory() as folder:
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
        persons: `person_id` by `track_id`, of the tracks that `featray persons` has seen; empty unless asked for.
    """

    video: VideoRow
    layers: frozenset[str]
    sampled: list[SampledFrame]
    events: list[Event]
    persons: dict[int, str]


def read_video(output: Output, settings: PreviewSettings, *, persons: bool = False) -> VideoRead:
    """Read what the tables say of the video and the range that the settings name.

    Raises:
        UsageError: no such video, or no frame of it in the range.
        StorageError: the tables cannot be read.
    """
    return read_steadily(
        output, lambda published: _read(connect(output, published=published), settings, persons), settings.release
    )


def _read(connection: duckdb.DuckDBPyConnection, settings: PreviewSettings, persons: bool) -> VideoRead:
    video = find_video(connection, settings.video, settings.dataset)
    layers = frozenset(settings.layers or meaningful_layers(video))
    sampled = read_frames(connection, video, settings.start_us, settings.end_us, mesh="mesh" in layers)
    if not sampled:
        raise UsageError(f"--video {settings.video}: {_why_none(connection, video)}")
    known = read_persons(connection, video) if persons else {}
    return VideoRead(video, layers, sampled, read_video_events(connection, video), known)


def meaningful_layers(video: VideoRow) -> list[str]:
    """Return the layers that are drawn by default: no directions of angles that the weights do not estimate."""
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
    # Half of them, so that the usual has room beside the strongest.
    peaks = strongest_peaks(sampled, read.events, look.track_id, (settings.frames + 1) // 2)
    chosen = choose_frames(sampled, settings.frames, look.track_id, look.video.unusable, peaks)
    hidden = hidden_squares(sampled) if settings.blur else {}
    shown = source.pick(chosen)
    first = next(shown)
    pictures = ((item, hidden.get(item.frame.index, [])) for item in _and_rest(first, shown))
    sheet = draw_sheet(pictures, len(chosen), look, first.frame.width_px / first.frame.height_px, peaks)
    sheet.save(path, quality=88)
    return len(chosen)


def _why_none(connection: duckdb.DuckDBPyConnection, video: VideoRow) -> str:
    sql = f"SELECT min(pts_us), max(pts_us) FROM frames WHERE {video.where}"
    first, last = run_sql(connection, sql).read_all().to_pylist()[0].values()
    if first is None:
        return "no frame of it could be sampled; the table errors says why"
    return f"the tables hold no frame of it in that range, but from {clock_text(first)} to {clock_text(last)}"


def hidden_squares(frames: list[SampledFrame]) -> dict[int, list[Square]]:
    """Return what to hide in each frame, by `frame_index`: its faces, and those missed but seen within a second."""
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
        raise UsageError(f"--track {wanted}: is not in that part of the video; there are: {known}")
    return wanted


def _and_rest(first: Shown, rest: Iterator[Shown]) -> Iterator[Shown]:
    yield first
    yield from rest
