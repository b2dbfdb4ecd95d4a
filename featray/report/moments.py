"""Report. The strongest expressions, with their pictures.

A moment's strength is the mean of its action-unit probabilities without AU43 (eyes closed), since blinks are not
expressions. Small, cut-off and uncertain faces are skipped. A single pass finds the moments at any size of output.
`configs/queries/expressive_moments.sql` measures something else, the distance from the track's own mean.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from PIL import Image

from featray.errors import FeatrayError, UsageError
from featray.names import AU_NAMES_20, EMOTION_NAMES_7
from featray.report.scope import Scope
from featray.sources.places import SourceOptions
from featray.tables.database import literal
from featray.views.overlay import Square, cut_square, hide
from featray.views.preview import hidden_squares
from featray.views.selection import TIME_US, Face, VideoRow, find_video, read_frames
from featray.views.source import Shown, Source, open_source_of

MOMENTS: Final = 12
STRENGTH: Final = f"({' + '.join(au for au in AU_NAMES_20 if au != 'AU43')}) / {len(AU_NAMES_20) - 1}"
"""Strength of an expression, as SQL over a row of `faces`."""

GOOD_FACE: Final = "score >= 0.8 AND in_frame >= 0.9 AND face_px >= 48"
"""SQL condition for the faces considered. Below 48 px the network's 224-pixel input is mostly interpolation."""

_SHARES: Final = (*AU_NAMES_20, *(f"emotion_{name}" for name in EMOTION_NAMES_7))
_WHOLE: Final = f"isfinite({' + '.join(_SHARES)})"
"""SQL condition for the faces whose numbers can be shown: in a damaged row some are null, or NaN, which is the maximum.
DuckDB drops a comparison that the file's statistics fulfil, and these leave NaN out."""

_APART_US: Final = 2_000_000
_AROUND: Final = 1.5
"""Side of a thumbnail, relative to the crop's."""
_THUMBNAIL_PX: Final = 208
_HELD_US: Final = 1_000_000


@dataclass(frozen=True)
class Moment:
    """A face at one moment.

    Attributes:
        video: the video.
        face: the row of the face.
        strength: mean probability of the action units.
        jpeg: the thumbnail; None if there is none.
        why_none: why there is no thumbnail, in one line.
    """

    video: VideoRow
    face: Face
    strength: float
    jpeg: bytes | None
    why_none: str

    @property
    def emotion(self) -> tuple[str, float]:
        """Return the emotion with the largest share, and that share."""
        name = max(EMOTION_NAMES_7, key=lambda emotion: self.face[f"emotion_{emotion}"])
        return name, self.face[f"emotion_{name}"]

    @property
    def action_units(self) -> list[tuple[str, float]]:
        """Return the three most probable action units."""
        return sorted(((au, self.face[au]) for au in AU_NAMES_20), key=lambda pair: -pair[1])[:3]


@dataclass(frozen=True)
class Moments:
    """The moments, strongest first, and the share of the rows of `faces` that was searched.

    `only_good` is false if no face fulfilled GOOD_FACE and all were ranked.
    """

    moments: list[Moment]
    share: float
    only_good: bool


def read_moments(
    scope: Scope, faces: int, videos: int, *, thumbnails: bool, blur: bool, source_options: SourceOptions
) -> Moments:
    """Find the moments: one per video, or several at least two seconds apart if there are few videos.

    Args:
        scope: the release.
        faces: number of rows in `faces`.
        videos: number of videos.
        thumbnails: whether to open the sources.
        blur: hide heads in the thumbnails.
        source_options: storage options for reading the sources.
    """
    sample, share = scope.sample(faces)
    apart = "" if videos >= MOMENTS else f", {TIME_US} // {_APART_US}"
    keys = f"{{'video_id': video_id, 'frame_index': frame_index, 'pts_us': {TIME_US}, 'face_index': face_index}}"

    def strongest(condition: str) -> list[dict[str, Any]]:
        # First find the videos, then the moments within them: only one number per video is kept in memory.
        chosen = scope.rows(
            f"SELECT video_id FROM in_faces {sample} WHERE {condition} "
            f"GROUP BY video_id ORDER BY max({STRENGTH}) DESC, video_id LIMIT {MOMENTS}"
        )
        ids = ", ".join(literal(row["video_id"]) for row in chosen) or "NULL"
        return scope.rows(
            f"SELECT unnest(max_by({keys}, {STRENGTH})), max({STRENGTH}) AS strength FROM in_faces "
            "SEMI JOIN in_videos USING (video_id) "
            f"WHERE {condition} AND video_id IN ({ids}) "
            f"GROUP BY video_id{apart} ORDER BY strength DESC, video_id LIMIT {MOMENTS}"
        )

    found = strongest(f"{_WHOLE} AND {GOOD_FACE}")
    only_good = bool(found)
    camera = _Camera(scope, blur=blur, source_options=source_options) if thumbnails else None
    moments = [_moment(scope, row, camera) for row in found or strongest(_WHOLE)]
    return Moments([moment for moment in moments if moment is not None], share, only_good)


def _moment(scope: Scope, row: dict[str, Any], camera: _Camera | None) -> Moment | None:
    """Return the moment of a face; None if its frame has no row, or another time."""
    video = find_video(scope.connection, row["video_id"], scope.dataset)
    time_us = row["pts_us"]
    frames = read_frames(scope.connection, video, time_us - _HELD_US, time_us + _HELD_US, mesh=False)
    sampled = next((frame for frame in frames if frame.frame_index == row["frame_index"]), None)
    if sampled is None:
        return None
    face = next(face for face in sampled.faces if face.row["face_index"] == row["face_index"])
    jpeg, why = None, "left out by --no-thumbnails"
    if camera is not None:
        try:
            shown = next(camera.source(video).pick([sampled]))
            jpeg, why = camera.cut(shown, face, hidden_squares(frames)[sampled.frame_index]), ""
        except FeatrayError as error:
            why = "the source could not be opened" if camera.blur else str(error)
    return Moment(video, face, row["strength"], jpeg, why)


class _Camera:
    """Open each source once and cut thumbnails; a storage that did not answer is not tried again."""

    def __init__(self, scope: Scope, *, blur: bool, source_options: SourceOptions) -> None:
        self.blur = blur
        self._options = source_options
        self._sources: dict[str, Source | FeatrayError] = {}
        self._silent: dict[tuple[str, str], FeatrayError] = {}

    def source(self, video: VideoRow) -> Source:
        """Return the source of a video, or raise the error of the first attempt to open it."""
        storage = urlsplit(video.uri)[:2]
        if storage in self._silent:  # each try takes minutes: a dozen moments would take half an hour
            raise UsageError(str(self._silent[storage]))
        if video.video_id not in self._sources:
            try:
                self._sources[video.video_id] = open_source_of(video, None, self._options)
            except FeatrayError as error:
                self._sources[video.video_id] = error
                if error.details.get("unreachable"):
                    self._silent[storage] = error
        found = self._sources[video.video_id]
        if isinstance(found, FeatrayError):
            raise UsageError(str(found))
        return found

    def cut(self, shown: Shown, face: Face, hidden: Sequence[Square]) -> bytes:
        """Return a square around the face as JPEG, moved and shrunk to fit into the frame."""
        frame, (x, y, side) = shown.frame, cut_square(face)
        wide = min(side * _AROUND, frame.width_px, frame.height_px)
        scale = min(1.0, _THUMBNAIL_PX / wide)
        picture = Image.fromarray(frame.scaled_rgb(scale))
        scale = picture.height / frame.height_px
        if self.blur:
            hide(picture, hidden, scale)
        left = min(max(0.0, x + side / 2 - wide / 2), frame.width_px - wide) * scale
        top = min(max(0.0, y + side / 2 - wide / 2), frame.height_px - wide) * scale
        # The picture's width is rounded, so that a square as wide as the frame may not fit by a fraction of a pixel.
        box = (left, top, min(left + wide * scale, picture.width), min(top + wide * scale, picture.height))
        cut = picture.resize((_THUMBNAIL_PX, _THUMBNAIL_PX), Image.Resampling.BICUBIC, box=box)
        file = io.BytesIO()
        cut.save(file, "JPEG", quality=82)
        return file.getvalue()
