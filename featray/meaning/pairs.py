"""Meaning. The pairs that are compared, the sign that each must have, and the result of each in the clips.

A pair consists of two outputs learned from different labels, or of an output and a geometric measure. Expected signs
follow from the meaning of the columns in `schema.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from featray.meaning.geometry import fit_rotation, mirrored_vertices
from featray.meaning.statistics import Interval, correlate, mean
from featray.meaning.watched import Floats, Watched, distances, left_minus_right, signals

Verdict = Literal["agrees", "opposed", "no evidence", "not estimated"]

LEAST_CORRELATION: Final = 0.3
"""Weaker correlations are no evidence, however significant, since heads influence each other slightly."""

ON_THE_FACE: Final = 0.15
"""Maximum median distance of the mesh from the detector's landmarks, in box sides, for a mesh on the face. On the
bundled clip, MediaPipe's own mesh is at 0.03, and a mirrored or rotated one at 0.26 or more."""

_A_FACE: Final = 0.3
"""Maximum median residual of the rigid fit for a mesh in the shape of a face: MediaPipe's has 0.10, and 0.80 with its
depth turned inside out."""


@dataclass(frozen=True)
class Pair:
    """Two series with an expected sign of correlation.

    Attributes:
        group: group of the pair.
        first, second: names in `watched.signals`.
        sign: expected sign of the correlation, +1 or -1.
        given: a series whose effect is first removed from both.
        needs_mesh: whether the pair is meaningful only if the mesh is on the face.
    """

    group: str
    first: str
    second: str
    sign: int = 1
    given: str | None = None
    needs_mesh: bool = True


@dataclass(frozen=True)
class Row:
    """A pair and its result.

    Attributes:
        first, second: the two things compared.
        expected: `+`, `-`, or in words.
        interval: None if it could not be computed.
        note: why there is no evidence, or other remarks.
    """

    group: str
    first: str
    second: str
    expected: str
    interval: Interval | None
    verdict: Verdict
    note: str = ""

    @property
    def name(self) -> str:
        """Return both names, for display."""
        return f"{self.first} ~ {self.second}" if self.second else self.first


def _heads(group: str, first: str, *others: str) -> Iterator[Pair]:
    for other in others:
        yield Pair(group, first, other, needs_mesh=False)


PAIRS: Final = (
    *(Pair("mesh", f"mesh {axis}", f"landmarks {axis}") for axis in ("pitch", "yaw", "roll")),
    *(
        Pair("head pose", f"pose_{axis}", f"{source} {axis}")
        for axis in ("pitch", "yaw", "roll")
        for source in ("mesh", "landmarks")
    ),
    Pair("gaze", "gaze_yaw", "mesh yaw", -1),
    Pair("gaze", "gaze_pitch", "mesh pitch"),
    Pair("gaze", "gaze_yaw", "iris x", given="mesh yaw"),
    Pair("gaze", "gaze_pitch", "iris y", given="mesh pitch"),
    Pair("gaze", "gaze_yaw", "eyeLook left", given="mesh yaw"),
    Pair("gaze", "gaze_pitch", "eyeLook up", given="mesh pitch"),
    Pair("gaze", "eyeLook left", "iris x", given="mesh yaw"),
    Pair("gaze", "eyeLook up", "iris y", given="mesh pitch"),
    *_heads("expression", "AU43", "eyeBlink"),
    Pair("expression", "AU43", "eye opening", -1),
    Pair("expression", "eyeBlink", "eye opening", -1),
    *_heads("expression", "AU25", "jawOpen"),
    Pair("expression", "AU25", "lip gap"),
    *_heads("expression", "AU26", "jawOpen"),
    Pair("expression", "AU26", "lip gap"),
    Pair("expression", "jawOpen", "lip gap"),
    *_heads("expression", "AU01", "browInnerUp"),
    Pair("expression", "AU01", "brow inner height", given="mesh pitch"),
    Pair("expression", "browInnerUp", "brow inner height", given="mesh pitch"),
    *_heads("expression", "AU02", "browOuterUp"),
    Pair("expression", "AU02", "brow outer height", given="mesh pitch"),
    Pair("expression", "browOuterUp", "brow outer height", given="mesh pitch"),
    *_heads("expression", "AU04", "browDown"),
    Pair("expression", "AU04", "brow height", -1, given="mesh pitch"),
    Pair("expression", "browDown", "brow height", -1, given="mesh pitch"),
    *_heads("expression", "AU12", "mouthSmile", "emotion_happy"),
    *_heads("expression", "emotion_happy", "mouthSmile", "AU06", "AU06 + AU12"),
    *_heads("expression", "valence", "emotion_happy", "AU06 + AU12"),
    Pair("left and right", "eyeBlink left - right", "eye opening left - right", -1),
    Pair("left and right", "mouthSmile left - right", "mouth corner left - right"),
)

MIRRORED: Final = {"pose_yaw": -1, "pose_roll": -1, "pose_pitch": 1, "gaze_yaw": -1, "gaze_pitch": 1}
"""Whether a column keeps (1) or flips (-1) its sign when the picture is mirrored."""

SWAPPED_AXES: Final = (
    ("pose_pitch", "pose_yaw"), ("pose_pitch", "pose_roll"), ("pose_yaw", "pose_roll"), ("gaze_pitch", "gaze_yaw"),
)  # fmt: skip


def mesh_rows(clips: Sequence[Watched]) -> list[Row]:
    """Return the rows that check whether meshes are on the detected face, and have the right direction of depth."""
    best, median = _best_layout(clips)
    note = f"{median:.3f} box sides from the five landmarks, in the median"
    if median > ON_THE_FACE:
        verdict: Verdict = "no evidence"
        note += ": the mesh is on no face"
    else:
        verdict = "agrees" if best == _AS_IT_IS else "opposed"
        note += "" if best == _AS_IT_IS else f", once it is {best}"
    rows = [Row("mesh", "mesh", "landmarks", "near", None, verdict, note)]
    if verdict != "agrees":
        return [*rows, Row("mesh", "mesh depth", "canonical face", "fits", None, "no evidence", "no mesh to look at")]
    as_it_is, inside_out = (
        float(np.median(np.concatenate([fit_rotation(clip.mesh_px * [1, 1, z])[1] for clip in clips]))) for z in (1, -1)
    )
    verdict = "no evidence"
    if min(as_it_is, inside_out) <= _A_FACE:
        verdict = "agrees" if as_it_is < inside_out else "opposed"
    note = f"the rigid fit leaves {as_it_is:.2f}, with depth turned inside out {inside_out:.2f}"
    return [*rows, Row("mesh", "mesh depth", "canonical face", "fits", None, verdict, note)]


_AS_IT_IS: Final = "as it is"


def _best_layout(clips: Sequence[Watched]) -> tuple[str, float]:
    """Return the layout in which meshes come nearest to the landmarks, and their median distance in it."""
    found = {}
    for name in (_AS_IT_IS, *LAYOUTS):
        every = [distances(changed_mesh(clip.mesh_px, clip.squares, name), clip) for clip in clips]
        found[name] = float(np.median(np.concatenate(every)))
    best = min(found, key=lambda name: found[name])
    # Five points of a frontal face hardly distinguish some layouts; a small advantage is no reason to doubt the mesh.
    return (_AS_IT_IS, found[_AS_IT_IS]) if found[_AS_IT_IS] < 1.2 * found[best] else (best, found[best])


LAYOUTS: Final = ("mirrored", "upside down", "with x and y swapped", "with its sides swapped")


def changed_mesh(mesh_px: Floats, squares: Floats, layout: str) -> Floats:
    """Return meshes in another layout within their chips, or with the vertices of the face's sides exchanged."""
    if layout == "with its sides swapped":
        return mesh_px[:, mirrored_vertices()]
    corner, side = squares[:, None, :2], squares[:, None, 2]
    changed = mesh_px.copy()
    changed[:, :, :2] -= corner
    if layout == "mirrored":
        changed[:, :, 0] = side - changed[:, :, 0]
    elif layout == "upside down":
        changed[:, :, 1] = side - changed[:, :, 1]
    elif layout == "with x and y swapped":
        changed[:, :, :2] = changed[:, :, 1::-1]
    changed[:, :, :2] += corner
    return changed


def pair_rows(clips: Sequence[Watched], *, on_the_face: bool) -> list[Row]:
    """Return the rows of all PAIRS, and of swapped axes if there are any."""
    series = [signals(clip) for clip in clips]
    rows = []
    for pair in PAIRS:
        expected = "+" if pair.sign > 0 else "-"
        if not {pair.first, pair.second} <= set(series[0]):
            continue  # a checkpoint without blendshapes
        if pair.needs_mesh and not on_the_face:
            rows.append(Row(pair.group, pair.first, pair.second, expected, None, "no evidence", _OFF_THE_FACE))
            continue
        given = None if pair.given is None else [one[pair.given] for one in series]
        interval = correlate([(one[pair.first], one[pair.second]) for one in series], given)
        note = "" if pair.given is None else f"given {pair.given}"
        rows.append(Row(pair.group, pair.first, pair.second, expected, interval, judge(interval, pair.sign), note))
    return rows + (list(_swaps(series)) if on_the_face else [])


_OFF_THE_FACE: Final = "the mesh is not on the face"


def judge(interval: Interval | None, sign: int) -> Verdict:
    """Return the verdict of a correlation's interval on its expected sign."""
    if interval is None or abs(interval.value) < LEAST_CORRELATION or interval.low <= 0 <= interval.high:
        return "no evidence"
    return "agrees" if interval.value * sign > 0 else "opposed"


def _swaps(series: list[dict[str, Floats]]) -> Iterator[Row]:
    """Yield pairs of columns that seem swapped: each correlates more with the other's angle than with its own."""
    for columns in SWAPPED_AXES:
        angles = [f"mesh {name.split('_')[1]}" for name in columns]
        own, others = (
            [correlate([(one[a], one[b]) for one in series]) for a, b in zip(columns, order, strict=True)]
            for order in (angles, angles[::-1])
        )
        surely = all(judge(interval, 1) != "no evidence" for interval in others)
        if surely and all(abs(o.value) > abs(s.value if s else 0.0) for o, s in zip(others, own, strict=True) if o):
            group = "gaze" if columns[0].startswith("gaze") else "head pose"
            yield Row(group, *columns, "apart", others[0], "opposed", "each follows the other's angle of the mesh")


def mirror_rows(clips: Sequence[Watched]) -> list[Row]:
    """Return the rows that check whether columns behave correctly when pictures are mirrored."""
    rows = []
    for column, sign in MIRRORED.items():
        both = [(clip.columns[column][clip.some].astype(float), clip.mirrored[column].astype(float)) for clip in clips]
        interval = correlate(both)
        expected = "+" if sign > 0 else "-"
        rows.append(Row("mirrored", column, f"{column} of the mirror image", expected, interval, judge(interval, sign)))
    pairs = [
        (a[:, clip.some], b)
        for clip in clips
        if (a := left_minus_right(clip.columns)).size and (b := left_minus_right(clip.mirrored)).size
    ]
    if pairs:
        interval = _sides(pairs)
        verdict = judge(interval, -1)
        rows.append(Row("mirrored", "Left - Right", "Left - Right of the mirror image", "-", interval, verdict))
    return rows


def _sides(pairs: list[tuple[Floats, Floats]]) -> Interval | None:
    """Correlate the blendshapes' sides, each scaled to its spread; the median counts, as for a single blendshape."""
    scaled = []
    for a, b in pairs:
        spread = np.maximum(a.std(axis=1), 1e-9)[:, None]
        scaled.append(((a - a.mean(axis=1, keepdims=True)) / spread, (b - b.mean(axis=1, keepdims=True)) / spread))
    found = [correlate([(a[i], b[i]) for a, b in scaled]) for i in range(len(scaled[0][0]))]
    known = [one for one in found if one is not None]
    if not known:
        return None
    middle = sorted(known, key=lambda one: one.value)[len(known) // 2]
    return middle


def channel_row(clips: Sequence[Watched], *, on_the_face: bool) -> Row:
    """Check the order of the color channels: with red and blue swapped, the network must do worse."""
    first, second, expected = "mesh, red and blue swapped", "mesh", "farther off"
    if not on_the_face:
        return Row("channels", first, second, expected, None, "no evidence", _OFF_THE_FACE)
    swapped = [distances(clip.swapped_mesh_px, clip, clip.some) for clip in clips]
    worse = [one - distances(clip.mesh_px, clip)[clip.some] for one, clip in zip(swapped, clips, strict=True)]
    interval = mean(worse)
    verdict: Verdict = "no evidence"
    if interval is not None and not interval.low <= 0 <= interval.high:
        verdict = "agrees" if interval.value > 0 else "opposed"
    moved = [np.abs(clip.swapped["AU12"] - clip.columns["AU12"][clip.some]) for clip in clips]
    note = f"box sides; AU12 moves by {float(np.concatenate(moved).mean()):.3f}"
    return Row("channels", first, second, expected, interval, verdict, note)
