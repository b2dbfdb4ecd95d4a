"""Views. `featray preview --person`: a contact sheet of a person's tracks, to check that they are one person.

Faces are cropped from the original videos. The least certain tracks come first, because they need checking.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import duckdb
from PIL import Image, ImageDraw

from featray.errors import OutputError, UsageError, VideoError, counted
from featray.sources.places import SourceOptions
from featray.store.location import locate_beside
from featray.store.scratch import scratch_folder
from featray.store.storage import upload
from featray.tables.layout import Output
from featray.tables.published import Published, read_steadily
from featray.tables.query import connect
from featray.version import __version__
from featray.views.canvas import FAINT, GROUND, INK, MUTED, RAISED, WARNING, shortened, tag, text
from featray.views.overlay import cut_square, hide
from featray.views.preview import SHEETS, hidden_squares
from featray.views.selection import SampledFrame, VideoRow, find_video, read_frames
from featray.views.source import open_source_of
from featray.views.times import clock_text
from featray.views.tracks_of_person import FaceAt, PersonTrack, count_tracks, read_tracks

_LARGE: Final = 236
_SMALL: Final = 116
_GAP: Final = 4
_EDGE: Final = 14
_WORDS: Final = 74
_HEADER: Final = 54
_TILE: Final = (_LARGE + _GAP + _SMALL, _LARGE + _WORDS)
_MOST_COLUMNS: Final = 5
_ROOM: Final = 1.25
"""Side of the displayed square relative to the cropped square: hair and ears help to identify people."""
_HELD_US: Final = 1_000_000
"""Time that a head stays hidden after its face was missed."""


@dataclass(frozen=True)
class PersonSheet:
    """Settings of a person's contact sheet.

    Attributes:
        person: an id, or a name.
        release, dataset: as in `PreviewSettings`.
        source: folder that now holds the videos, under their names, if they were moved.
        source_options: storage options for reading the videos.
        blur: hide identities; only places, times and numbers remain.
        tracks: maximum number of tracks.
    """

    person: str
    release: str | None = None
    dataset: str | None = None
    source: str | None = None
    source_options: SourceOptions = field(default_factory=SourceOptions)
    blur: bool = False
    tracks: int = 12


@dataclass(frozen=True)
class SheetMade:
    """A sheet that was drawn.

    Attributes:
        persons: ids of the persons shown; several persons may share a name.
        shown, tracks, videos: number of tracks shown, and of all tracks and videos.
        doubtful: number of doubtful tracks among those shown.
        missing: videos whose faces could not be shown.
    """

    persons: tuple[str, ...]
    shown: int
    tracks: int
    videos: int
    doubtful: int
    missing: tuple[str, ...]


@dataclass(frozen=True)
class _Read:
    tracks: list[PersonTrack]
    every: tuple[int, int]
    videos: dict[tuple[str, str, str], VideoRow]
    around: dict[tuple[str, str, str, int], list[SampledFrame]]


def make_person_sheet(output: Output, path: str, settings: PersonSheet) -> SheetMade:
    """Draw the sheet.

    Raises:
        UsageError: there is no such person, or none of the videos is available.
        OutputError: the tables contradict each other.
        StorageError: the tables cannot be read, or the picture cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SHEETS:
        raise UsageError(f"--out {path}: a person's sheet must end in {', '.join(SHEETS)}")
    read = read_steadily(output, lambda published: _read(output, published, settings), settings.release)
    crops: dict[tuple[int, int], Image.Image] = {}
    missing: dict[str, str] = {}
    for key, video in read.videos.items():
        mine = [(n, track) for n, track in enumerate(read.tracks) if key == _video_of(track)]
        try:
            crops |= _crops(video, mine, read, settings)
        except (UsageError, VideoError) as error:
            missing[video.video_id if settings.blur else video.name] = str(error)
    if not crops and missing:
        first = next(iter(missing.values()))
        raise UsageError(f"{first} (none of {counted(len(missing), 'video')} of this person is available)")
    if not crops:
        raise OutputError(
            f"{output.root.uri}: no video has the tracks that `persons` names for this person; run `featray verify`"
        )
    target = locate_beside(path, output.root)
    with scratch_folder("persons") as folder:
        local = Path(folder) / f"sheet{suffix}"
        _draw(read, crops, settings).save(local, quality=90)
        upload(str(local), target)
    persons = tuple(sorted({track.person_id for track in read.tracks}))
    doubtful = sum(track.is_doubtful for track in read.tracks)
    return SheetMade(persons, len(read.tracks), *read.every, doubtful, tuple(missing))


def _video_of(track: PersonTrack) -> tuple[str, str, str]:
    return track.dataset, track.release, track.video_id


def _read(output: Output, published: list[Published], settings: PersonSheet) -> _Read:
    connection = connect(output, published=published)
    every = count_tracks(connection, settings.person, settings.dataset)
    tracks = list(read_tracks(connection, settings.person, settings.dataset, settings.tracks))
    videos = {}
    for track in tracks:
        if _video_of(track) not in videos:
            videos[_video_of(track)] = _find(connection, track)
    around = {}
    for track in tracks if settings.blur else ():
        video = videos[_video_of(track)]
        for one in track.faces:
            span = one.pts_us - _HELD_US, one.pts_us + _HELD_US
            around[(*_video_of(track), one.frame_index)] = read_frames(connection, video, *span, mesh=False)
    return _Read(tracks, every, videos, around)


def _find(connection: duckdb.DuckDBPyConnection, track: PersonTrack) -> VideoRow:
    return find_video(connection, track.video_id, track.dataset, track.release)


def _crops(
    video: VideoRow, tracks: list[tuple[int, PersonTrack]], read: _Read, settings: PersonSheet
) -> dict[tuple[int, int], Image.Image]:
    """Return the faces of a video's tracks, by the numbers of track and face."""
    place = None if settings.source is None else f"{settings.source.rstrip('/')}/{video.name}"
    wanted: dict[int, list[tuple[tuple[int, int], FaceAt]]] = {}
    for number, track in tracks:
        for i, one in enumerate(track.faces):
            wanted.setdefault(one.frame_index, []).append(((number, i), one))
    source = open_source_of(video, place, settings.source_options)
    frames = [SampledFrame(index, faces[0][1].pts_us, "ok", ()) for index, faces in sorted(wanted.items())]
    found = {}
    for shown in source.pick(frames):
        picture = Image.fromarray(shown.frame.scaled_rgb(1.0))
        if settings.blur:
            around = read.around[video.dataset, video.release, video.video_id, shown.frame.index]
            hide(picture, hidden_squares(around)[shown.frame.index], 1.0)
        for key, one in wanted[shown.frame.index]:
            found[key] = _cut(picture, one)
    return found


def _cut(picture: Image.Image, one: FaceAt) -> Image.Image:
    """Return the head around a face, at its maximum display size; black outside the frame."""
    x, y, side = cut_square(one.face)
    middle_x, middle_y, half = x + side / 2, y + side / 2, side * _ROOM / 2
    box = (round(middle_x - half), round(middle_y - half), round(middle_x + half), round(middle_y + half))
    return picture.crop(box).resize((_LARGE, _LARGE), Image.Resampling.LANCZOS)


def _draw(read: _Read, crops: dict[tuple[int, int], Image.Image], settings: PersonSheet) -> Image.Image:
    columns = min(_MOST_COLUMNS, max(2, len(read.tracks)))
    rows = -(-len(read.tracks) // columns)
    width = columns * (_TILE[0] + _EDGE) + _EDGE
    sheet = Image.new("RGB", (width, _HEADER + rows * (_TILE[1] + _EDGE) + _EDGE), GROUND)
    draw = ImageDraw.Draw(sheet)
    _draw_header(draw, width, read, settings)
    for number, track in enumerate(read.tracks):
        corner = (
            _EDGE + number % columns * (_TILE[0] + _EDGE),
            _HEADER + number // columns * (_TILE[1] + _EDGE),
        )
        faces = [crops.get((number, i)) for i in range(len(track.faces))]
        _draw_tile(sheet, corner, track, faces, _called(track, read, settings))
    return sheet


def _called(track: PersonTrack, read: _Read, settings: PersonSheet) -> str:
    """Return the name of a track's video; with `blur`, without the file name, which may contain a person's name."""
    video = read.videos[_video_of(track)]
    return video.video_id if settings.blur else video.label


def _draw_header(draw: ImageDraw.ImageDraw, width: int, read: _Read, settings: PersonSheet) -> None:
    tracks, videos = read.every
    persons = sorted({track.person_id for track in read.tracks})
    names = sorted({track.name for track in read.tracks if track.name and not settings.blur})
    title = ", ".join([*names, *persons])
    text(draw, (_EDGE, 15), shortened(title, 17, width * 0.6), 17)
    some = "" if len(read.tracks) == tracks else f"{len(read.tracks)} shown, the least certain first; "
    doubtful = sum(track.is_doubtful for track in read.tracks)
    words = f"{some}{counted(tracks, 'track')} in {counted(videos, 'video')}"
    text(draw, (_EDGE, 38), words, 13.5, MUTED)
    if doubtful:
        text(draw, (_EDGE + draw.textlength(words + "    ", font_size=13.5), 38), f"{doubtful} doubtful", 13.5, WARNING)
    releases = sorted({track.release for track in read.tracks})
    text(draw, (width - _EDGE, 15), shortened(f"{', '.join(releases)}", 12.5, width * 0.35), 12.5, MUTED, "rm")
    text(draw, (width - _EDGE, 38), f"featray {__version__}", 12.5, MUTED, "rm")


def _draw_tile(
    sheet: Image.Image, corner: tuple[int, int], track: PersonTrack, faces: list[Image.Image | None], video: str
) -> None:
    """Draw the best face from the middle of the track large, the earlier and later ones next to it, and text below."""
    left, top = corner
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((left, top, left + _TILE[0] - 1, top + _TILE[1] - 1), fill=RAISED)
    places = [
        (left, top, _LARGE),
        (left + _LARGE + _GAP, top, _SMALL),
        (left + _LARGE + _GAP, top + _SMALL + _GAP, _SMALL),
    ]
    order = _large_first(track)
    for place, number in zip(places, [*order, None, None, None], strict=False):
        x, y, side = place
        crop = None if number is None else faces[number]
        if crop is None:
            draw.rectangle((x, y, x + side - 1, y + side - 1), fill=FAINT)
        else:
            sheet.paste(crop.resize((side, side), Image.Resampling.LANCZOS), (x, y))
            clock = clock_text(track.faces[number or 0].pts_us)
            tag(draw, (x, y + side), clock, 12 if side == _LARGE else 10.5, RAISED, INK)
    if faces and all(face is None for face in faces):
        text(draw, (left + _LARGE / 2, top + _LARGE / 2), "video not available", 14, MUTED, "mm")
    _draw_words(draw, (left, top + _LARGE), track, video)
    if track.is_doubtful:
        draw.rectangle((left, top, left + _TILE[0] - 1, top + _TILE[1] - 1), outline=WARNING, width=3)
        tag(draw, (left + 3, top + 26), "doubtful", 15, WARNING, GROUND)


def _large_first(track: PersonTrack) -> list[int]:
    numbers = list(range(len(track.faces)))
    middle = len(numbers) // 2
    return [middle, *numbers[:middle], *numbers[middle + 1 :]] if numbers else []


def _draw_words(draw: ImageDraw.ImageDraw, corner: tuple[int, int], track: PersonTrack, video: str) -> None:
    left, top = corner[0] + 10, corner[1]
    room = _TILE[0] - 20
    text(draw, (left, top + 15), shortened(video, 14, room), 14, INK)
    when = f"{clock_text(track.start_us)} to {clock_text(track.end_us)}   track {track.track_id}"
    text(draw, (left, top + 36), shortened(when, 12.5, room), 12.5, MUTED)
    margin = "no other person" if track.margin is None else f"margin {track.margin:.3f}"
    colour = WARNING if track.is_doubtful else INK
    told = f"similarity {track.similarity:.3f}   {margin}"
    text(draw, (left, top + 57), told, 13, colour)
    if track.previous:
        start = left + draw.textlength(told + "   ", font_size=13)
        text(draw, (start, top + 57), shortened(f"was {track.previous}", 11.5, left + room - start), 11.5, MUTED)
