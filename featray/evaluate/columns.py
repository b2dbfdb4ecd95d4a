"""Evaluate. The columns of a labels file: those that identify a video, a moment and a face, and those with labels.

The whole vocabulary is defined in this module, so that messages and docs can list it. Any other column is a label
column, such as `subject`, `split` or `light`; its values are text.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import Final

from featray.errors import UsageError, columns_shown
from featray.names import AU_NAMES_20

VIDEO: Final = ("video", "video_id", "uri", "url", "path", "file", "filename")
"""Columns that identify a video: by its id, its URI, or the last parts of the URI, with or without a suffix."""

PICTURE: Final = ("picture", "source_name", "image")
"""Columns that identify a picture of a sequence, by the last parts of its path."""

TIMES: Final[dict[str, float]] = {"pts_us": 1.0, "time_ms": 1e3, "time_s": 1e6, "seconds": 1e6}
"""Columns with presentation times of the stream, and the microseconds in their unit."""

FRAME: Final = ("frame_index", "frame")
"""Columns with positions in presentation order, from 0."""

BOX: Final = ("box_x1", "box_y1", "box_x2", "box_y2")
POINT: Final = ("point_x", "point_y")
"""Columns that select a face within a frame, in px of the upright frame."""

GAZE: Final = ("gaze_yaw", "gaze_pitch")
GAZE_VECTOR: Final = ("gaze_x", "gaze_y", "gaze_z")
POSE: Final = ("pose_pitch", "pose_yaw", "pose_roll")
"""Angles are in radians, or in degrees with the suffix `_deg`; signs and axes are those of the `faces` table."""

EMOTION: Final = "emotion"
AFFECT: Final = ("valence", "arousal")

_DEG: Final = "_deg"
_ANGLES: Final = (*GAZE, *POSE)
_AU: Final = re.compile(r"AU_?0*(\d{1,2})", re.IGNORECASE)
_LIKE_AU: Final = re.compile(r"AU[ _-]*[0-9OIl]", re.IGNORECASE)
"""The beginning of a name that means an action unit: AU112, AUO6, AU06_c of OpenFace."""
_FIXED: Final = (
    *VIDEO, *PICTURE, *TIMES, *FRAME, *BOX, *POINT, *GAZE_VECTOR, EMOTION, *AFFECT,
    *_ANGLES, *(f"{name}{_DEG}" for name in _ANGLES),
)  # fmt: skip

TARGETS_IN_WORDS: Final = "AU01 ... AU43, emotion, valence, arousal, gaze_yaw and gaze_pitch, gaze_x to _z, pose_*"
_ALIKE: Final = 0.85


@dataclass(frozen=True)
class Columns:
    """The columns of a labels file, under the file's own names.

    Attributes:
        video: column that identifies the video; None if only pictures are named.
        moment: column with the time, the frame or the picture.
        kind: kind of `moment`: `time`, `frame` or `picture`.
        us_per_unit: microseconds per unit of a `time`.
        box, point: columns in the order of BOX and POINT; empty if there are none.
        targets: the file's name by featray's: AUs, `emotion`, `valence`, angles without `_deg`, vector components.
        degrees: featray's names of the targets that are in degrees.
        unknown_units: action units that featray does not estimate.
        labels: all other columns.
    """

    video: str | None
    moment: str
    kind: str
    us_per_unit: float = 1.0
    box: tuple[str, ...] = ()
    point: tuple[str, ...] = ()
    targets: dict[str, str] = field(default_factory=dict)
    degrees: frozenset[str] = frozenset()
    unknown_units: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    @property
    def action_units(self) -> list[str]:
        """Return the labelled action units."""
        return [name for name in self.targets if name.startswith("AU")]


def read_columns(names: list[str], where: str) -> Columns:
    """Recognise the columns of a labels file.

    Args:
        names: the file's column names.
        where: the file, for messages.

    Raises:
        UsageError: a column is repeated, looks like a misspelt known name, or a required one is missing.
    """
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"{where}: has the column {twice[0]} twice; rename or drop one")
    targets, degrees, unknown = _targets(names, where)
    video = next((name for name in VIDEO if name in names), None)
    moment, kind, scale = _moment(names, where)
    if video is None and kind != "picture":
        raise UsageError(
            f"{where}: no column names videos; add one of {', '.join(VIDEO[:5])}. It has: {columns_shown(names)}"
        )
    _refuse_misspelled(names, where)
    box, point = (group if set(group) <= set(names) else () for group in (BOX, POINT))
    for group in (BOX, POINT):
        if (some := set(group) & set(names)) and not set(group) <= set(names):
            raise UsageError(f"{where}: has {', '.join(sorted(some))} but not all of {', '.join(group)}")
    if not targets:
        raise UsageError(
            f"{where}: no column of labels; add some of {TARGETS_IN_WORDS}. It has: {columns_shown(names)}"
        )
    used = {video, moment, *box, *point, *targets.values(), *unknown}
    labels = tuple(name for name in names if name not in used)
    return Columns(video, moment, kind, scale, box, point, targets, degrees, tuple(unknown), labels)


def _targets(names: list[str], where: str) -> tuple[dict[str, str], frozenset[str], list[str]]:
    found: dict[str, str] = {}
    degrees, unknown = set(), []
    for name in names:
        ours, angle = name, name.removesuffix(_DEG)
        if unit := _AU.fullmatch(name):
            ours = f"AU{int(unit[1]):02d}"
            if ours not in AU_NAMES_20:
                unknown.append(name)
                continue
        elif angle in _ANGLES:
            ours = angle
            degrees |= {angle} if name != angle else set()
        elif name not in (EMOTION, *AFFECT, *GAZE_VECTOR):
            continue
        if ours in found:
            raise UsageError(f"{where}: {found[ours]} and {name} are the same label; drop one")
        found[ours] = name
    for group in (GAZE, GAZE_VECTOR):
        if (some := [name for name in group if name in found]) and len(some) < len(group):
            raise UsageError(f"{where}: has {some[0]} without {', '.join(n for n in group if n not in found)}")
    if GAZE[0] in found and GAZE_VECTOR[0] in found:
        raise UsageError(f"{where}: has gaze as angles and as a vector; drop one")
    return found, frozenset(degrees), unknown


def _moment(names: list[str], where: str) -> tuple[str, str, float]:
    for kind, known in (("picture", PICTURE), ("time", tuple(TIMES)), ("frame", FRAME)):
        for name in known:
            if name in names:
                return name, kind, TIMES.get(name, 1.0)
    raise UsageError(
        f"{where}: no column gives a time (pts_us, time_s), a frame (frame_index) or a picture (picture); add one. "
        f"It has: {columns_shown(names)}"
    )


def _refuse_misspelled(names: list[str], where: str) -> None:
    """Refuse names that look misspelt: otherwise nobody would notice that a label is ignored."""
    for name in names:
        if name in _FIXED or _AU.fullmatch(name):
            continue
        if _LIKE_AU.match(name):
            raise UsageError(
                f"{where}: column {name!r}: action units are named AU and a number, such as AU06. Rename it to that, "
                "or to a name that begins differently"
            )
        near = difflib.get_close_matches(name.strip().lower(), _FIXED, 1, _ALIKE)
        if near and near[0] not in names:
            raise UsageError(
                f"{where}: column {name!r}: did you mean {near[0]}? Rename it to that, or to a less similar name"
            )
