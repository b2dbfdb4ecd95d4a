"""Report. The distribution of every feature: binned by DuckDB in one pass, with moments and quantiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from featray.names import AU_NAMES_20, EMOTION_NAMES_7
from featray.report.scope import Scope
from featray.schema import AU_MEANINGS


@dataclass(frozen=True)
class Feature:
    """A column of `faces` and its bins.

    Attributes:
        column: name of the column.
        group: group of features that are drawn together.
        title: display title.
        edges: edges of the bins, ascending; values beyond the ends are counted in the first and the last bin.
        unit: unit of the axis.
        logarithmic: whether the axis is logarithmic.
    """

    column: str
    group: str
    title: str
    edges: tuple[float, ...]
    unit: str = ""
    logarithmic: bool = False


def _even(low: float, high: float, bins: int) -> tuple[float, ...]:
    return tuple(low + (high - low) * i / bins for i in range(bins + 1))


_SHARE: Final = _even(0, 1, 25)
_BOTH_WAYS: Final = _even(-1, 1, 40)
_HALF_TURN: Final = _even(-math.pi / 2, math.pi / 2, 36)
_AFTER_GAZE: Final = _even(0, math.pi / 2, 30)
_FACE_PX: Final = tuple(2.0 ** (i / 4) for i in range(16, 45))
_SHARPNESS: Final = tuple(10.0 ** (i / 8) for i in range(0, 41))

FEATURES: Final = (
    *(Feature(au, "action units", AU_MEANINGS[au], _SHARE) for au in AU_NAMES_20),
    *(Feature(f"emotion_{name}", "emotions", name, _SHARE) for name in EMOTION_NAMES_7),
    Feature("valence", "valence and arousal", "unpleasant to pleasant", _BOTH_WAYS),
    Feature("arousal", "valence and arousal", "calm to excited", _BOTH_WAYS),
    Feature("gaze_yaw", "gaze", "horizontal", _HALF_TURN, "rad"),
    Feature("gaze_pitch", "gaze", "vertical; positive is up", _HALF_TURN, "rad"),
    Feature("gaze_angle", "gaze", "from the camera axis", _AFTER_GAZE, "rad"),
    Feature("pose_pitch", "head pose", "positive is up", _HALF_TURN, "rad"),
    Feature("pose_yaw", "head pose", "positive to the subject's right", _HALF_TURN, "rad"),
    Feature("pose_roll", "head pose", "positive tilts to the subject's right", _HALF_TURN, "rad"),
    Feature("face_px", "face size and quality", "shorter side of the box", _FACE_PX, "px", True),
    Feature("sharpness", "face size and quality", "variance of the Laplacian", _SHARPNESS, "grey levels²", True),
    Feature("score", "face size and quality", "the detector's score", _even(0.5, 1, 25)),
    Feature("in_frame", "face size and quality", "share of the crop in the frame", _SHARE),
)

MEASURED: Final = "face size and quality"
"""The group that comes from the detector and the picture, not from the network."""


@dataclass(frozen=True)
class Distribution:
    """The distribution of a feature over the faces of a scope; None without values.

    Attributes:
        feature: the feature.
        rows: number of values.
        counts: count per bin, one fewer than edges.
        mean, sd: arithmetic mean and population standard deviation.
        q05, q50, q95: quantiles, approximate beyond a few thousand rows.
    """

    feature: Feature
    rows: int
    counts: tuple[int, ...]
    mean: float | None
    sd: float | None
    q05: float | None
    q50: float | None
    q95: float | None


def read_distributions(scope: Scope, faces: int) -> tuple[list[Distribution], float]:
    """Bin every feature.

    Args:
        scope: the release.
        faces: number of rows in `faces`.

    Returns:
        One distribution per feature, and the share of the rows that was read.
    """
    sample, share = scope.sample(faces)
    columns = [f"{_of(feature)} AS c{number}" for number, feature in enumerate(FEATURES)]
    row = scope.row(f"SELECT {', '.join(columns)} FROM in_faces {sample}")
    return [_distribution(feature, row[f"c{number}"]) for number, feature in enumerate(FEATURES)], share


def _of(feature: Feature) -> str:
    # Keys are upper edges, inclusive; values beyond the last edge are counted under infinity.
    edges = ", ".join(f"{edge!r}::DOUBLE" for edge in feature.edges[1:-1])
    name = feature.column
    return (
        f"{{'n': count({name}), 'bins': map_values(histogram({name}::DOUBLE, [{edges}])), "
        f"'keys': map_keys(histogram({name}::DOUBLE, [{edges}])), 'mean': avg({name}), "
        f"'sd': stddev_pop({name}), 'q': approx_quantile({name}, [0.05, 0.5, 0.95])}}"
    )


def _distribution(feature: Feature, found: dict[str, object]) -> Distribution:
    keys, values = found["keys"] or (), found["bins"] or ()
    assert isinstance(keys, Sequence) and isinstance(values, Sequence)
    by_edge = {round(key, 9): value for key, value in zip(keys, values, strict=True)}
    counts = [by_edge.pop(round(edge, 9), 0) for edge in feature.edges[1:-1]]
    counts.append(sum(by_edge.values()))
    quantiles = found["q"] or (None, None, None)
    assert isinstance(quantiles, Sequence)
    mean, sd, rows = found["mean"], found["sd"], found["n"]
    return Distribution(feature, rows, tuple(counts), mean, sd, *quantiles)  # type: ignore[arg-type]
