"""Evaluate. Pair each label with featray's prediction, one row per label, in the same units and frames."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from featray.errors import UsageError
from featray.evaluate.columns import AFFECT, EMOTION, GAZE, GAZE_VECTOR, POSE
from featray.evaluate.join import QUALITY, Joined
from featray.evaluate.labels import Labels
from featray.evaluate.matching import MISSED, Fate
from featray.evaluate.measures import Floats, angles_between_deg, turn_deg
from featray.evaluate.values import MOST_INTENSE, OTHER_EMOTION
from featray.names import EMOTION_NAMES_7
from featray.views.directions import gaze_vectors

SUBJECT: Final = "subject"
"""The label column whose values are resampled, if it exists and no other was named."""

_AT_CAMERA: Final = (0.0, 0.0, -1.0)


@dataclass(frozen=True)
class Pairs:
    """Truth and prediction; all arrays are `[n]` or `[n, 3]`, NaN without a value.

    Attributes:
        found: whether the label matched a face.
        missed: whether its frame was sampled but the face was not found.
        truth: action units as 0 or 1, `emotion` as index of the seven, `valence`, `arousal`, `gaze` as unit vectors of
            the camera's frame, `pose_*` in radians.
        said: featray's predictions, action units as probabilities; `emotion_share` is the predicted emotion's share.
        intensities: labelled intensities of action units, divided by 5; empty if labels are 0 and 1.
        subjects: subject of each row, from 0.
        subject_kind: what is resampled, in the plural: `values of subject`, `videos`, `pictures`.
        quality: `face_px`, `sharpness`, ... of the face, and `head_deg`, the head's angle to the camera.
    """

    found: NDArray[np.bool_]
    missed: NDArray[np.bool_]
    truth: dict[str, Floats]
    said: dict[str, Floats]
    intensities: dict[str, Floats]
    subjects: NDArray[np.int64]
    subject_kind: str
    quality: dict[str, Floats] = field(default_factory=dict)

    @property
    def units(self) -> list[str]:
        """Return the labelled action units, in numerical order."""
        return sorted(name for name in self.truth if name.startswith("AU"))

    def filled(self) -> Pairs:
        """Return the pairs with default predictions for faces that were not found, to count these as wrong.

        Action units are absent, no emotion is predicted, valence, arousal and the head's angles are 0, and gaze is at
        the camera: the prediction one would make without seeing the face.
        """
        said = dict(self.said)
        for name, values in self.said.items():
            if name in (EMOTION, "emotion_share"):
                continue
            fill = np.asarray(_AT_CAMERA if name == "gaze" else 0.0)
            missed = self.missed[:, None] if values.ndim == 2 else self.missed
            said[name] = np.where(missed, fill, values)
        return replace(self, said=said)


def make_pairs(labels: Labels, joined: Joined, subject: str | None) -> Pairs:
    """Pair labels with their matched faces.

    Args:
        labels: the human labels.
        joined: the face matched to each label.
        subject: label column whose values are resampled; None: `subject` if there is one, else videos or pictures.

    Raises:
        UsageError: there is no such column, or it is empty in a row that counts.
    """
    found = joined.fates == Fate.FOUND
    missed = np.isin(joined.fates, [str(fate) for fate in MISSED])
    truth, said, intensities = _units(labels, joined)
    faces = joined.faces
    if EMOTION in labels.targets:
        values = labels.targets[EMOTION]
        truth[EMOTION] = np.where(values == OTHER_EMOTION, np.nan, values)
        shares = np.stack([faces[f"emotion_{name}"] for name in EMOTION_NAMES_7], axis=1)
        said[EMOTION] = np.where(found, shares.argmax(axis=1), np.nan)
        said["emotion_share"] = np.where(found, shares.max(axis=1), np.nan)
    for name in (*AFFECT, *POSE):
        if name in labels.targets:
            truth[name], said[name] = labels.targets[name], faces[name]
    if GAZE[0] in labels.targets:
        truth["gaze"] = gaze_vectors(*(labels.targets[name] for name in GAZE))
    elif GAZE_VECTOR[0] in labels.targets:
        truth["gaze"] = np.stack([labels.targets[name] for name in GAZE_VECTOR], axis=1)
    if "gaze" in truth:
        said["gaze"] = gaze_vectors(faces["gaze_yaw"], faces["gaze_pitch"])
    subjects, kind = _subjects(labels, joined, found | missed, subject)
    quality = {name: faces[name] for name in QUALITY}
    quality["head_deg"] = np.degrees(np.hypot(faces["pose_yaw"], faces["pose_pitch"]))
    return Pairs(found, missed, truth, said, intensities, subjects, kind, quality)


def _units(labels: Labels, joined: Joined) -> tuple[dict[str, Floats], dict[str, Floats], dict[str, Floats]]:
    truth, said, intensities = {}, {}, {}
    for name in labels.columns.action_units:
        values = labels.targets[name]
        least = labels.au_threshold if labels.au_threshold is not None else 1.0
        truth[name] = np.where(np.isnan(values), np.nan, values >= least)
        said[name] = joined.faces[name]
        if labels.intensities:
            intensities[name] = values / MOST_INTENSE
    return truth, said, intensities


def _subjects(
    labels: Labels, joined: Joined, counted: NDArray[np.bool_], column: str | None
) -> tuple[NDArray[np.int64], str]:
    if column is None and SUBJECT in labels.labels:
        column = SUBJECT
    if column is not None:
        names = labels.text(column, "--subject")
        if (bad := np.flatnonzero(counted & np.array([name is None for name in names]))).size:
            raise UsageError(f"{labels.where}: row {bad[0] + 1}: {column} is empty; every row needs one")
        kind = "subjects" if column == SUBJECT else f"values of {column}"
    elif labels.columns.kind == "picture":
        names = np.asarray([f"{video}/{frame}" for video, frame in zip(joined.video_ids, joined.frames, strict=True)])
        kind = "pictures"
    else:
        names, kind = joined.video_ids, "videos"
    return np.unique(np.asarray([str(name) for name in names]), return_inverse=True)[1].astype(np.int64), kind


def conventions(pairs: Pairs) -> list[str]:
    """Return warnings about angles whose sign or axis seems to differ between labels and tables, one line each.

    If a data set's yaw has the opposite sign, the error is about twice the yaw; with the sign flipped, only the
    network's own error remains. A warning is returned only if flipping halves the error of a hundred rows or more.
    """
    lines = []
    if "gaze" in pairs.truth:
        truth, said = pairs.truth["gaze"], pairs.said["gaze"]
        turns = _FLIPS if _enough(truth, said) else ()
        lines += _turned("gaze", {turn: float(np.nanmean(angles_between_deg(truth * turn, said))) for turn in turns})
    for name in POSE:
        if name in pairs.truth and _enough(pairs.truth[name], pairs.said[name]):
            truth, said = pairs.truth[name], pairs.said[name]
            lines += _turned(name, {(sign, 1, 1): float(np.nanmean(turn_deg(sign * truth, said))) for sign in (1, -1)})
    return lines


_FLIPS: Final = ((1, 1, 1), (-1, 1, 1), (1, -1, 1), (-1, -1, 1), (-1, -1, -1))
_AXES: Final = {(-1, 1, 1): "left for right", (1, -1, 1): "up for down", (-1, -1, 1): "left for right and up for down",
                (-1, -1, -1): "the other way"}  # fmt: skip
_LEAST_ROWS: Final = 100


def _enough(truth: Floats, said: Floats) -> bool:
    values = truth + said
    return bool((~np.isnan(values if values.ndim == 1 else values[:, 0])).sum() >= _LEAST_ROWS)


def _turned(what: str, errors: dict[tuple[int, int, int], float]) -> list[str]:
    if not errors:
        return []
    best = min(errors, key=lambda flip: errors[flip])
    plain = errors[next(iter(errors))]
    if errors[best] > plain / 2:
        return []
    how = _AXES[best] if what == "gaze" else "with the other sign"
    return [
        f"{what}: mean error {plain:.1f}°, with labels {how} it would be {errors[best]:.1f}°: check their convention"
    ]
