"""Views. Draw a contact sheet: frames that cover the variety of a video."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from featray.names import AU_NAMES_20, EMOTION_NAMES_7
from featray.views.canvas import GROUND, INK, RAISED, WARNING, shortened, tag
from featray.views.overlay import Square
from featray.views.page import Look, draw_footer, draw_picture
from featray.views.panel import SUMMARY_PX, draw_summary
from featray.views.selection import Face, SampledFrame
from featray.views.source import Shown
from featray.views.times import clock_text

_COMPARED: Final = (
    *AU_NAMES_20,
    *(f"emotion_{name}" for name in EMOTION_NAMES_7),
    "pose_pitch",
    "pose_yaw",
    "pose_roll",
)
_GAP: Final = 10
_FOOTER: Final = 32


def choose_frames(
    frames: list[SampledFrame],
    number: int,
    track_id: int | None,
    unusable: tuple[str, ...] = (),
    peaks: Collection[int] = (),
) -> list[SampledFrame]:
    """Return frames of great variety, in time order.

    The frames of `peaks` (`frame_index` of the strongest events) are included. Of the others, the first is the most
    typical frame, and each further one is the farthest from those already chosen, by action units, emotions and head
    pose of the track, with every column scaled to its spread. If too few frames have the face, evenly spaced frames
    fill the sheet.
    """
    with_face = [(frame, face) for frame in frames if (face := frame.face(track_id)) is not None]
    chosen: list[SampledFrame] = []
    if with_face:
        compared = [name for name in _COMPARED if name not in unusable]
        features = np.asarray([[face[name] for name in compared] for _, face in with_face])
        features = (features - features.mean(0)) / np.maximum(features.std(0), 1e-9)
        order = [place for place, (frame, _) in enumerate(with_face) if frame.frame_index in peaks][:number]
        usual = int(np.argmin(np.linalg.norm(features, axis=1)))
        order += [usual] if usual not in order and len(order) < number else []
        distance = np.min([np.linalg.norm(features - features[place], axis=1) for place in order], axis=0)
        while len(order) < min(number, len(features)):
            distance = np.minimum(distance, np.linalg.norm(features - features[order[-1]], axis=1))
            distance[order] = -1
            order.append(int(np.argmax(distance)))
        chosen = [with_face[i][0] for i in order]
    taken = {frame.frame_index for frame in chosen}
    rest = [frame for frame in frames if frame.frame_index not in taken]
    missing = min(number - len(chosen), len(rest))
    chosen += [rest[i] for i in np.linspace(0, len(rest) - 1, missing).round().astype(int).tolist()] if missing else []
    return sorted(chosen, key=lambda frame: frame.frame_index)


def draw_sheet(
    shown: Iterable[tuple[Shown, list[Square]]],
    number: int,
    look: Look,
    aspect: float,
    peaks: Mapping[int, list[str]] = MappingProxyType({}),
    *,
    apart: bool = False,
) -> Image.Image:
    """Return the sheet.

    Args:
        shown: frames with their rows, and the squares to hide in each.
        number: number of frames.
        look: appearance.
        aspect: width over height of the upright frames.
        peaks: kinds of events that peak in a frame, by `frame_index`.
        apart: whether to show the numbers of each frame's largest face instead of those of a track.
    """
    columns = max(1, min(number, 6 if aspect < 1 else 4 if number > 4 else 3 if number == 3 else 2))
    cell = (320 if aspect < 1 else 480 if columns > 3 else 640, 0)
    cell = (cell[0], max(1, round(cell[0] / aspect)))
    rows = -(-number // columns)
    width = columns * (cell[0] + _GAP) + _GAP
    height = rows * (cell[1] + SUMMARY_PX + _GAP) + _GAP + _FOOTER
    sheet = Image.new("RGB", (width, height), GROUND)
    for place, (item, hidden) in enumerate(shown):
        corner = (
            _GAP + place % columns * (cell[0] + _GAP),
            _GAP + place // columns * (cell[1] + SUMMARY_PX + _GAP),
        )
        scale = min(cell[0] / item.frame.width_px, cell[1] / item.frame.height_px)
        # Pictures of one folder may have different shapes.
        sheet.paste(ImageOps.pad(draw_picture(item, scale, look, hidden), cell, color=GROUND), corner)
        draw = ImageDraw.Draw(sheet)
        words = f"{clock_text(item.frame.time_us)}   frame {item.frame.index}"
        tag(draw, (corner[0], corner[1] + cell[1]), words, 14, RAISED, INK)
        if item.frame.index in peaks:
            happens = shortened(f"peak of {', '.join(peaks[item.frame.index])}", 13, cell[0] - 20)
            tag(draw, (corner[0], corner[1] + cell[1] - 24), happens, 13, WARNING, GROUND)
        draw_summary(sheet, (corner[0], corner[1] + cell[1]), cell[0], _summarised(item.sampled, look.track_id, apart))
    draw_footer(ImageDraw.Draw(sheet), look, (0, height - _FOOTER, width, height), 1.0, 13.5)
    return sheet


def are_apart(frames: Iterable[SampledFrame]) -> bool:
    """Return whether each track is in one frame only, as with unrelated pictures."""
    seen = Counter(face.track_id for frame in frames for face in frame.faces)
    return len(seen) > 1 and max(seen.values()) == 1


def _summarised(sampled: SampledFrame | None, track_id: int | None, apart: bool) -> Face | None:
    if sampled is None or not sampled.faces:
        return None
    return max(sampled.faces, key=lambda face: face.area_px) if apart else sampled.face(track_id)
